BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'new-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'New-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'adds one that qemu-img checks' {
        $made = New-DiskImageBitmap disk.qcow2 fine -Granularity 4096
        $made | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $made.Granularity | Should -Be 4096
        $made.Flags | Should -Be 'auto'
        Invoke-Qemu qemu-img check -q disk.qcow2
        Get-ActualBitmap disk.qcow2 | Should -Be (Get-ExpectedBitmap disk.qcow2)
    }

    It 'refuses a name that is taken and a granularity that is not possible' {
        { New-DiskImageBitmap disk.qcow2 day -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        { New-DiskImageBitmap disk.qcow2 odd -Granularity 3000 -ErrorAction Stop } | Should -Throw '*3,000*' -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        New-DiskImageBitmap disk.qcow2 x -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | New-DiskImageBitmap -Name x -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2).Name | Should -Contain 'x'
    }
}
