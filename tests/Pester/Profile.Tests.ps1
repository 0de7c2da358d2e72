BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'profile'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size (20MB + 512) -Seed 191
}

AfterAll { Pop-Location }

Describe '-Profile' {
    It 'Azure makes a fixed VHD of whole MiB that Azure takes' {
        $info = Convert-DiskImage disk.raw azure.vhd -Profile Azure -Verify -Force
        $info.Format | Should -Be 'vpc'
        $info.VirtualSize | Should -Be 21MB
        $info.FormatSpecific.DiskType | Should -Be 'Fixed'
        (Get-Item azure.vhd).Length | Should -Be (21MB + 512)
        Test-DiskImage azure.vhd -Profile Azure -Quiet | Should -BeTrue
        Invoke-Qemu qemu-img compare -q -f raw -F vpc disk.raw azure.vhd
        (Invoke-Qemu qemu-img info -f vpc --output=json azure.vhd | Out-String | ConvertFrom-Json).'virtual-size' | Should -Be 21MB
    }

    It 'HyperV makes a dynamic VHDX that Hyper-V takes' {
        $info = Convert-DiskImage disk.raw hyperv.vhdx -Profile hyperv -Force
        $info.Format | Should -Be 'vhdx'
        $info.VirtualSize | Should -Be (20MB + 512)
        Test-DiskImage hyperv.vhdx -Profile HyperV -Quiet | Should -BeTrue
        Invoke-Qemu qemu-img compare -q disk.raw hyperv.vhdx
    }

    It 'names images in a folder by its format' {
        $null = New-Item out -ItemType Directory
        (Convert-DiskImage disk.raw out -Profile HyperV).Path | Should -Be (Join-Path $folder 'out' 'disk.vhdx')
    }

    It 'takes further options and refuses those that contradict it' {
        $info = Convert-DiskImage disk.raw other.vhdx -Profile HyperV -BlockSize 1M -Force
        $info.ClusterSize | Should -Be 1MB
        { Convert-DiskImage disk.raw x.vhd -Profile Azure -Option subformat=dynamic -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage disk.raw x.vhd -Profile Azure -DestinationFormat qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage disk.raw x.vhd -Profile Moon -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage disk.raw x.vhd -Profile Hyper-V -ErrorAction Stop } | Should -Throw "*Did you mean 'HyperV'?*"
        Get-ChildItem x.* | Should -BeNullOrEmpty
    }

    It 'refuses an ending that contradicts it: <Name>, <Profile>' -ForEach @(
        @{ Name = 'x.qcow2'; Profile = 'Azure' }
        @{ Name = 'x.vhdx'; Profile = 'Azure' }
        @{ Name = 'x.vhd'; Profile = 'HyperV' }
        @{ Name = 'x'; Profile = 'HyperV' }
    ) {
        { Convert-DiskImage disk.raw $Name -Profile $Profile -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { New-DiskImage $Name 20MB -Profile $Profile -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        Get-ChildItem x* | Should -BeNullOrEmpty
    }

    It 'makes empty disks too' {
        $info = New-DiskImage new.vhd (20MB + 1) -Profile Azure -WarningVariable warnings
        $info.VirtualSize | Should -Be 21MB
        $info.FormatSpecific.DiskType | Should -Be 'Fixed'
        $warnings | Should -BeNullOrEmpty
        Test-DiskImage new.vhd -Profile Azure -Quiet | Should -BeTrue
        (New-DiskImage new.vhdx 1GB -Profile HyperV).Format | Should -Be 'vhdx'
        { New-DiskImage other.vhd 20MB -Profile Azure -Format qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { New-DiskImage other.vhd -Profile Azure -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        $line = 'New-DiskImage x.vhd -Profile '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'Azure', 'HyperV', 'ESXi', 'VMwareWorkstation', 'VMFS', 'VirtualBox'
    }

    It 'says that a disk is smaller than what Azure takes, or empty' {
        $null = New-DiskImage small.raw 3MB -Force
        $null = Convert-DiskImage small.raw small.vhd -Profile Azure -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'Azure would refuse it: .*20 MiB'
        $null = New-DiskImage small.vhd 3MB -Profile Azure -Force -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'Azure would refuse it: .*20 MiB'
        (Test-DiskImage small.vhd -Profile Azure).ProfileRefusals | Should -Match '20 MiB'
        $null = New-DiskImage none.raw 0
        $null = Convert-DiskImage none.raw none.vhdx -Profile HyperV -WhatIf -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'is empty'
        $null = Convert-DiskImage none.raw none.qcow2 -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'is empty'
    }

    It 'says why an image would be refused: <Path>, <Profile>' -ForEach @(
        @{ Path = 'disk.raw'; Profile = 'Azure'; Why = 'format is raw' }
        @{ Path = 'disk.raw'; Profile = 'HyperV'; Why = 'format is raw' }
        @{ Path = 'dynamic.vhd'; Profile = 'Azure'; Why = 'dynamic' }
        @{ Path = 'uneven.vhd'; Profile = 'Azure'; Why = 'whole MiB' }
        @{ Path = 'vhdx.img'; Profile = 'HyperV'; Why = 'does not end with \.vhdx' }
    ) {
        $null = New-DiskImage dynamic.vhd 20MB -Force
        $null = New-DiskImage uneven.vhd (20MB + 512) -Option subformat=fixed, force_size=on -Force
        $null = New-DiskImage vhdx.img 4MB -Format vhdx -Force
        $result = Test-DiskImage $Path -Profile $Profile
        $result.IsConsistent | Should -BeTrue -Because 'nothing is wrong with the image itself'
        $result.Findings | Should -BeNullOrEmpty
        $result.ProfileRefusals | Should -HaveCount 1
        $result.ProfileRefusals | Should -Match "^$Profile would refuse it: .*$Why"
        Test-DiskImage $Path -Profile $Profile -Quiet | Should -BeFalse
    }

    It 'completes' {
        $line = 'Convert-DiskImage disk.raw x.vhd -Profile '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'Azure', 'HyperV', 'ESXi', 'VMwareWorkstation', 'VMFS', 'VirtualBox'
    }
}
