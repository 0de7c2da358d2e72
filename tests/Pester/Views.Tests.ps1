# Every view at two widths, against what a person has looked at: Data/views-80.txt and Data/views-160.txt. A view that was meant to
# change is written anew with $env:DISKIMAGE_WRITE_VIEWS = 1, and looked at again.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # An object of a type's name with its properties: views go by the name, so the test needs no images.
    function New-Object([string] $Type, [hashtable] $Properties) {
        [pscustomobject](@{ PSTypeName = "DiskImage.PowerShell.$Type" } + $Properties)
    }

    $long = '/var/lib/images/of a department/whose folders have long names/2026/server.qcow2'
    # What is listed in views is shown by its own text, so these are real.
    $snapshot = [DiskImage.PowerShell.DiskImageSnapshot]::new($long, '1', 'before update', 0, [datetime]'2026-11-21 22:13:11', [timespan]0, $null, 20GB)
    $bitmap = [DiskImage.PowerShell.DiskImageBitmap]::new($long, 'day', 65536, [DiskImage.PowerShell.ReadableList[string]]::new([string[]]'auto'), 131072)
    $finding = [DiskImage.PowerShell.DiskImageFinding]@{
        Kind = 'Leak'; Severity = 'Leak'; HostOffset = 1966080L; Message = 'The cluster at host offset 1,966,080 has refcount 2 and 1 references.'
    }
    $child = New-Object DiskImageChild @{ Role = 'file'; Path = $long; Length = 3604480L; AllocatedLength = 3473408L }
    $statistics = New-Object DiskImageCopyStatistics @{ BytesCopied = 4194304L; BytesShared = 1048576L; BytesMoved = 512L; BytesZero = 65536L; BytesSkipped = 0L; Elapsed = [timespan]::FromSeconds(1.5) }
    $option = New-Object DiskImageFormatOption @{
        Format = 'qcow2'; Name = 'cluster_size'; Parameter = 'ClusterSize'; Default = '64k'; Allowed = '512 to 2M, a power of two'; Description = 'Bytes per cluster'
    }
    $info = @{
        Path = $long; Format = 'qcow2'; VirtualSize = 20GB; ActualSize = 3473408L; ClusterSize = 65536L; BackingFile = '../base.qcow2'
        FullBackingFile = '/var/lib/images/base.qcow2'; BackingFormat = 'qcow2'; Encrypted = $false; Compressed = $false; DirtyFlag = $false
        Snapshots = @($snapshot); Bitmaps = @($bitmap); FormatSpecific = $null; Children = @($child); Statistics = $statistics
    }
    $check = @{
        Path = $long; Format = 'qcow2'; IsConsistent = $false; Corruptions = 0L; Leaks = 1L; CheckErrors = 0L; CorruptionsFixed = 0L; LeaksFixed = 0L
        TotalClusters = 1024L; AllocatedClusters = 50L; FragmentedClusters = 0L; CompressedClusters = 0L; ImageEndOffset = 3604480L
        Findings = @($finding); ProfileRefusals = @('HyperV would refuse it: the format is qcow2; Hyper-V takes VHDX and VHD.')
    }
    $views = @(
        New-Object DiskImageInfo $info
        New-Object DiskImageCheckResult $check
        $finding
        New-Object DiskImageMeasurement @{ Path = $long; Format = 'qcow2'; VirtualSize = 20GB; Required = 3604480L; FullyAllocated = 21478375424L; Bitmaps = 65536L }
        New-Object DiskImageHash @{ Algorithm = 'SHA256'; Path = $long; Snapshot = 'before update'; Hash = '20D7EDC540986160EC7D479838740B4E979EB6926017DC7999AAB450E1B65664' }
        New-Object DiskImageComparison @{ Path = $long; DifferencePath = '/disks/server.raw'; Identical = $false; FirstDifference = 2097152L; SizesDiffer = $false; Difference = 'Content' }
        New-Object DiskImageDifference @{ Path = $long; DifferencePath = '/disks/server.raw'; Offset = 2097152L; Length = 65536L; Difference = 'Content' }
        New-Object DiskImageBadRange @{ Offset = 51200L; Length = 1024L; Reason = "${long}: read failed at offset 51,200: Input/output error" }
        New-Object DiskImagePerformance @{
            Path = $long; Format = 'qcow2'; Operation = 'Write'; Count = 75000L; Depth = 64; BufferSize = 4096L; StepSize = 65536L; Flushes = 75L; Elapsed = [timespan]::FromSeconds(1.5)
            RequestsPerSecond = 50000.0; BytesPerSecond = 204800000.0; LatencyMean = [timespan]::FromMilliseconds(1.28); Latency50 = [timespan]::FromMilliseconds(0.9)
            Latency90 = [timespan]::FromMilliseconds(2.5); Latency99 = [timespan]::FromMilliseconds(12.125); LatencyMax = [timespan]::FromMilliseconds(1200)
        }
        New-Object DiskImageExtent @{ Start = 0L; Length = 65536L; Depth = 0; Present = $true; Zero = $false; Data = $true; Compressed = $false; Offset = 327680L; File = $long }
        $snapshot
        $bitmap
        New-Object DiskImageExport @{
            Id = 1; Name = 'server.qcow2'; Uri = 'nbd://127.0.0.1:10809/server.qcow2'; Path = $long; VirtualSize = 20GB; Clients = 2; Errors = 0L
        }
        New-Object DiskImageIscsiTarget @{ Target = 'iqn.2026-11.org.example:disks'; Portals = 'storage.example:3261', '10.0.0.7:3261'; Lun = 1; Kind = 'disk'; VirtualSize = 20GB; BlockSize = 512; Model = 'IET VIRTUAL-DISK'; SerialNumber = 'beaf11'; IsThin = $true; Uri = 'iscsi://storage.example:3261/iqn.2026-11.org.example:disks/1' }
        New-Object DiskImageDirtyRange @{ Path = $long; Name = 'day'; Offset = 196608L; Length = 65536L }
        New-Object DiskImageDevice @{ Path = '/dev/server.qcow2'; Size = 512110190592L; Model = 'Samsung SSD 970'; Serial = 'S4'; LogicalSectorSize = 512; PhysicalSectorSize = 4096; IsReadOnly = $false; IsRemovable = $false; Zoned = $null; Partitions = '/dev/nvme0n1p1', '/dev/nvme0n1p2'; Uses = 'mounted at / (by way of nvme0n1p2)', 'swap space (by way of nvme0n1p3)'; IsSystem = $true }
        New-Object DiskImageLock @{ Path = $long; ProcessId = 4711; ProcessName = 'qemu-system-x86_64'; Uses = 'ConsistentRead', 'Write', 'Resize'; Refuses = 'Write', 'Resize'; IsWhole = $false }
        New-Object DiskImageKeySlot @{ Path = $long; Slot = 0; IsActive = $true; KeyDerivation = 'argon2id'; Hash = $null; Iterations = 4L; Memory = 1073741824L; Parallelism = 4; Stripes = 4000; Offset = 32768L; Length = 258048L }
        $child
        $statistics
        New-Object DiskImageFormat @{ Name = 'qcow2'; CanCreate = $true; CanHaveBacking = $true; Extensions = '.qcow2', '.qc2'; Description = 'QEMU copy-on-write, versions 2 and 3' }
        $option
    )
    $names = $views.ForEach{ $_.PSTypeNames[0] } # views that select from an object rename it
}

