BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'performance'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 411
    $null = Convert-DiskImage disk.raw disk.qcow2
}

AfterAll { Pop-Location }

Describe 'Measure-DiskImagePerformance' {
    It 'sends the reads it is told to, and tells of them' {
        $result = Get-Item disk.raw, disk.qcow2 | Measure-DiskImagePerformance -Count 300 -Depth 3 -BufferSize 8KB -StepSize 16KB -Offset 4KB
        $result.Count | Should -Be 2
        $result[1] | Should -BeOfType DiskImage.PowerShell.DiskImagePerformance
        $result.Format | Should -Be 'raw', 'qcow2'
        foreach ($one in $result) {
            $one.Operation | Should -Be 'Read'
            $one.Count, $one.Depth, $one.BufferSize, $one.StepSize, $one.Flushes | Should -Be 300, 3, 8192, 16384, 0
            $one.RequestsPerSecond | Should -BeGreaterThan 0
            $one.BytesPerSecond | Should -Be ($one.RequestsPerSecond * 8192)
            $times = $one.Latency50, $one.Latency90, $one.Latency99, $one.LatencyMax
            $times | Should -Be ($times | Sort-Object)
        }
    }

    It 'writes where the requests are, and flushes between them' {
        Copy-Item disk.qcow2 written.qcow2
        $result = Measure-DiskImagePerformance written.qcow2 -Write -Count 32 -Depth 4 -BufferSize 4KB -Offset 64KB -Pattern 0xA5 -FlushInterval 8 -Confirm:$false
        $result.Operation, $result.Flushes | Should -Be 'Write', 4
        [byte[]] $bytes = Read-DiskImage written.qcow2 64KB 128KB
        $bytes | Sort-Object -Unique | Should -Be 0xA5
        $differences = Compare-DiskImage disk.qcow2 written.qcow2 -All -BlockSize 64KB
        ($differences | Measure-Object Offset -Minimum).Minimum | Should -BeGreaterOrEqual 64KB
        Invoke-Qemu qemu-img check -q written.qcow2
        (Measure-DiskImagePerformance written.qcow2 -Write -Count 32 -Depth 4 -FlushInterval 8 -NoDrain -Confirm:$false).Flushes | Should -Be 4
    }

    It 'leaves the image as it is with -TemporaryOverlay and -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        (Measure-DiskImagePerformance disk.qcow2 -Write -TemporaryOverlay -Count 50 -Pattern 9).Count | Should -Be 50
        Measure-DiskImagePerformance disk.qcow2 -Write -Count 50 -WhatIf | Should -BeNullOrEmpty
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'asks before it writes, whatever $ConfirmPreference says' {
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Measure-DiskImagePerformance '$folder/disk.qcow2' -Write -Count 5"
        $fresh.Output | Should -BeNullOrEmpty
        $fresh.Error | Should -Match 'interactive'
    }

    It 'refuses <Because>' -ForEach @(
        @{ Because = 'what is about writes'; With = @{ Pattern = 1 } }
        @{ Because = 'an overlay for reads'; With = @{ TemporaryOverlay = $true } }
        @{ Because = 'flushes more often than requests at once'; With = @{ Write = $true; FlushInterval = 8; Depth = 9 } }
        @{ Because = 'no drain where nothing is flushed'; With = @{ Write = $true; NoDrain = $true } }
        @{ Because = 'to write to what others write to'; With = @{ Write = $true; ForceShare = $true } }
    ) {
        { Measure-DiskImagePerformance disk.qcow2 @With -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'refuses requests that are larger than the disk or need too much memory, and goes on with the next image' {
        $result = Measure-DiskImagePerformance disk.raw -BufferSize 2MB -Count 1 -ErrorAction SilentlyContinue -ErrorVariable problems
        $result | Should -BeNullOrEmpty
        $problems[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageOutOfRange,*'
        { Measure-DiskImagePerformance disk.raw -BufferSize 1GB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
        @(Measure-DiskImagePerformance nothing.raw, disk.raw -Count 5 -ErrorAction SilentlyContinue).Count | Should -Be 1
    }

    It 'takes a cache mode' {
        (Measure-DiskImagePerformance disk.raw -Count 5 -CacheMode Writethrough).Count | Should -Be 5
    }

    It 'ends at Ctrl+C' {
        $run = Invoke-Interrupted Measure-DiskImagePerformance @{ Path = "$folder/disk.raw"; Count = [long]::MaxValue / 8192 } -When { param($shell) $shell.Streams.Progress.Count -gt 0 }
        $run.State | Should -Be 'Stopped'
        $run.Errors | Should -BeNullOrEmpty
        Remove-Item disk.raw
    }
}
