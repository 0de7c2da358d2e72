BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'convert'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size (5MB + 512) -Seed 11
    $hash = (Get-FileHash disk.raw).Hash
}

AfterAll { Pop-Location }

Describe 'Convert-DiskImage' {
    BeforeEach { $null = New-Item out -ItemType Directory }

    AfterEach { Remove-Item out -Recurse -Force }

    It 'converts raw to qcow2 and back, and qemu-img agrees' {
        $info = Convert-DiskImage disk.raw out/disk.qcow2
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.Path | Should -Be (Join-Path $folder 'out/disk.qcow2')
        $info.Format | Should -Be 'qcow2'
        $info.VirtualSize | Should -Be (5MB + 512)
        $info.Statistics.BytesCopied + $info.Statistics.BytesZero | Should -Be (5MB + 512)
        Invoke-Qemu qemu-img check -q out/disk.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw out/disk.qcow2
        $null = Convert-DiskImage out/disk.qcow2 out/back.raw
        (Get-FileHash out/back.raw).Hash | Should -Be $hash
    }

    It 'reads what qemu-img makes with <_>' -ForEach 'compat=0.10', 'cluster_size=512', 'cluster_size=2M', 'refcount_bits=1', 'preallocation=metadata', '-c' {
        $how = $_ -eq '-c' ? @('-c') : @('-o', $_)
        Invoke-Qemu qemu-img convert -q @how -O qcow2 disk.raw out/qemu.qcow2
        $null = Convert-DiskImage out/qemu.qcow2 out/back.raw
        (Get-FileHash out/back.raw).Hash | Should -Be $hash
    }

    It 'makes what qemu-img reads with <_>' -ForEach 'compat=0.10', 'cluster_size=512', 'cluster_size=2M', 'refcount_bits=1', 'preallocation=metadata', 'lazy_refcounts=on' {
        $null = Convert-DiskImage disk.raw out/ours.qcow2 -Option $_ -Verify
        Invoke-Qemu qemu-img check -q out/ours.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw out/ours.qcow2
    }

    It 'compresses' {
        $plain = Convert-DiskImage disk.raw out/plain.qcow2
        $packed = Convert-DiskImage disk.raw out/packed.qcow2 -Compress -Verify
        $packed.ActualSize | Should -BeLessThan $plain.ActualSize
        Invoke-Qemu qemu-img check -q out/packed.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw out/packed.qcow2
    }

    It 'says that raw cannot be compressed, and leaves nothing behind' {
        { Convert-DiskImage disk.raw out/packed.raw -Compress -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        { Convert-DiskImage disk.raw out/split.qcow2 -Compress -Option data_file=split.data -ErrorAction Stop } | Should -Throw '*external file*compress*data_file*'
        Get-ChildItem out -Filter 'split*' | Should -BeNullOrEmpty
        Get-ChildItem out | Should -BeNullOrEmpty
    }

    It 'stores everything with -SparseSize 0 and finds the holes again' {
        $null = New-DiskImage out/holes.raw 4MB
        (Convert-DiskImage out/holes.raw out/full.raw -SparseSize 0).ActualSize | Should -BeGreaterOrEqual 4MB
        (Convert-DiskImage out/full.raw out/sparse.raw).ActualSize | Should -BeLessThan 64KB
    }

    It 'flattens a chain of backing images' {
        $null = Convert-DiskImage disk.raw out/base.qcow2
        $null = New-DiskImage out/middle.qcow2 6MB -BackingPath base.qcow2
        Write-DiskImage out/middle.qcow2 1MB ([byte[]](1..100))
        $null = New-DiskImage out/top.qcow2 -BackingPath middle.qcow2 -ClusterSize 4k
        Write-DiskImage out/top.qcow2 (1MB + 50) ([byte[]](1..100))
        $info = Convert-DiskImage out/top.qcow2 out/flat.qcow2
        $info.BackingFile | Should -BeNullOrEmpty
        Invoke-Qemu qemu-img compare -q out/top.qcow2 out/flat.qcow2
    }

    It 'converts a snapshot' {
        $null = Convert-DiskImage disk.raw out/kept.qcow2
        Invoke-Qemu qemu-img snapshot -c before out/kept.qcow2
        Write-DiskImage out/kept.qcow2 1MB ([byte[]](1..100))
        foreach ($snapshot in 'before', '1') {
            $null = Convert-DiskImage out/kept.qcow2 out/before.raw -Snapshot $snapshot -Force -Verify
            (Get-FileHash out/before.raw).Hash | Should -Be $hash
        }

        { Convert-DiskImage out/kept.qcow2 out/after.raw -Snapshot after -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Convert-DiskImage disk.raw out/after.raw -Snapshot after -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        Get-ChildItem out/after* | Should -BeNullOrEmpty
    }

    It 'converts all the files of a pipeline into a folder' {
        Copy-Item disk.raw out/a.raw
        Copy-Item disk.raw out/b.raw
        $null = New-Item out/made -ItemType Directory
        $made = Get-ChildItem out/*.raw | Convert-DiskImage -Destination out/made -DestinationFormat qcow2
        $made.Path | Split-Path -Leaf | Should -Be 'a.qcow2', 'b.qcow2'
    }

    It 'takes the destination from a script block and from a property' {
        (Get-Item disk.raw | Convert-DiskImage -Destination { "out/$($_.BaseName)-1.qcow2" }).Path | Should -Be (Join-Path $folder 'out/disk-1.qcow2')
        ([pscustomobject]@{ Path = 'disk.raw'; Destination = 'out/two.raw' } | Convert-DiskImage).Format | Should -Be 'raw'
    }

    It 'refuses several sources for something that is no folder before it writes: <Title>' -ForEach @(
        @{ Title = 'piped'; Convert = { 'disk.raw', 'out/a.raw' | Convert-DiskImage -Destination out/one.qcow2 -Force } }
        @{ Title = 'wildcards'; Convert = { Convert-DiskImage disk.raw, out/*.raw out/one.qcow2 } }
    ) {
        Copy-Item disk.raw out/a.raw
        $ErrorActionPreference = 'Continue' # in this test only: both errors are to come out
        & $Convert 2>&1 | ForEach-Object { Format-Error $_ } | Should -Be (@('DiskImageInvalidOption InvalidArgument') * 2)
        (Get-ChildItem out).Name | Should -Be 'a.raw'
    }

    It 'does not let a source of the same name in the folder replace the one before' {
        $null = Convert-DiskImage disk.raw out/disk.vhdx
        $made = 'disk.raw', 'out/disk.vhdx' | Convert-DiskImage -Destination out -DestinationFormat qcow2 -Force -ErrorAction SilentlyContinue -ErrorVariable problems
        @($made).Count | Should -Be 1
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
    }

    It 'goes on after a bad item' {
        Set-Content out/bad.qcow2 "QFI$([char]251)nonsense" -Encoding latin1
        $made = 'nowhere.raw', 'disk.raw' | Convert-DiskImage -Destination out -DestinationFormat qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems
        $made.Path | Split-Path -Leaf | Should -Be 'disk.qcow2'
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
    }

    It 'expands wildcards' {
        (Convert-DiskImage d*.raw out -DestinationFormat qcow2).Path | Split-Path -Leaf | Should -Be 'disk.qcow2'
    }

    It 'wants to know the format' {
        { Convert-DiskImage disk.raw out/disk -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*-DestinationFormat: raw, qcow2*'
    }

    It 'refuses the source as destination: <_>' -ForEach 'disk.raw', './disk.raw', 'out/../disk.raw', 'TestDrive:/convert/disk.raw' {
        { Convert-DiskImage disk.raw $_ -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*source itself*'
        (Get-FileHash disk.raw).Hash | Should -Be $hash
    }

    It 'refuses a link to the source, and a backing image of it' {
        Skip-OnWine 'symbolic links'
        $null = New-Item out/link.raw -ItemType SymbolicLink -Target (Join-Path $folder 'disk.raw')
        { Convert-DiskImage disk.raw out/link.raw -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        $null = New-DiskImage out/top.qcow2 -BackingPath ../disk.raw
        { Convert-DiskImage out/top.qcow2 disk.raw -Force -References LocalFiles -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-FileHash disk.raw).Hash | Should -Be $hash
    }

    It 'refuses a file that the source is made of by way of <Name>' -ForEach @(
        @{ Name = 'a linked folder'; Target = 'out/linked/base.qcow2' }
        @{ Name = 'a hard link'; Target = 'out/hard.qcow2' }
        @{ Name = './'; Target = 'out/./base.qcow2' }
        @{ Name = 'a link to its data file'; Target = 'out/link.data' }
    ) {
        Skip-OnWine 'symbolic links'
        $null = Convert-DiskImage disk.raw out/base.qcow2 -Option 'data_file=base.data,data_file_raw=on'
        $data = (Get-FileHash out/base.data).Hash
        $null = New-DiskImage out/top.qcow2 -BackingPath base.qcow2
        $null = New-Item out/linked -ItemType SymbolicLink -Target (Join-Path $folder 'out')
        $null = New-Item out/hard.qcow2 -ItemType HardLink -Target (Join-Path $folder 'out/base.qcow2')
        $null = New-Item out/link.data -ItemType SymbolicLink -Target (Join-Path $folder 'out/base.data')
        foreach ($more in @{}, @{ InPlace = $true }) {
            { Convert-DiskImage out/top.qcow2 $Target -Force @more -DestinationFormat qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        }

        (Get-FileHash out/base.data).Hash | Should -Be $data
        (Compare-DiskImage disk.raw out/top.qcow2).Identical | Should -BeTrue # QEMU looks for a data file in its current folder
    }

    It 'keeps the mode, a symbolic link and what is private' {
        Skip-OnWindows 'file modes'
        $null = New-DiskImage out/real.qcow2 1MB
        [IO.File]::SetUnixFileMode("$folder/out/real.qcow2", 'UserRead, UserWrite')
        $null = New-Item out/link.qcow2 -ItemType SymbolicLink -Target real.qcow2
        (Convert-DiskImage disk.raw out/link.qcow2 -Force -Durable -Verify).Path | Should -Be (Join-Path $folder 'out/link.qcow2')
        (Get-Item out/link.qcow2).LinkTarget | Should -Be 'real.qcow2'
        [int][IO.File]::GetUnixFileMode("$folder/out/real.qcow2") | Should -Be 0x180 # rw-------
        Invoke-Qemu qemu-img compare -q disk.raw out/real.qcow2
    }

    It 'refuses <What> before the conversion' -ForEach @(
        @{ What = 'a folder'; Target = 'out/sub.qcow2'; Id = 'DiskImageInvalidOption' }
        @{ What = 'a read-only file'; Target = 'out/protected.qcow2'; Id = 'DiskImageAccessDenied' }
    ) {
        $null = New-Item out/sub.qcow2/full -ItemType Directory -Force
        Set-Content out/protected.qcow2 'something'
        Set-ItemProperty out/protected.qcow2 IsReadOnly $true
        try {
            { New-DiskImage $Target 1MB -Force -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId "$Id,*"
            { Copy-DiskImage disk.raw $Target -Force -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId "$Id,*"
            if ($What -ne 'a folder') {
                { Convert-DiskImage disk.raw $Target -Force -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId "$Id,*"
                Get-Content out/protected.qcow2 | Should -Be 'something'
            }
        } finally {
            Set-ItemProperty out/protected.qcow2 IsReadOnly $false
        }
    }

    It 'refuses an existing destination, and replaces it with -Force' {
        Set-Content out/there.qcow2 'something'
        { Convert-DiskImage disk.raw out/there.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        Get-Content out/there.qcow2 | Should -Be 'something'
        (Convert-DiskImage disk.raw out/there.qcow2 -Force -Durable).Format | Should -Be 'qcow2'
    }

    It 'changes nothing with -WhatIf' {
        Convert-DiskImage disk.raw out/disk.qcow2 -WhatIf | Should -BeNullOrEmpty
        Get-ChildItem out | Should -BeNullOrEmpty
    }

    It 'keeps the old destination and leaves nothing behind if the source fails in the middle' {
        $null = Convert-DiskImage disk.raw out/broken.qcow2 -Compress
        $bytes = [IO.File]::ReadAllBytes((Join-Path $folder 'out/broken.qcow2'))
        $map = Get-DiskImageMap out/broken.qcow2 | Where-Object Compressed | Select-Object -Last 1
        $map | Should -Not -BeNullOrEmpty
        [Array]::Fill[byte]($bytes, 255, 5 * 64KB, $bytes.Length - 5 * 64KB)
        [IO.File]::WriteAllBytes((Join-Path $folder 'out/broken.qcow2'), $bytes)
        Set-Content out/there.raw 'something'
        { Convert-DiskImage out/broken.qcow2 out/there.raw -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageCorrupt,*'
        Get-Content out/there.raw | Should -Be 'something'
        Get-ChildItem out/*.incomplete | Should -BeNullOrEmpty
    }

    It 'says with -Verbose what it did' {
        $said = (Convert-DiskImage disk.raw out/disk.qcow2 -Verify -Verbose 4>&1 | Where-Object { $_ -is [System.Management.Automation.VerboseRecord] }) -join "`n"
        $said | Should -Match 'recognised as raw'
        $said | Should -Match 'copied, .* zeroes'
        $said | Should -Match 'reads the same as'
    }

    It 'completes <Line>' -ForEach @(
        @{ Line = 'Convert-DiskImage a.raw b.qcow2 -Laz'; Expected = '-LazyRefcounts' }
        @{ Line = 'Convert-DiskImage a.raw b -DestinationFormat v'; Expected = 'vdi', 'vhdx', 'vmdk', 'vpc' }
        @{ Line = 'Convert-DiskImage a.raw b.raw -Option '; Expected = 'preallocation=', 'nocow=' }
        @{ Line = 'Convert-DiskImage a.raw b.qcow2 -Compat '; Expected = '0.10', '1.1' }
    ) {
        Get-Completion $Line | Should -Be $Expected
    }

    It 'goes round the host''s cache, both ways (<Mode>, <Format>)' -ForEach @(
        @{ Mode = 'None'; Format = 'qcow2' }, @{ Mode = 'DirectSync'; Format = 'raw' }, @{ Mode = 'Writethrough'; Format = 'vhdx' }
    ) {
        $info = Convert-DiskImage disk.raw "out/direct.$Format" -CacheMode $Mode -SourceCacheMode None -Verify -Force
        $info.Format | Should -Be $Format
        (Compare-DiskImage disk.raw "out/direct.$Format" -CacheMode $Mode).Identical | Should -BeTrue
        Remove-Item "out/direct.$Format"
    }

    It 'refuses with -Reflink Always what cannot be shared, and leaves nothing' {
        { Convert-DiskImage disk.raw out/all.qcow2 -Reflink Always -Option @{ cluster_size = 512 } -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageUnsupported,*' -ExpectedMessage '*bytes of data could share the storage*'
        'out/all.qcow2' | Should -Not -Exist
        (Convert-DiskImage disk.raw out/none.qcow2 -Reflink Never).Statistics.BytesShared | Should -Be 0
        Remove-Item out/none.qcow2
    }

    It 'has the host move what is to be stored whole' {
        Skip-OnWine 'copy_file_range'
        $info = Convert-DiskImage disk.raw out/whole.raw -SparseSize 0
        $info.Statistics.BytesCopied | Should -Be (5MB + 512)
        $info.Statistics.BytesMoved + $info.Statistics.BytesShared | Should -BeGreaterThan 4MB # all but the holes
        (Get-FileHash out/whole.raw).Hash | Should -Be (Get-FileHash disk.raw).Hash
        Remove-Item out/whole.raw
    }

    It 'takes the cache mode of a node from its description' {
        $null = Convert-DiskImage disk.raw out/described.raw -ImageOption 'cache=none,detect-zeroes=on' -Verify
        (Get-FileHash out/described.raw).Hash | Should -Be (Get-FileHash disk.raw).Hash
        Remove-Item out/described.raw
        { Convert-DiskImage disk.raw out/never.raw -ImageOption cache=quick -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*writeback, none*'
    }
}

Describe 'Convert-DiskImage -BackingPath' {
    BeforeAll {
        $null = New-Item chain -ItemType Directory
        $null = Convert-DiskImage disk.raw chain/base.qcow2
        $null = New-DiskImage chain/top.qcow2 6MB -BackingPath base.qcow2
        Write-DiskImage chain/top.qcow2 1000 ([byte[]](1..200))
        Write-DiskImage chain/top.qcow2 2MB ([byte[]]::new(128KB))
        Write-DiskImage chain/top.qcow2 (6MB - 10) ([byte[]](1..10))
    }

    It 'leaves to the backing image what is there, clusters of <Size>' -ForEach @(
        @{ Size = '512'; Skipped = 4MB }
        @{ Size = '64k'; Skipped = 4MB }
        @{ Size = '2M'; Skipped = 0 } # each of the three clusters holds something of the source's own
    ) {
        $info = Convert-DiskImage chain/top.qcow2 chain/copy.qcow2 -BackingPath base.qcow2 -ClusterSize $Size -Verify -Force
        $info.BackingFile | Should -Be 'base.qcow2'
        $info.BackingFormat | Should -Be 'qcow2'
        $info.Statistics.BytesSkipped | Should -BeGreaterOrEqual $Skipped
        Invoke-Qemu qemu-img check -q chain/copy.qcow2
        Invoke-Qemu qemu-img compare -q chain/top.qcow2 chain/copy.qcow2
    }

    It 'does the same on a copy of the backing image' {
        $null = Convert-DiskImage disk.raw chain/same.raw
        (Convert-DiskImage chain/top.qcow2 chain/copy.qcow2 -BackingPath same.raw -Force).Statistics.BytesSkipped | Should -BeGreaterThan 4MB
        Invoke-Qemu qemu-img compare -q chain/top.qcow2 chain/copy.qcow2
    }

    It 'copies everything if the same file is read as another format' {
        $null = New-DiskImage chain/raw-view.qcow2 -BackingPath base.qcow2 -BackingFormat raw
        $null = Convert-DiskImage chain/raw-view.qcow2 chain/copy.qcow2 -BackingPath base.qcow2 -BackingFormat qcow2 -Force
        Invoke-Qemu qemu-img compare -q chain/raw-view.qcow2 chain/copy.qcow2
    }

    It 'copies everything if the backing image is another' {
        $null = New-TestDisk "$folder/chain/other.raw" -Size 6MB -Seed 99
        (Convert-DiskImage chain/top.qcow2 chain/copy.qcow2 -BackingPath other.raw -Force).Statistics.BytesSkipped | Should -Be 0
        Invoke-Qemu qemu-img compare -q chain/top.qcow2 chain/copy.qcow2
        (Convert-DiskImage disk.raw chain/copy.qcow2 -BackingPath other.raw -Force -Verify).Statistics.BytesSkipped | Should -Be 0
    }

    It 'cannot be the destination' {
        { Convert-DiskImage disk.raw chain/base.qcow2 -BackingPath base.qcow2 -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }
}

Describe 'Convert-DiskImage -Bitmaps' {
    BeforeAll {
        # A bitmap that says of itself that it was not saved: its directory entry's flags begin with 'in use'.
        function Set-Broken([string] $Path, [string] $Name) {
            $bytes = [IO.File]::ReadAllBytes("$folder/$Path")
            $at = [Text.Encoding]::Latin1.GetString($bytes).LastIndexOf($Name, [StringComparison]::Ordinal) - 24
            $bytes[$at + 15] = $bytes[$at + 15] -bor 1
            [IO.File]::WriteAllBytes("$folder/$Path", $bytes)
        }
    }

    BeforeEach {
        $null = New-Item out -ItemType Directory
        $null = Convert-DiskImage disk.raw out/source.qcow2
        $null = New-DiskImageBitmap out/source.qcow2 -Name daily -Granularity 4k
        $null = New-DiskImageBitmap out/source.qcow2 -Name weekly -Disabled
        Write-DiskImage out/source.qcow2 123456 (, 171 * 5000)
    }

    AfterEach { Remove-Item out -Recurse -Force }

    It 'copies bitmaps as qemu-img does' {
        $info = Convert-DiskImage out/source.qcow2 out/copy.qcow2 -Bitmaps -Verify
        $info.Bitmaps.Name | Should -Be 'daily', 'weekly'
        $null = Invoke-Qemu qemu-img convert -O qcow2 --bitmaps out/source.qcow2 out/theirs.qcow2
        Get-ExpectedBitmap out/copy.qcow2 | Sort-Object | Should -Be (Get-ExpectedBitmap out/theirs.qcow2 | Sort-Object)
        $ranges = Get-DiskImageBitmap out/source.qcow2 daily -Extents | ForEach-Object { "$($_.Offset) $($_.Length)" }
        $ranges | Should -Not -BeNullOrEmpty
        foreach ($copy in 'out/copy.qcow2', 'out/theirs.qcow2') {
            Get-DiskImageBitmap $copy daily -Extents | ForEach-Object { "$($_.Offset) $($_.Length)" } | Should -Be $ranges
        }

        Invoke-Qemu qemu-img check -q out/copy.qcow2
        (Convert-DiskImage out/source.qcow2 out/without.qcow2).Bitmaps | Should -BeNullOrEmpty
    }

    It 'refuses a broken one by its name, or leaves it out with a warning' {
        Set-Broken out/source.qcow2 daily
        { Convert-DiskImage out/source.qcow2 out/copy.qcow2 -Bitmaps -ErrorAction Stop } | Should -Throw "*'daily'*" -ErrorId 'DiskImageCorrupt,*'
        'out/copy.qcow2' | Should -Not -Exist
        $info = Convert-DiskImage out/source.qcow2 out/copy.qcow2 -Bitmaps -SkipBrokenBitmaps -WarningVariable warnings -WarningAction SilentlyContinue
        $info.Bitmaps.Name | Should -Be 'weekly'
        "$warnings" | Should -Match "'daily'"
    }

    It 'refuses <what> and leaves nothing behind' -ForEach @(
        @{ What = 'a source without bitmaps'; Parameters = @{ Path = 'disk.raw'; Destination = 'out/copy.qcow2'; Bitmaps = $true }; Id = 'DiskImageUnsupported' }
        @{ What = 'a target without bitmaps'; Parameters = @{ Path = 'out/source.qcow2'; Destination = 'out/copy.raw'; Bitmaps = $true }; Id = 'DiskImageUnsupported' }
        @{ What = 'a target of version 2'; Parameters = @{ Path = 'out/source.qcow2'; Destination = 'out/copy.qcow2'; Bitmaps = $true; Option = 'compat=0.10' }; Id = 'DiskImageUnsupported' }
        @{ What = 'a snapshot'; Parameters = @{ Path = 'out/source.qcow2'; Destination = 'out/copy.qcow2'; Bitmaps = $true; Snapshot = 's' }; Id = 'DiskImageInvalidOption' }
        @{ What = '-SkipBrokenBitmaps alone'; Parameters = @{ Path = 'out/source.qcow2'; Destination = 'out/copy.qcow2'; SkipBrokenBitmaps = $true }; Id = 'DiskImageInvalidOption' }
    ) {
        $null = New-DiskImageSnapshot out/source.qcow2 s
        { Convert-DiskImage @Parameters -ErrorAction Stop } | Should -Throw -ErrorId "$Id,*"
        (Get-ChildItem out).Name | Should -Be 'source.qcow2'
    }
}

Describe 'A conversion that is interrupted' {
    BeforeAll {
        # Clusters of 512 bytes make the conversion slow enough to be met in the middle.
        $slow = Join-Path $folder 'slow.raw'
        New-NoiseFile $slow 384 5
        $slowHash = (Get-FileHash $slow).Hash
        $target = Join-Path $folder 'slow.qcow2'
    }

    AfterEach { Remove-Item "$target*" }

    AfterAll { Remove-Item $slow }

    It 'by Ctrl+C leaves nothing behind and the source as it was' {
        $stopped = Invoke-Interrupted Convert-DiskImage @{ Path = $slow; Destination = $target; ClusterSize = 512; Verify = $true } { Test-Begun $folder 2MB }
        $stopped.State | Should -Be 'Stopped'
        $stopped.Errors | Should -BeNullOrEmpty
        $target | Should -Not -Exist
        Get-Unfinished $folder | Should -BeNullOrEmpty
        Test-Released $slow | Should -BeTrue
        (Get-FileHash $slow).Hash | Should -Be $slowHash
    }

    It 'by Ctrl+C keeps the file it was to replace' {
        Set-Content $target 'something'
        $stopped = Invoke-Interrupted Convert-DiskImage @{ Path = $slow; Destination = $target; ClusterSize = 512; Verify = $true; Force = $true } { Test-Begun $folder 2MB }
        $stopped.State | Should -Be 'Stopped'
        Get-Content $target | Should -Be 'something'
        Get-Unfinished $folder | Should -BeNullOrEmpty
    }

    It 'by kill leaves a file that is never taken for good, and the next run clears it away' {
        $script = "Import-Module '$ModuleManifest'; Convert-DiskImage '$slow' '$target' -ClusterSize 512 -Verify"
        $start = [Diagnostics.ProcessStartInfo]::new([Environment]::ProcessPath)
        if ([IO.Path]::GetFileNameWithoutExtension($start.FileName) -eq 'dotnet') {
            $start.ArgumentList.Add("$PSHOME/pwsh.dll")
        }

        '-NoProfile', '-NonInteractive', '-Command', $script | ForEach-Object { $start.ArgumentList.Add($_) }
        $start.RedirectStandardOutput = $true
        $child = [Diagnostics.Process]::Start($start)
        while (-not $child.HasExited -and -not (Test-Begun $folder 2MB)) {
            Start-Sleep -Milliseconds 2
        }

        $child.Kill()
        $child.WaitForExit()
        $child.ExitCode | Should -Not -Be 0
        $target | Should -Not -Exist
        (Get-FileHash $slow).Hash | Should -Be $slowHash
        $left = Get-Unfinished $folder
        $result = Test-DiskImage $left
        $result.IsConsistent | Should -BeFalse
        $result.Findings.Kind | Should -Contain 'Incomplete'
        Test-DiskImage $left -Quiet | Should -BeFalse

        $null = Convert-DiskImage $slow $target
        Get-Unfinished $folder | Should -BeNullOrEmpty
        Test-DiskImage $target -Quiet | Should -BeTrue
    }
}
