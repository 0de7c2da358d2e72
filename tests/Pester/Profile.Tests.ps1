BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'profile'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size (3MB + 512) -Seed 191
}

AfterAll { Pop-Location }

Describe '-Profile' {
    It 'Azure makes a fixed VHD of whole MiB that Azure takes' {
        $info = Convert-DiskImage disk.raw azure.vhd -Profile Azure -Verify -Force
        $info.Format | Should -Be 'vpc'
        $info.VirtualSize | Should -Be 4MB
        $info.FormatSpecific.DiskType | Should -Be 'Fixed'
        (Get-Item azure.vhd).Length | Should -Be (4MB + 512)
        Test-DiskImage azure.vhd -Profile Azure -Quiet | Should -BeTrue
        Invoke-Qemu qemu-img compare -q -f raw -F vpc disk.raw azure.vhd
        (Invoke-Qemu qemu-img info -f vpc --output=json azure.vhd | Out-String | ConvertFrom-Json).'virtual-size' | Should -Be 4MB
    }

    It 'HyperV makes a dynamic VHDX that Hyper-V takes' {
        $info = Convert-DiskImage disk.raw hyperv.vhdx -Profile hyperv -Force
        $info.Format | Should -Be 'vhdx'
        $info.VirtualSize | Should -Be (3MB + 512)
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
        Get-ChildItem x.* | Should -BeNullOrEmpty
    }

    It 'says why an image would be refused: <Path>, <Profile>' -ForEach @(
        @{ Path = 'disk.raw'; Profile = 'Azure'; Why = 'format is raw' }
        @{ Path = 'disk.raw'; Profile = 'HyperV'; Why = 'format is raw' }
        @{ Path = 'dynamic.vhd'; Profile = 'Azure'; Why = 'dynamic' }
        @{ Path = 'uneven.vhd'; Profile = 'Azure'; Why = 'whole MiB' }
        @{ Path = 'vhdx.img'; Profile = 'HyperV'; Why = 'does not end with \.vhdx' }
    ) {
        $null = New-DiskImage dynamic.vhd 4MB -Force
        $null = New-DiskImage uneven.vhd (1MB + 512) -Option subformat=fixed, force_size=on -Force
        $null = New-DiskImage vhdx.img 4MB -Format vhdx -Force
        $result = Test-DiskImage $Path -Profile $Profile
        $result.IsConsistent | Should -BeFalse
        ($result.Findings | Where-Object Kind -EQ 'Profile').Message -join "`n" | Should -Match $Why
        Test-DiskImage $Path -Profile $Profile -Quiet | Should -BeFalse
    }

    It 'completes' {
        $line = 'Convert-DiskImage disk.raw x.vhd -Profile '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'Azure', 'HyperV'
    }
}
