BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'resize'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Resize-DiskImage' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 71
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
    }

    It 'takes <Text> and makes the disk <Size> bytes long' -ForEach @(
        @{ Text = '4194304'; Size = 4MB }
        @{ Text = '4M'; Size = 4MB }
        @{ Text = '+1M'; Size = 2MB }
        @{ Text = '+1MB'; Size = 2MB }
        @{ Text = '4194305'; Size = 4MB + 512 }
        @{ Text = '1M'; Size = 1MB }
    ) {
        Resize-DiskImage disk.qcow2 $Text | Should -BeNullOrEmpty
        (Get-DiskImageInfo disk.qcow2).VirtualSize | Should -Be $Size
        Invoke-Qemu qemu-img check -q disk.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw disk.qcow2
    }

    It 'takes what PowerShell reads as numbers' {
        (Resize-DiskImage disk.qcow2 -Size 3MB -PassThru).VirtualSize | Should -Be 3MB
        (Resize-DiskImage disk.qcow2 -Size +1MB -PassThru).VirtualSize | Should -Be 4MB
        (Resize-DiskImage disk.qcow2 -Size -1MB -Shrink -Confirm:$false -PassThru).VirtualSize | Should -Be 3MB
        $size = 5MB
        $info = Resize-DiskImage disk.raw -Size $size -PassThru
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.VirtualSize | Should -Be 5MB
        (Get-Item disk.raw).Length | Should -Be 5MB
    }

    It 'shrinks only with -Shrink: <_>' -ForEach 'disk.qcow2', 'disk.raw' {
        $before = (Get-FileHash $_).Hash
        { Resize-DiskImage $_ -512k -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-FileHash $_).Hash | Should -Be $before
        $start = Read-DiskImage $_ 0 512k
        Resize-DiskImage $_ -512k -Shrink -Confirm:$false
        (Get-DiskImageInfo $_).VirtualSize | Should -Be 512KB
        [Convert]::ToHexString((Read-DiskImage $_ 0 512k)) | Should -Be ([Convert]::ToHexString($start))
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'claims new space with -Preallocation' {
        $before = (Get-DiskImageInfo disk.raw).ActualSize
        (Resize-DiskImage disk.raw +4M -Preallocation Falloc -PassThru).ActualSize | Should -BeGreaterOrEqual ($before + 3MB)
    }

    It 'refuses <_>' -ForEach 'much', '1x', '+', '', '--1M' {
        { Resize-DiskImage disk.qcow2 $_ } | Should -Throw -ErrorId 'ParameterArgumentTransformationError,*'
    }

    It 'refuses to go below nothing' {
        { Resize-DiskImage disk.qcow2 -1G -Shrink -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Resize-DiskImage disk.qcow2 1G -WhatIf -PassThru | Should -BeNullOrEmpty
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'resizes each item of a pipeline and goes on after a bad one' {
        'disk.raw', 'nowhere.raw', (Get-Item disk.qcow2) | Resize-DiskImage -Size +1M -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageNotFound,*'
        (Get-DiskImageInfo disk*).VirtualSize | Should -Be 2MB, 2MB
    }

    It 'asks before it shrinks, and only then' {
        $before = (Get-FileHash disk.qcow2).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Resize-DiskImage '$folder/disk.qcow2' -512k -Shrink"
        $fresh.Error | Should -Match 'NonInteractive'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
        $fresh = Invoke-FreshPwsh @"
            Import-Module '$ModuleManifest'
            Resize-DiskImage '$folder/disk.qcow2' +1M -Shrink
            Resize-DiskImage '$folder/disk.qcow2' -1M -Shrink -WhatIf
            Resize-DiskImage '$folder/disk.qcow2' -512k -Shrink -Confirm:`$false
            `$ConfirmPreference = 'None'
            Resize-DiskImage '$folder/disk.qcow2' -512k -Shrink
"@
        $fresh.Error | Should -BeNullOrEmpty
        $fresh.Output | Should -Match '^What if: .*Shrink from 2 MiB'
        (Get-DiskImageInfo disk.qcow2).VirtualSize | Should -Be 1MB
    }

    It 'takes the name that Resize-VHD has for the size' {
        (Resize-DiskImage disk.qcow2 -SizeBytes 3MB -PassThru).VirtualSize | Should -Be 3MB
    }
}
