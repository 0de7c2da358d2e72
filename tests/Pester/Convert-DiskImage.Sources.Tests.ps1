# Convert-DiskImage where there are several sources, where the destination is there already, and where not all can be read.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'sources'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/one.raw" -Size (1MB + 200) -Seed 401
    $null = New-TestDisk "$folder/two.raw" -Size 2MB -Seed 402
    $null = Convert-DiskImage two.raw two.qcow2 -Compress
}

AfterAll { Pop-Location }

Describe 'Convert-DiskImage -Concatenate' {
    It 'joins sources of any format, as qemu-img does' {
        $made = Convert-DiskImage one.raw, two.qcow2 joined.qcow2 -Concatenate
        @($made).Count | Should -Be 1
        $made.VirtualSize | Should -Be (3MB + 512)
        Invoke-Qemu qemu-img convert -O raw one.raw two.qcow2 expected.raw
        Invoke-Qemu qemu-img compare -q expected.raw joined.qcow2
    }

    It 'takes what comes through the pipeline, in its order' {
        $made = Get-Item two.raw, one.raw | Convert-DiskImage -Destination piped.raw -Concatenate -Verify
        @($made).Count | Should -Be 1
        (Get-DiskImageHash piped.raw).Hash | Should -Not -Be (Get-DiskImageHash joined.qcow2).Hash
        (Compare-DiskImage two.raw piped.raw -All | Select-Object -First 1).Offset | Should -BeGreaterOrEqual 2MB
    }

    It 'makes nothing where a source is not there, whether it is named or a pattern' -ForEach 'nothing.raw', 'nothing*.raw' {
        Convert-DiskImage one.raw, $_ none.raw -Concatenate -ErrorAction SilentlyContinue -ErrorVariable problems | Should -BeNullOrEmpty
        $problems[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageNotFound,*'
        Test-Path none.raw | Should -BeFalse
    }

    It 'refuses a snapshot, bitmaps, and a destination that is one of the sources' {
        { Convert-DiskImage one.raw, two.qcow2 no.qcow2 -Concatenate -Snapshot 1 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage two.qcow2, one.raw no.qcow2 -Concatenate -Bitmaps -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage one.raw, two.raw two.raw -Concatenate -Force -ErrorAction Stop } | Should -Throw '*the source itself*'
        Test-Path no.qcow2 | Should -BeFalse
    }
}

Describe 'Convert-DiskImage -SkipCreate' {
    BeforeEach { $null = New-DiskImage there.qcow2 3MB -ClusterSize 4k -Force }

    It 'writes into what is there, which keeps its format and options' {
        Write-DiskImage there.qcow2 0 (, 7 * 10000)
        $made = Convert-DiskImage two.raw there.qcow2 -SkipCreate -Force -WarningVariable warnings -WarningAction SilentlyContinue
        $made.VirtualSize, $made.ClusterSize | Should -Be 3MB, 4096
        $made.Statistics.BytesCopied + $made.Statistics.BytesZero | Should -Be 2MB
        "$warnings" | Should -BeLike '*longer than what is written*'
        Invoke-Qemu qemu-img check -q there.qcow2
        Compare-DiskImage two.raw there.qcow2 -All | Should -BeNullOrEmpty
    }

    It 'writes no zeroes with -TargetIsZero, and -Verify finds that it was not so' {
        $null = New-DiskImage holes.raw 3MB
        $null = Convert-DiskImage holes.raw there.qcow2 -SkipCreate -TargetIsZero -Verify
        (Get-DiskImageMap there.qcow2).Present | Should -Not -Contain $true
        Write-DiskImage there.qcow2 5000 (1, 2, 3)
        { Convert-DiskImage holes.raw there.qcow2 -SkipCreate -TargetIsZero -Verify -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageCorrupt,*'
        $null = Convert-DiskImage holes.raw there.qcow2 -SkipCreate -Verify -Confirm:$false
        (Compare-DiskImage holes.raw there.qcow2).Identical | Should -BeTrue
    }

    It 'takes a description of what is there, beside its path or instead' {
        $null = Convert-DiskImage two.raw there.qcow2 -SkipCreate -DestinationImageOption @{ driver = 'qcow2'; 'lazy-refcounts' = $true; 'file.locking' = 'off' } -WarningAction Ignore
        Compare-DiskImage two.raw there.qcow2 -All | Should -BeNullOrEmpty
        $json = @{ driver = 'raw'; offset = 4096; file = @{ driver = 'file'; filename = "$folder/big.raw" } } | ConvertTo-Json -Compress
        $null = New-DiskImage big.raw 3MB
        $null = Convert-DiskImage two.raw "json:$json" -SkipCreate -WarningAction Ignore
        $null = Copy-DiskImage big.raw part.raw -BlockSize 4096 -Skip 1 -Count 512 -Force
        (Get-FileHash part.raw).Hash | Should -Be (Get-FileHash two.raw).Hash
    }

    It 'refuses what is not there, too small, the source, and what only a new image can be told' {
        { Convert-DiskImage two.raw nowhere.raw -SkipCreate -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Convert-DiskImage two.raw two.raw -SkipCreate -ErrorAction Stop } | Should -Throw '*the source itself*'
        $null = New-DiskImage small.raw 1MB -Force
        { Convert-DiskImage two.raw small.raw -SkipCreate -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
        foreach ($extra in @{ InPlace = $true }, @{ Option = 'size=1G' }, @{ BackingPath = 'one.raw' }, @{ Profile = 'Azure' }) {
            { Convert-DiskImage two.raw there.qcow2 -SkipCreate @extra -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -Because "$($extra.Keys)"
        }

        foreach ($extra in @{ TargetIsZero = $true }, @{ DestinationImageOption = 'driver=raw' }) {
            { Convert-DiskImage two.raw new.raw @extra -ErrorAction Stop } | Should -Throw '*needs -SkipCreate*'
        }
    }

    It 'asks before it writes over data, and -WhatIf names the file and writes nothing' {
        Write-DiskImage there.qcow2 0 (1, 2, 3)
        $before = (Get-FileHash there.qcow2).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Set-Location '$folder'; Convert-DiskImage two.raw there.qcow2 -SkipCreate -WhatIf"
        $fresh.Output | Should -BeLike '*What if:*there.qcow2*'
        # nobody can answer
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Set-Location '$folder'; Convert-DiskImage two.raw there.qcow2 -SkipCreate"
        $fresh.Output + $fresh.Error | Should -Match 'NonInteractive'
        (Get-FileHash there.qcow2).Hash | Should -Be $before
        Convert-DiskImage two.raw there.qcow2 -SkipCreate -Force -WarningAction Ignore | Should -Not -BeNullOrEmpty
        Compare-DiskImage two.raw there.qcow2 -All | Should -BeNullOrEmpty
    }

    It 'stores compressed data in any order with -OutOfOrder' {
        $null = Convert-DiskImage two.raw packed.qcow2 -Compress -OutOfOrder -ClusterSize 4k -Verify -Force
        Invoke-Qemu qemu-img check -q packed.qcow2
        Invoke-Qemu qemu-img compare -q two.raw packed.qcow2
    }

    It 'does not write into what only passes for raw, unless the format is said' {
        [IO.File]::WriteAllBytes("$folder/odd.dat", [byte[]]::new(2MB))
        { Convert-DiskImage two.raw odd.dat -SkipCreate -ErrorAction Stop } | Should -Throw '*-DestinationFormat raw*'
        $null = Convert-DiskImage two.raw odd.dat -SkipCreate -DestinationFormat raw -Confirm:$false
        (Get-FileHash odd.dat).Hash | Should -Be (Get-FileHash two.raw).Hash
    }
}

Describe 'Convert-DiskImage -Salvage' {
    BeforeAll {
        # without holes, which are not read
        $bytes = [byte[]]::new(2MB)
        [Random]::new(403).NextBytes($bytes)
        [IO.File]::WriteAllBytes("$folder/full.raw", $bytes)
        $i = 0
        $broken = 'driver=blkdebug' + -join (0, 100, 101, 102, 4000 | ForEach-Object { ",inject-error.$i.iotype=read,inject-error.$i.sector=$_"; $i++ })
    }

    It 'reads on, and tells each range as an object' {
        $made = Convert-DiskImage full.raw saved.raw -Salvage -ImageOption $broken -WarningVariable warnings -WarningAction SilentlyContinue
        $bad = $made.Statistics.BadRanges
        $bad.Offset | Should -Be 0, 51200, 2048000
        $bad.Length | Should -Be 512, 1536, 512
        $bad | ForEach-Object { $_.Reason | Should -Match 'full\.raw' }
        "$warnings" | Should -BeLike '*BadRanges*'
        $expected = [IO.File]::ReadAllBytes("$folder/full.raw")
        foreach ($range in $bad) {
            [Array]::Clear($expected, $range.Offset, $range.Length)
        }

        [IO.File]::WriteAllBytes("$folder/expected.raw", $expected)
        (Get-FileHash saved.raw).Hash | Should -Be (Get-FileHash expected.raw).Hash
    }

    It 'ends at the first error without it' {
        { Convert-DiskImage full.raw ended.raw -ImageOption $broken -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*,*'
        Test-Path ended.raw | Should -BeFalse
    }

    It 'has no bad ranges where all can be read, and refuses to share' {
        (Convert-DiskImage full.raw fine.raw -Salvage).Statistics.BadRanges.Count | Should -Be 0
        { Convert-DiskImage full.raw shared.raw -Salvage -Reflink Always -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }
}

Describe 'Convert-DiskImage -ThrottleLimit' {
    It 'makes the same disk with <_> workers' -ForEach 1, 16 {
        $null = Convert-DiskImage two.raw "workers$_.vhdx" -ThrottleLimit $_
        (Compare-DiskImage two.raw "workers$_.vhdx").Identical | Should -BeTrue
    }

    It 'takes 1 to 16' {
        { Convert-DiskImage two.raw none.raw -ThrottleLimit 17 } | Should -Throw -ErrorId 'ParameterArgumentValidationError,*'
    }
}
