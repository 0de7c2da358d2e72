BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'compare'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/a.raw" -Size 4MB -Seed 21
    $null = Convert-DiskImage a.raw a.qcow2
    $null = Convert-DiskImage a.raw b.qcow2 -Compress
    $bytes = Read-DiskImage b.qcow2 1MB 3
    Write-DiskImage b.qcow2 1MB ([byte[]]($bytes | ForEach-Object { $_ -bxor 255 }))
    Write-DiskImage b.qcow2 (4MB - 1) ((Read-DiskImage b.qcow2 (4MB - 1) 1) | ForEach-Object { $_ -bxor 1 })
    Copy-Item a.raw longer.raw
    $stream = [IO.File]::OpenWrite("$folder/longer.raw")
    $stream.SetLength(5MB)
    $stream.Dispose()
}

AfterAll { Pop-Location }

Describe 'Compare-DiskImage' {
    It 'blames the path that is missing' {
        foreach ($case in @(@('a.raw', 'nowhere.raw'), @('nowhere.raw', 'a.raw'))) {
            $problem = { Compare-DiskImage @case -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -PassThru
            $problem.TargetObject | Should -Be (Join-Path $folder 'nowhere.raw')
        }
    }

    It 'finds the same disk in two formats the same' {
        $result = Compare-DiskImage a.raw a.qcow2
        $result | Should -BeOfType DiskImage.PowerShell.DiskImageComparison
        $result.Identical | Should -BeTrue
        $result.FirstDifference | Should -BeNullOrEmpty
        $result.SizesDiffer | Should -BeFalse
        $result.Path | Should -Be (Join-Path $folder 'a.raw')
        $result.DifferencePath | Should -Be (Join-Path $folder 'a.qcow2')
    }

    It 'finds the first difference that qemu-img finds' {
        $result = Compare-DiskImage a.qcow2 b.qcow2
        $result.Identical | Should -BeFalse
        $result.FirstDifference | Should -Be 1MB
        Skip-Without qemu-img
        { Invoke-Qemu qemu-img compare a.qcow2 b.qcow2 } | Should -Throw '*mismatch*1048576*'
    }

    It 'lists every difference with -All' {
        $ranges = Compare-DiskImage a.qcow2 b.qcow2 -All
        $ranges | Should -BeOfType DiskImage.PowerShell.DiskImageDifference
        $ranges.Offset | Should -Be 1MB, (4MB - 1)
        $ranges | ForEach-Object Length | Should -Be 3, 1
        Compare-DiskImage a.raw a.qcow2 -All | Should -BeNullOrEmpty
    }

    It 'minds the size only with -Strict' {
        $result = Compare-DiskImage a.raw longer.raw
        $result.Identical | Should -BeTrue
        $result.SizesDiffer | Should -BeTrue
        (Compare-DiskImage a.raw longer.raw -Strict).Identical | Should -BeFalse
        Write-DiskImage longer.raw (5MB - 1) 1
        (Compare-DiskImage a.raw longer.raw).FirstDifference | Should -Be (5MB - 1)
    }

    It 'compares each item of a pipeline' {
        (Get-ChildItem *.qcow2 | Compare-DiskImage -DifferencePath a.raw).Identical | Should -Be $true, $false
        (Compare-DiskImage '[ab].qcow2' a.raw).Identical | Should -Be $true, $false
    }

    It 'takes the formats' {
        (Compare-DiskImage a.qcow2 a.qcow2 -Format raw -DifferenceFormat raw).Identical | Should -BeTrue
        (Compare-DiskImage a.qcow2 a.qcow2 -DifferenceFormat raw).Identical | Should -BeFalse
    }

    It 'goes on after a bad item' {
        $results = 'nowhere.raw', 'a.raw' | Compare-DiskImage -DifferencePath a.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems
        @($results).Count | Should -Be 1
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        { Compare-DiskImage a.raw nowhere.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
    }

    It 'changes nothing and lets go of both images' {
        $before = (Get-FileHash a.raw).Hash
        $null = Compare-DiskImage a.raw b.qcow2
        (Get-FileHash a.raw).Hash | Should -Be $before
        Test-Released "$folder/a.raw" | Should -BeTrue
        Test-Released "$folder/b.qcow2" | Should -BeTrue
    }

    It 'lets go of both images at Ctrl+C' {
        $null = New-DiskImage huge.raw 8TB
        $null = New-DiskImage huge.qcow2 8TB
        $stopped = Invoke-Interrupted Compare-DiskImage @{ Path = "$folder/huge.raw"; DifferencePath = "$folder/huge.qcow2"; All = $true }
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released "$folder/huge.raw" | Should -BeTrue
        Test-Released "$folder/huge.qcow2" | Should -BeTrue
    }

    It 'completes formats' {
        Get-Completion 'Compare-DiskImage a b -DifferenceFormat qcow2' | Should -Be 'qcow2'
    }

    It 'lists blocks with -BlockSize' {
        $ranges = Compare-DiskImage a.qcow2 b.qcow2 -All -BlockSize 64k
        $ranges.Offset | Should -Be 1MB, (4MB - 64KB)
        $ranges | ForEach-Object Length | Should -Be 64KB, 64KB
        { Compare-DiskImage a.qcow2 b.qcow2 -BlockSize 64k -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'says in what the disks differ' {
        (Compare-DiskImage a.qcow2 b.qcow2).Difference | Should -BeExactly 'Content'
        (Compare-DiskImage a.raw a.qcow2).Difference | Should -BeNullOrEmpty
        $null = New-DiskImage stored.qcow2 1MB
        $null = New-DiskImage empty.qcow2 1MB
        $null = New-DiskImage larger.qcow2 2MB
        Write-DiskImage stored.qcow2 128KB ([byte[]]::new(65536))
        (Compare-DiskImage stored.qcow2 empty.qcow2).Difference | Should -BeNullOrEmpty
        $result = Compare-DiskImage stored.qcow2 empty.qcow2 -Strict
        $result.Difference | Should -BeExactly 'Allocation'
        $result.FirstDifference | Should -Be 128KB
        (Compare-DiskImage empty.qcow2 larger.qcow2 -Strict).Difference | Should -BeExactly 'Size'
        Remove-Item stored.qcow2, empty.qcow2, larger.qcow2
    }

    It 'compares snapshots' {
        $null = Convert-DiskImage a.raw snapshots.qcow2
        $null = New-DiskImageSnapshot snapshots.qcow2 one
        Write-DiskImage snapshots.qcow2 5 ((Read-DiskImage a.raw 5 1)[0] -bxor 1)
        $null = New-DiskImageSnapshot snapshots.qcow2 two
        (Compare-DiskImage snapshots.qcow2 a.raw).FirstDifference | Should -Be 5
        $result = Compare-DiskImage snapshots.qcow2 a.raw -Snapshot one
        $result.Identical | Should -BeTrue
        $result.Snapshot | Should -Be 'one'
        (Compare-DiskImage a.raw snapshots.qcow2 -DifferenceSnapshot one).Identical | Should -BeTrue
        (Compare-DiskImage snapshots.qcow2 snapshots.qcow2 -Snapshot one -DifferenceSnapshot two -All).Offset | Should -Be 5
        $problem = { Compare-DiskImage a.qcow2 snapshots.qcow2 -DifferenceSnapshot nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -PassThru
        $problem.TargetObject | Should -Be (Join-Path $folder 'snapshots.qcow2')
        { Compare-DiskImage a.raw snapshots.qcow2 -Snapshot one -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        Get-Completion 'Compare-DiskImage a.raw snapshots.qcow2 -DifferenceSnapshot t' | Should -Be 'two'
        Test-Released "$folder/snapshots.qcow2" | Should -BeTrue
        Remove-Item snapshots.qcow2
    }
}
