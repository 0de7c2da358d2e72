BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'clear-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Clear-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'forgets what was recorded' {
        Clear-DiskImageBitmap disk.qcow2 day | Should -BeNullOrEmpty
        (Get-DiskImageBitmap disk.qcow2 day).DirtyBytes | Should -Be 0
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'names a bitmap that is not there' {
        { Clear-DiskImageBitmap disk.qcow2 nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Clear-DiskImageBitmap disk.qcow2 * -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Clear-DiskImageBitmap -Name day -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2 day).DirtyBytes | Should -Be 0
    }

    It 'completes names' {
        $line = 'Clear-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
