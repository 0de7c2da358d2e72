BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'merge-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Merge-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'adds what another has recorded' {
        Merge-DiskImageBitmap disk.qcow2 week day | Should -BeNullOrEmpty
        (Get-DiskImageBitmap disk.qcow2 week -Extents | ForEach-Object { "$($_.Offset) $($_.Length)" }) | Should -Be '131072 131072'
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'takes bitmaps of another image' {
        $null = New-DiskImage other.qcow2 1MB -Force
        $null = New-DiskImageBitmap other.qcow2 monday
        Write-DiskImage other.qcow2 900000 1
        $merged = Merge-DiskImageBitmap disk.qcow2 day -SourceName mon* -SourcePath other.qcow2 -PassThru
        $merged | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $merged.DirtyBytes | Should -Be 128KB
    }

    It 'names a bitmap that is not there' {
        { Merge-DiskImageBitmap disk.qcow2 nope day -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
        { Merge-DiskImageBitmap disk.qcow2 day nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Merge-DiskImageBitmap disk.qcow2 week day -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Merge-DiskImageBitmap -Name week -SourceName day -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageBitmap disk.qcow2 week).DirtyBytes | Should -Be 128KB
    }

    It 'completes names' {
        $line = 'Merge-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
