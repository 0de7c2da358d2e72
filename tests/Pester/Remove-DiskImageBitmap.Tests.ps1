BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'remove-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Remove-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'gives up what is named or piped in' {
        Remove-DiskImageBitmap disk.qcow2 d*
        (Get-DiskImageBitmap disk.qcow2).Name | Should -Be 'week'
        Get-DiskImageBitmap disk.qcow2 | Remove-DiskImageBitmap
        Get-DiskImageBitmap disk.qcow2 | Should -BeNullOrEmpty
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'names a bitmap that is not there' {
        { Remove-DiskImageBitmap disk.qcow2 nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Remove-DiskImageBitmap disk.qcow2 * -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Remove-DiskImageBitmap -Name day -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2).Name | Should -Be 'week'
    }

    It 'completes names' {
        $line = 'Remove-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
