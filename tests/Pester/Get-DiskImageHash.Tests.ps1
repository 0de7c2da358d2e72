BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'hash'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size (3MB + 1024) -Seed 61
    $null = Convert-DiskImage disk.raw disk.qcow2
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageHash' {
    It 'is the <_> of the raw file, whatever the format' -ForEach 'SHA1', 'SHA256', 'SHA384', 'SHA512', 'MD5' {
        $expected = Get-FileHash disk.raw -Algorithm $_
        foreach ($name in 'disk.raw', 'disk.qcow2') {
            $hash = Get-DiskImageHash $name -Algorithm $_
            $hash | Should -BeOfType DiskImage.PowerShell.DiskImageHash
            $hash.Hash | Should -BeExactly $expected.Hash
            $hash.Algorithm | Should -BeExactly $expected.Algorithm
            $hash.Path | Should -Be (Join-Path $folder $name)
        }
    }

    It 'takes the pipeline and wildcards, and goes on after a bad item' {
        (Get-Item disk.raw, disk.qcow2 | Get-DiskImageHash | Select-Object -ExpandProperty Hash -Unique).Count | Should -Be 1
        @(Get-DiskImageHash disk.*).Count | Should -Be 2
        $hashes = 'nowhere.raw', 'disk.raw' | Get-DiskImageHash -ErrorAction SilentlyContinue -ErrorVariable problems
        @($hashes).Count | Should -Be 1
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
    }

    It 'refuses another algorithm' {
        { Get-DiskImageHash disk.raw -Algorithm CRC32 } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
        Get-Completion 'Get-DiskImageHash a -Algorithm SHA5' | Should -Be 'SHA512'
    }

    It 'shows progress and stops at Ctrl+C' {
        $null = New-DiskImage huge.qcow2 16TB
        $stopped = Invoke-Interrupted Get-DiskImageHash @{ Path = "$folder/huge.qcow2" } { param($shell) $shell.Streams.Progress.Count -gt 0 }
        $stopped.State | Should -Be 'Stopped'
        $stopped.Errors | Should -BeNullOrEmpty
        $stopped.ProgressCount | Should -BeGreaterThan 0
        Test-Released "$folder/huge.qcow2" | Should -BeTrue
    }

    It 'is that of a snapshot with -Snapshot, or of each that is piped in' {
        $null = Convert-DiskImage disk.raw snapshots.qcow2
        $hashes = foreach ($content in 7, 8) {
            $null = New-DiskImageSnapshot snapshots.qcow2 "before $content"
            (Get-DiskImageHash snapshots.qcow2).Hash
            Write-DiskImage snapshots.qcow2 100 $content
        }
        $hashes[0] | Should -Be (Get-FileHash disk.raw).Hash
        $hash = Get-DiskImageHash snapshots.qcow2 -Snapshot 'before 7'
        $hash.Hash | Should -Be $hashes[0]
        $hash.Snapshot | Should -Be 'before 7'
        (Get-DiskImageHash snapshots.qcow2).Snapshot | Should -BeNullOrEmpty
        $piped = Get-DiskImageSnapshot snapshots.qcow2 | Get-DiskImageHash
        $piped.Hash | Should -Be $hashes
        $piped.Snapshot | Should -Be '1', '2'
        { Get-DiskImageHash snapshots.qcow2 -Snapshot nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Get-DiskImageHash disk.raw -Snapshot nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        Get-Completion 'Get-DiskImageHash snapshots.qcow2 -Snapshot ' | Should -Be "'before 7'", "'before 8'"
        Test-Released "$folder/snapshots.qcow2" | Should -BeTrue
        Remove-Item snapshots.qcow2
    }

    It 'shows which of several images it is at' {
        $null = New-DiskImage huge.qcow2 16TB -Force
        $stopped = Invoke-Interrupted Get-DiskImageHash @{ Path = "$folder/disk.raw", "$folder/huge.qcow2" } {
            param($shell)
            $script:item = @($shell.Streams.Progress).Where({ $_.StatusDescription -eq '2 of 2: huge.qcow2' }, 'First')
            $script:part = @($shell.Streams.Progress).Where({ $_.Activity -like '*huge.qcow2' }, 'First')
            $item -and $part
        }
        $stopped.State | Should -Be 'Stopped'
        $item.Activity | Should -Be 'Get-DiskImageHash'
        $item.PercentComplete | Should -Be 50
        $part.ParentActivityId | Should -Be $item.ActivityId
    }
}
