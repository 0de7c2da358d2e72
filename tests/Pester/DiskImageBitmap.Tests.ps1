BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'bitmap'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder

    # The bitmaps as qemu-img tells them: 'name granularity flags'.
    function Get-Expected([string] $Path) {
        $info = Invoke-Qemu qemu-img info --output=json $Path | Out-String | ConvertFrom-Json
        $info.'format-specific'.data.bitmaps | ForEach-Object { "$($_.name) $($_.granularity) $($_.flags -join ',')" }
    }

    function Get-Actual([string] $Path) {
        Get-DiskImageBitmap $Path | ForEach-Object { "$($_.Name) $($_.Granularity) $($_.Flags -join ',')" }
    }
}

AfterAll { Pop-Location }

Describe 'The cmdlets for dirty bitmaps' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 181
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
        $null = New-DiskImageBitmap disk.qcow2 day
        $null = New-DiskImageBitmap disk.qcow2 -Name week -Granularity 128k -Disabled
        Write-DiskImage disk.qcow2 200000 (, 171 * 1000)
    }

    It 'Get-DiskImageBitmap lists what qemu-img lists' {
        $null = Invoke-Qemu qemu-img bitmap --add -g 4k disk.qcow2 theirs
        $bitmaps = Get-DiskImageBitmap disk.qcow2
        $bitmaps | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $bitmaps.Name | Should -Be 'day', 'week', 'theirs'
        Get-Actual disk.qcow2 | Should -Be (Get-Expected disk.qcow2)
        $bitmaps.DirtyBytes | Should -Be 64KB, 0, 0
        $bitmaps[0].Path | Should -Be "$folder/disk.qcow2"
        (Get-DiskImageBitmap disk.qcow2 w*).Name | Should -Be 'week'
        $bitmaps | Out-String -Width 80 | Should -Match 'Name\s+Granularity\s+Dirty\s+Flags\s+Image'
    }

    It 'Get-DiskImageBitmap -Extents lists the ranges that were written' {
        Write-DiskImage disk.qcow2 700000 (, 172 * 1000)
        $ranges = Get-DiskImageBitmap disk.qcow2 -Extents
        $ranges | Should -BeOfType DiskImage.PowerShell.DiskImageDirtyRange
        $ranges | ForEach-Object { "$($_.Name) $($_.Offset) $($_.Length)" } | Should -Be 'day 196608 65536', 'day 655360 65536'
    }

    It 'New-DiskImageBitmap adds one that qemu-img checks' {
        $made = New-DiskImageBitmap disk.qcow2 fine -Granularity 4096
        $made | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $made.Granularity | Should -Be 4096
        $made.Flags | Should -Be 'auto'
        Invoke-Qemu qemu-img check -q disk.qcow2
        Get-Actual disk.qcow2 | Should -Be (Get-Expected disk.qcow2)
        { New-DiskImageBitmap disk.qcow2 fine -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        { New-DiskImageBitmap disk.qcow2 odd -Granularity 3000 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*'
    }

    It 'Clear-DiskImageBitmap forgets what was recorded' {
        Clear-DiskImageBitmap disk.qcow2 day | Should -BeNullOrEmpty
        (Get-DiskImageBitmap disk.qcow2 day).DirtyBytes | Should -Be 0
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'Disable- and Enable-DiskImageBitmap decide whether writes are recorded' {
        Disable-DiskImageBitmap disk.qcow2 day
        Enable-DiskImageBitmap disk.qcow2 -Name week
        Get-Actual disk.qcow2 | Should -Be 'day 65536 ', 'week 131072 auto'
        Get-Actual disk.qcow2 | Should -Be (Get-Expected disk.qcow2)
        Write-DiskImage disk.qcow2 0 1, 2, 3
        (Get-DiskImageBitmap disk.qcow2).DirtyBytes | Should -Be 64KB, 128KB
        Get-DiskImageBitmap disk.qcow2 | Disable-DiskImageBitmap
        (Get-DiskImageBitmap disk.qcow2).Flags | Should -BeNullOrEmpty
    }

    It 'Merge-DiskImageBitmap adds what another has recorded' {
        Merge-DiskImageBitmap disk.qcow2 week day | Should -BeNullOrEmpty
        (Get-DiskImageBitmap disk.qcow2 week -Extents | ForEach-Object { "$($_.Offset) $($_.Length)" }) | Should -Be '131072 131072'
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'Merge-DiskImageBitmap takes bitmaps of another image' {
        $null = New-DiskImage other.qcow2 1MB -Force
        $null = New-DiskImageBitmap other.qcow2 monday
        Write-DiskImage other.qcow2 900000 1
        $merged = Merge-DiskImageBitmap disk.qcow2 day -SourceName mon* -SourcePath other.qcow2 -PassThru
        $merged | Should -BeOfType DiskImage.PowerShell.DiskImageBitmap
        $merged.DirtyBytes | Should -Be 128KB
        { Merge-DiskImageBitmap disk.qcow2 nope day -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Merge-DiskImageBitmap disk.qcow2 day nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
    }

    It 'Remove-DiskImageBitmap gives up what is named or piped in' {
        Remove-DiskImageBitmap disk.qcow2 d*
        (Get-DiskImageBitmap disk.qcow2).Name | Should -Be 'week'
        Get-DiskImageBitmap disk.qcow2 | Remove-DiskImageBitmap
        Get-DiskImageBitmap disk.qcow2 | Should -BeNullOrEmpty
        Invoke-Qemu qemu-img check -q disk.qcow2
        { Remove-DiskImageBitmap disk.qcow2 day -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
    }

    It 'change nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        New-DiskImageBitmap disk.qcow2 x -WhatIf
        Clear-DiskImageBitmap disk.qcow2 * -WhatIf
        Enable-DiskImageBitmap disk.qcow2 * -WhatIf
        Disable-DiskImageBitmap disk.qcow2 * -WhatIf
        Remove-DiskImageBitmap disk.qcow2 * -WhatIf
        Merge-DiskImageBitmap disk.qcow2 week day -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It '<_> goes on after a bad item' -ForEach 'Get', 'New', 'Clear', 'Enable', 'Disable', 'Remove' {
        $name = $_ -eq 'New' ? 'x' : 'day'
        $null = 'disk.raw', 'nowhere.qcow2', 'disk.qcow2' | & "$_-DiskImageBitmap" -Name $name -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
        $problems[0].ToString() | Should -Match "format 'raw'"
    }

    It 'complete names' {
        $line = 'Clear-DiskImageBitmap disk.qcow2 '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'day', 'week'
    }
}
