BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'enable-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Enable-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'has writes recorded from then on' {
        Enable-DiskImageBitmap disk.qcow2 -Name week
        Get-ActualBitmap disk.qcow2 | Should -Be 'day 65536 auto', 'week 131072 auto'
        Get-ActualBitmap disk.qcow2 | Should -Be (Get-ExpectedBitmap disk.qcow2)
        Write-DiskImage disk.qcow2 0 1, 2, 3
        (Get-DiskImageBitmap disk.qcow2 week).DirtyBytes | Should -Be 128KB
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'names a bitmap that is not there' {
        { Enable-DiskImageBitmap disk.qcow2 nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Enable-DiskImageBitmap disk.qcow2 * -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Enable-DiskImageBitmap -Name week -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2 week).Flags | Should -Be 'auto'
    }

    It 'completes names' {
        $line = 'Enable-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
