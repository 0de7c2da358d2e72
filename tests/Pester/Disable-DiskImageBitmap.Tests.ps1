BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'disable-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Disable-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'has writes recorded no more' {
        Disable-DiskImageBitmap disk.qcow2 day
        Get-ActualBitmap disk.qcow2 | Should -Be 'day 65536 ', 'week 131072 '
        Get-ActualBitmap disk.qcow2 | Should -Be (Get-ExpectedBitmap disk.qcow2)
        Write-DiskImage disk.qcow2 0 1, 2, 3
        (Get-DiskImageBitmap disk.qcow2 day).DirtyBytes | Should -Be 64KB
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'takes bitmaps from the pipeline' {
        Get-DiskImageBitmap disk.qcow2 | Disable-DiskImageBitmap
        (Get-DiskImageBitmap disk.qcow2).Flags | Should -BeNullOrEmpty
    }

    It 'names a bitmap that is not there' {
        { Disable-DiskImageBitmap disk.qcow2 nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Disable-DiskImageBitmap disk.qcow2 * -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Disable-DiskImageBitmap -Name day -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2 day).Flags | Should -BeNullOrEmpty
    }

    It 'completes names' {
        $line = 'Disable-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
