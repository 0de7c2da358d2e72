BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'get-bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageBitmap' {
    BeforeEach { New-TestBitmapDisk $folder }

    It 'lists what qemu-img lists' {
        $null = Invoke-Qemu qemu-img bitmap --add -g 4k disk.qcow2 theirs
        $bitmaps = Get-DiskImageBitmap disk.qcow2
        $bitmaps | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $bitmaps.Name | Should -Be 'day', 'week', 'theirs'
        Get-ActualBitmap disk.qcow2 | Should -Be (Get-ExpectedBitmap disk.qcow2)
        $bitmaps.DirtyBytes | Should -Be 64KB, 0, 0
        $bitmaps[0].Path | Should -Be (Join-Path $folder "disk.qcow2")
        (Get-DiskImageBitmap disk.qcow2 w*).Name | Should -Be 'week'
        $bitmaps | Out-String -Width 80 | Should -Match 'Name\s+Granularity\s+Dirty\s+Flags\s+Image'
    }

    It 'lists the ranges that were written with -Extents' {
        Write-DiskImage disk.qcow2 700000 (, 172 * 1000)
        $ranges = Get-DiskImageBitmap disk.qcow2 -Extents
        $ranges | Should -BeOfType DiskImage.PowerShell.DiskImageDirtyRange
        $ranges | ForEach-Object { "$($_.Name) $($_.Offset) $($_.Length)" } | Should -Be 'day 196608 65536', 'day 655360 65536'
    }

    It 'names a bitmap that is not there' {
        { Get-DiskImageBitmap disk.qcow2 nope -ErrorAction Stop } | Should -Throw "*'nope'*" -ErrorId 'DiskImageNotFound,*'
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | Get-DiskImageBitmap -Name day -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
        @($problems).Count | Should -Be 2
    }

    It 'completes names' {
        $line = 'Get-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
