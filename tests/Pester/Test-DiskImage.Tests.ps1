BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'test'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 31
    $null = Convert-DiskImage disk.raw good.qcow2

    # Changes bytes of a copy of the good image.
    function New-Damaged([string] $Name, [long] $Offset, [byte[]] $Bytes) {
        Copy-Item good.qcow2 $Name
        $file = [IO.File]::OpenWrite("$folder/$Name")
        $null = $file.Seek($Offset, 'Begin')
        $file.Write($Bytes)
        $file.Dispose()
    }

    # Where a header field points to.
    function Get-HeaderOffset([int] $At) {
        $bytes = [IO.File]::ReadAllBytes("$folder/good.qcow2")[$At..($At + 7)]
        [Array]::Reverse($bytes)
        [BitConverter]::ToInt64($bytes, 0)
    }

    # The first refcount block's last entry counts a cluster far past the end of the file, or the entry of the L1 table's cluster.
    $refcountTable = Get-HeaderOffset 48
    $raw = [IO.File]::ReadAllBytes("$folder/good.qcow2")
    $block = [byte[]]$raw[$refcountTable..($refcountTable + 7)]
    [Array]::Reverse($block)
    $refcountBlock = [BitConverter]::ToInt64($block, 0)
    $l1Cluster = (Get-HeaderOffset 40) / 64KB
    New-Damaged leak.qcow2 ($refcountBlock + 2 * 5) 0, 2
    New-Damaged corrupt.qcow2 ($refcountBlock + 2 * $l1Cluster) 0, 0
    New-Damaged dirty.qcow2 79 1
    New-Damaged header.qcow2 20 0, 0, 0, 99
}

AfterAll { Pop-Location }

Describe 'Test-DiskImage' {
    It 'finds a good image good, with the figures of qemu-img' {
        $result = Test-DiskImage good.qcow2
        $result | Should -BeOfType DiskImage.PowerShell.DiskImageCheckResult
        $result.Path | Should -Be (Join-Path $folder 'good.qcow2')
        $result.Format | Should -Be 'qcow2'
        $result.IsConsistent | Should -BeTrue
        $result.Findings | Should -BeNullOrEmpty
        $qemu = Invoke-Qemu qemu-img check --output=json good.qcow2 | Out-String | ConvertFrom-Json
        $result.TotalClusters | Should -Be $qemu.'total-clusters'
        $result.AllocatedClusters | Should -Be $qemu.'allocated-clusters'
        $result.ImageEndOffset | Should -Be $qemu.'image-end-offset'
        $result.CheckErrors | Should -Be $qemu.'check-errors'
    }

    It 'reports a leak' {
        $result = Test-DiskImage leak.qcow2
        $result.IsConsistent | Should -BeFalse
        $result.Leaks | Should -Be 1
        $result.Corruptions | Should -Be 0
        $result.Findings.Severity | Should -Be 'Leak'
        $result.Findings[0].HostOffset | Should -Be (5 * 64KB)
    }

    It 'reports a corruption' {
        $result = Test-DiskImage corrupt.qcow2
        $result.IsConsistent | Should -BeFalse
        $result.Corruptions | Should -BeGreaterThan 0
    }

    It 'reports an image that was not closed' {
        $result = Test-DiskImage dirty.qcow2
        $result.IsConsistent | Should -BeFalse
        @($result.Findings.Kind) -eq 'Dirty' | Should -Be 'Dirty'
    }

    It 'reports an image that cannot be opened' {
        $result = Test-DiskImage header.qcow2
        $result.IsConsistent | Should -BeFalse
        $result.Findings.Kind | Should -Be 'Unreadable'
    }

    It 'reports a file that is not finished, whatever is in it' {
        Copy-Item good.qcow2 good.qcow2.incomplete
        Set-Content empty.incomplete '' -NoNewline
        Copy-Item disk.raw disk.raw.incomplete
        foreach ($result in Test-DiskImage *.incomplete) {
            $result.IsConsistent | Should -BeFalse
            $result.Findings.Kind | Should -Contain 'Incomplete'
        }

        @(Test-DiskImage *.incomplete -Quiet) | Should -Be $false, $false, $false
    }

    It 'returns true or false with -Quiet' {
        Test-DiskImage good.qcow2 -Quiet | Should -BeTrue
        Test-DiskImage good.qcow2 -Quiet | Should -BeOfType bool
        Test-DiskImage leak.qcow2, corrupt.qcow2, dirty.qcow2, header.qcow2 -Quiet | Should -Be $false, $false, $false, $false
    }

    It 'cannot check raw images' {
        { Test-DiskImage disk.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        Test-DiskImage disk.raw -Quiet -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }

    It 'needs no backing image' {
        $null = New-DiskImage gone.raw 1MB
        $null = New-DiskImage top.qcow2 -BackingPath gone.raw
        Remove-Item gone.raw
        Test-DiskImage top.qcow2 -Quiet | Should -BeTrue
    }

    It 'goes on after a bad item' {
        $results = Get-Item good.qcow2, leak.qcow2 | ForEach-Object { 'nowhere.qcow2'; $_ } | Test-DiskImage -ErrorAction SilentlyContinue -ErrorVariable problems
        $results.IsConsistent | Should -Be $true, $false
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound', 'DiskImageNotFound ObjectNotFound'
    }

    It 'changes nothing' {
        foreach ($name in 'leak.qcow2', 'corrupt.qcow2', 'dirty.qcow2') {
            $before = (Get-FileHash $name).Hash
            $null = Test-DiskImage $name
            (Get-FileHash $name).Hash | Should -Be $before
        }
    }

    It 'lets go of the image at Ctrl+C' {
        $stopped = Invoke-Interrupted Test-DiskImage @{ Path = "$folder/good.qcow2" }
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released "$folder/good.qcow2" | Should -BeTrue
    }

    It 'shows findings in words within 80 columns' {
        $text = Test-DiskImage leak.qcow2 | Out-String -Width 80
        $text | Should -Match 'Leak: '
        (Test-DiskImage leak.qcow2).Findings | Out-String -Width 80 | Should -Match 'Severity\s+Kind\s+HostOffset\s+Message'
    }

    It 'finds that the parent of a <Format> is <Title>' -ForEach @(
        foreach ($format in 'vhd', 'vhdx') {
            @{ Format = $format; Title = 'another disk'; Severity = 'Corruption'; Change = { $null = New-DiskImage "base.$format" 4MB -Force } }
            @{ Format = $format; Title = 'not there'; Severity = 'Warning'; Change = { Remove-Item "base.$format" } }
        }
    ) {
        $null = New-DiskImage "base.$Format" 4MB -Force
        $null = New-DiskImage "child.$Format" -BackingPath "base.$Format" -Force
        (Test-DiskImage "child.$Format").Findings | Should -BeNullOrEmpty
        & $Change
        $result = Test-DiskImage "child.$Format"
        $result.Findings.Kind | Should -Be 'Parent'
        $result.Findings.Severity | Should -Be $Severity
        $result.IsConsistent | Should -Be ($Severity -eq 'Warning')
    }
}