Describe 'Views' {
    It 'are as they were looked at, <_> columns wide' -ForEach 80, 160 {
        $culture = [cultureinfo]::CurrentCulture
        try {
            [cultureinfo]::CurrentCulture = [cultureinfo]::InvariantCulture
            $text = for ($i = 0; $i -lt $views.Count; $i++) {
                "# $($names[$i])"
                ($views[$i] | Out-String -Width $_) -split '\r?\n'
                if ($names[$i] -notlike '*CopyStatistics') { # only ever a part of something
                    '# | Format-Table'
                    ($views[$i] | Format-Table | Out-String -Width $_) -split '\r?\n'
                }
            }
        } finally {
            [cultureinfo]::CurrentCulture = $culture
        }

        $text = $text.Where{ $_.Trim() }.TrimEnd() -replace '\e\[[0-9;]*m'
        $width = $_
        $text | ForEach-Object { $_.Length | Should -BeLessOrEqual $width }
        $golden = "$PSScriptRoot/Data/views-$_.txt"
        if ($env:DISKIMAGE_WRITE_VIEWS) {
            $null = New-Item "$PSScriptRoot/Data" -ItemType Directory -Force
            [IO.File]::WriteAllLines($golden, [string[]]$text)
        }

        $text | Should -Be ([IO.File]::ReadAllLines($golden))
    }

    It 'keep the file''s name of a long path' {
        for ($i = 0; $i -lt $views.Count; $i++) {
            if ($views[$i].Path) {
                $views[$i] | Format-Table | Out-String -Width 80 | Should -Match 'server\.qcow2' -Because $names[$i]
            }
        }
    }

    It 'are there for every type that the module returns' {
        [xml] $file = Get-Content "$ModuleFolder/DiskImage.Format.ps1xml" -Raw
        $types = $file.SelectNodes('//View/ViewSelectedBy/TypeName').InnerText.Where{ $_ -like 'DiskImage.PowerShell.*' } | Sort-Object -Unique
        $names | Sort-Object -Unique | Should -Be $types
    }
}
