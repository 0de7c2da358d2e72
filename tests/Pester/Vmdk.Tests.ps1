# VMDK by way of the cmdlets.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'vmdk'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size (5MB + 512) -Seed 77
}

AfterAll { Pop-Location }

Describe 'VMDK' {
    It 'converts to <_> and back' -ForEach 'monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat', 'streamOptimized' {
        $info = Convert-DiskImage disk.raw "$_.vmdk" -Option "subformat=$_" -Verify
        $info.Format | Should -Be 'vmdk'
        $info.VirtualSize | Should -Be (5MB + 512)
        $info.FormatSpecific.CreateType | Should -Be $_
        Invoke-Qemu qemu-img compare -q -f raw -F vmdk disk.raw "$_.vmdk"
        (Compare-DiskImage disk.raw "$_.vmdk" -Format raw).Identical | Should -BeTrue
        Test-DiskImage "$_.vmdk" -Quiet | Should -BeTrue
    }

    It 'names the files of a flat disk in its map and its description' {
        $null = New-DiskImage flat.vmdk 1MB -Option subformat=monolithicFlat
        Write-DiskImage flat.vmdk 65536 (1, 2, 3)
        (Get-DiskImageMap flat.vmdk | Where-Object Data | Select-Object -First 1).File | Should -BeLike '*flat-flat.vmdk'
        (Get-DiskImageInfo flat.vmdk).Children.Role | Should -Contain 'extents.0'
    }

    It 'names the file of each extent of <Subformat> in its map' -ForEach @(
        @{ Subformat = 'twoGbMaxExtentFlat'; Files = 'many-f001.vmdk', 'many-f002.vmdk' }
        @{ Subformat = 'twoGbMaxExtentSparse'; Files = 'many-s001.vmdk', 'many-s002.vmdk' }
        @{ Subformat = 'monolithicFlat'; Files = , 'many-flat.vmdk' }
    ) {
        $null = New-DiskImage many.vmdk (2GB + 4MB) -Option "subformat=$Subformat" -Force
        Write-DiskImage many.vmdk 1MB (, 7 * 65536)
        Write-DiskImage many.vmdk (2GB + 1MB) (, 7 * 65536)
        $found = @(Get-DiskImageMap many.vmdk | Where-Object { $_.Data -and -not $_.Zero } | ForEach-Object File | Select-Object -Unique)
        $found | Should -Be @($Files | ForEach-Object { Join-Path $folder $_ })
        Remove-Item many*
    }

    It 'shows adapter_type <_>, made and changed' -ForEach 'ide', 'buslogic', 'lsilogic', 'legacyESX' {
        $null = New-DiskImage "adapter.vmdk" 1MB -Option "adapter_type=$_,hwversion=7,toolsversion=12" -Force
        $specific = (Get-DiskImageInfo adapter.vmdk).FormatSpecific
        $specific.AdapterType, $specific.HardwareVersion, $specific.ToolsVersion | Should -Be $_, '7', '12'
        $null = New-DiskImage "adapter.vmdk" 1MB -Force
        Set-DiskImageOption adapter.vmdk -Option "adapter_type=$_", 'hwversion=21', 'toolsversion=0', 'cid=0badcafe' -WarningAction SilentlyContinue
        $specific = (Get-DiskImageInfo adapter.vmdk).FormatSpecific
        $specific.AdapterType, $specific.HardwareVersion, $specific.ToolsVersion, $specific.Cid | Should -Be $_, '21', '0', '0badcafe'
    }

    It 'stands on a parent, is merged and rebased' {
        $null = Convert-DiskImage disk.raw base.vmdk
        $null = New-DiskImage child.vmdk -BackingPath base.vmdk
        Write-DiskImage child.vmdk 1000 (9, 9, 9)
        (Get-DiskImageInfo child.vmdk -BackingChain).Count | Should -Be 2
        Invoke-Qemu qemu-img compare -q -f vmdk -F vmdk child.vmdk child.vmdk
        $null = Convert-DiskImage child.vmdk expected.raw
        $null = Merge-DiskImage child.vmdk -Confirm:$false
        (Compare-DiskImage base.vmdk expected.raw -DifferenceFormat raw).Identical | Should -BeTrue
        (Get-DiskImageInfo child.vmdk).BackingFile | Should -Be 'base.vmdk'
        $null = New-Item sub -ItemType Directory -Force
        Move-Item base.vmdk sub
        Set-DiskImageBacking child.vmdk sub/base.vmdk -Unsafe
        (Compare-DiskImage child.vmdk expected.raw -DifferenceFormat raw).Identical | Should -BeTrue
    }

    It 'refuses a parent that was changed, unless told otherwise' {
        $null = New-DiskImage p.vmdk 1MB
        $null = New-DiskImage c.vmdk -BackingPath p.vmdk
        Write-DiskImage p.vmdk 0 (1, 2)
        { Read-DiskImage c.vmdk 0 2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageCorrupt,*' -ExpectedMessage '*content identifier*'
        (Read-DiskImage c.vmdk 0 2 -IgnoreIdMismatch) -join ',' | Should -Be '1,2'
    }

    It 'changes options, grows, compacts' {
        $null = New-DiskImage o.vmdk 1MB
        Set-DiskImageOption o.vmdk -Option adapter_type=lsilogic, hwversion=13
        $specific = (Get-DiskImageInfo o.vmdk).FormatSpecific
        $specific.AdapterType, $specific.HardwareVersion | Should -Be 'lsilogic', '13'
        Resize-DiskImage o.vmdk 90MB
        (Get-DiskImageInfo o.vmdk).VirtualSize | Should -Be 90MB
        Write-DiskImage o.vmdk 80MB (1..100)
        Optimize-DiskImage o.vmdk
        Invoke-Qemu qemu-img check -q -f vmdk o.vmdk
    }

    It 'measures what it then makes' {
        $measured = Measure-DiskImage disk.raw -DestinationFormat vmdk
        $null = Convert-DiskImage disk.raw measured.vmdk
        (Get-Item measured.vmdk).Length | Should -BeLessOrEqual $measured.Required
    }

    It 'makes what <Profile> takes, and says why it would refuse another' -ForEach @(
        @{ Profile = 'ESXi'; Type = 'streamOptimized'; Size = 6MB }
        @{ Profile = 'VMwareWorkstation'; Type = 'monolithicSparse'; Size = 5MB + 512 }
        @{ Profile = 'VMFS'; Type = 'vmfs'; Size = 6MB }
    ) {
        $info = Convert-DiskImage disk.raw "$Profile.vmdk" -Profile $Profile -Verify
        $info.VirtualSize | Should -Be $Size
        $info.FormatSpecific.CreateType | Should -Be $Type
        $info.FormatSpecific.AdapterType | Should -Be 'lsilogic'
        Test-DiskImage "$Profile.vmdk" -Profile $Profile -Quiet | Should -BeTrue
        $null = New-DiskImage "other-$Profile.qcow2" 1MB
        "$((Test-DiskImage "other-$Profile.qcow2" -Profile $Profile).ProfileRefusals)" | Should -BeLike '*takes VMDK*'
        Invoke-Qemu qemu-img compare -q -f raw -F vmdk disk.raw "$Profile.vmdk"
    }

    It 'does not open what a descriptor must not name' {
        Set-Content device.vmdk "# Disk DescriptorFile`nversion=1`nCID=1`nparentCID=ffffffff`nRW 16 FLAT `"/dev/zero`" 0"
        { Get-DiskImageInfo device.vmdk -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        $null = New-Item deep -ItemType Directory -Force
        Set-Content deep/out.vmdk "# Disk DescriptorFile`nversion=1`nCID=1`nparentCID=ffffffff`nRW 16 FLAT `"../disk.raw`" 0"
        { Get-DiskImageHash deep/out.vmdk -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageRefused,*' -ExpectedMessage '*-References LocalFiles*'
        (Get-DiskImageHash deep/out.vmdk -References LocalFiles).Hash | Should -Not -BeNullOrEmpty
    }
}
