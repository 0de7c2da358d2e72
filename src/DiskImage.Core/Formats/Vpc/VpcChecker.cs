using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Looks at all structures of a dynamic disk's file: footer and copy, header, locators, table, bitmaps, and the space between. It reads the
/// file, not the node's caches, so changes must be flushed. Memory: the offsets of the blocks.
/// </summary>
internal sealed class VpcChecker(VpcDisk disk)
{
    private readonly CheckFindings _findings = new();
    private readonly int _diskBlocks = disk.Blocks;
    private long _footerCorruptions;
    private bool _isExplained = true; // nothing but zeroes is where no structure and no block is

    private VpcFooters Footers => disk.Footers;

    private VpcHeader Header => disk.Header;

    /// <summary>
    /// True if the header's checksum is right, or alone is wrong: every byte of the file has its meaning by what the header says.
    /// </summary>
    public bool IsHeaderBelieved { get; private set; }

    public async ValueTask<CheckReport> RunAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckFooters();
        CheckSize();
        CheckHeader();
        CheckLocators();
        (StoredBlock[] blocks, long fragmented) = await disk.Maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = disk.Maintenance.Check(blocks, _findings, isLimitKnown: Footers.End is not null);
        CheckStale();
        await ExplainGapsAsync(blocks, cancellationToken).ConfigureAwait(false);
        await CheckBatmapAsync(cancellationToken).ConfigureAwait(false);
        CheckSeal();
        if (Footers.Best.DiskType == VpcDiskType.Dynamic)
        {
            await CheckBitmapsAsync(blocks, bytes, cancellationToken).ConfigureAwait(false);
        }
        bytes?.Report(disk.Length);
        return new CheckReport
        {
            Findings = _findings.List,
            Corruptions = _findings.Corruptions,
            Leaks = _findings.Leaks,
            CheckErrors = _findings.Errors,
            TotalClusters = _diskBlocks,
            AllocatedClusters = blocks.Count(b => b.Index < _diskBlocks),
            FragmentedClusters = fragmented,
            CompressedClusters = 0,
            ImageEndOffset = Round.Up(end, VpcGeometry.SectorSize) + VpcFooter.Length,
        };
    }

    private void CheckFooters()
    {
        if (!Footers.IsSealed)
        {
            _findings.Corruption(
                "FooterChecksum",
                "the checksums of both footers are wrong; they say the same otherwise, and nothing contradicts it",
                "write the right checksums", host: Footers.EndOffset(disk.File.Length));
            return;
        }
        if (Footers.End is null)
        {
            _findings.Corruption(
                "FooterDamaged",
                "there is no sound footer at the end of the file; the copy at offset 0 is used",
                "write the copy to the end", host: disk.File.Length);
        }
        else if (Footers.EndLength != VpcFooter.Length)
        {
            _findings.Warning(
                "FooterShort",
                "the footer has 511 bytes, as programs before Virtual PC 2004 wrote it",
                "write it with 512 bytes", host: Footers.EndOffset(disk.File.Length));
        }
        if (Footers.Copy is null)
        {
            _findings.Corruption(
                "FooterCopyDamaged",
                "the copy of the footer at offset 0 is damaged or missing; QEMU does not open such a disk",
                "write the footer to offset 0", host: 0);
        }
        else if (!Footers.IsCopyEqual)
        {
            _findings.Corruption(
                "FooterCopyDiffers",
                "the copy of the footer at offset 0 says something else than the footer at the end",
                "write the footer to offset 0", host: 0);
        }
    }

    private void CheckHeader()
    {
        long at = (long)Footers.Best.DataOffset;
        if (at % VpcGeometry.SectorSize != 0 || Header.TableOffset % VpcGeometry.SectorSize != 0)
        {
            _findings.Corruption(
                "Misaligned",
                $"the dynamic header at offset {at:#,0} or the block allocation table at offset "
                    + $"{Header.TableOffset:#,0} does not begin at a sector",
                host: at);
        }
        for (int i = 1; i < disk.Layout.Structures.Count; i++)
        {
            (FileRange before, FileRange here) = (disk.Layout.Structures[i - 1], disk.Layout.Structures[i]);
            if (here.Start < before.End)
            {
                _findings.Corruption(
                    "Overlap",
                    $"{here.What} at offset {here.Start:#,0} overlaps {before.What}, which ends at {before.End:#,0}",
                    host: here.Start);
            }
        }
    }

    /// <summary>Comes last: what the other checks found tells whether a wrong checksum of the header is all that is wrong.</summary>
    private void CheckSeal()
    {
        IsHeaderBelieved = Header.IsChecksumRight || (Header.IsPlausible && _isExplained && _findings.Corruptions == _footerCorruptions);
        if (Header.IsChecksumRight)
        {
            return;
        }
        string why = IsHeaderBelieved
            ? "all that it says fits the file"
            : "and what it says does not explain all of the file, so a field may be damaged; nothing is changed, "
                + "convert the disk to save what can be read";
        _findings.Corruption(
            "HeaderChecksum",
            $"the dynamic header's checksum is wrong; {why}",
            IsHeaderBelieved ? "write the right one" : null,
            host: (long)Footers.Best.DataOffset);
    }

    private void CheckSize()
    {
        _footerCorruptions = _findings.Corruptions;
        if (disk.SizeWarning is { } warning)
        {
            _findings.Warning("SizesDiffer", warning, host: Footers.EndOffset(disk.File.Length));
        }
    }

    /// <summary>What the table has behind the disk's last block.</summary>
    private void CheckStale()
    {
        foreach (VpcStaleEntry entry in disk.Stale.Listed)
        {
            _findings.Corruption(
                "Stale",
                $"entry {entry.Block:#,0} of the table is behind the disk's last block and leads to offset {entry.Place:#,0}, "
                    + $"{entry.What}: a program that makes the disk larger would show or free that",
                "clear the entry",
                host: Header.TableOffset + (entry.Block * 4L));
        }
        int first = disk.Bat.NextUsed(Math.Min(_diskBlocks, disk.Bat.Count));
        if (first < disk.Bat.Count)
        {
            _findings.Warning(
                "Behind",
                $"blocks are stored behind the end of the disk at {disk.Length:#,0}, the first for guest offset "
                    + $"{first * disk.Layout.BlockSize:#,0}; the footer's current size is "
                    + $"{Footers.Best.CurrentSize:#,0}. They are kept, and not shown",
                host: disk.PlaceOf(first)?.Value);
        }
    }

    private async ValueTask CheckBatmapAsync(CancellationToken cancellationToken)
    {
        if (!disk.Batmap.Exists)
        {
            return;
        }
        if (!disk.Batmap.IsChecksumRight)
        {
            _findings.Corruption(
                "BatmapChecksum",
                "the checksum of XenServer's batmap is wrong",
                "say of no block that it is whole",
                host: disk.Batmap.HeaderOffset);
            return;
        }
        byte[] bitmap = new byte[disk.Layout.BitmapBytes];
        int sectors = (int)(disk.Layout.BlockSize / VpcGeometry.SectorSize);
        for (int block = 0; block < _diskBlocks; block++)
        {
            if (disk.Batmap.IsWhole(block) && !await IsWholeAsync(block).ConfigureAwait(false))
            {
                _findings.Corruption(
                    "Batmap",
                    $"XenServer's batmap says that all of block {block:#,0} is there, and its bitmap says otherwise: XenServer "
                        + $"reads something else than other programs",
                    "say of no block that it is whole",
                    block * disk.Layout.BlockSize,
                    disk.Layout.BlockSize,
                    disk.Batmap.MapOffset + (block / 8));
            }
        }

        async ValueTask<bool> IsWholeAsync(int block)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (disk.PlaceOf(block) is not { } place)
            {
                return false;
            }
            await disk.File.ReadPaddedAsync(place.Value, bitmap, cancellationToken).ConfigureAwait(false);
            long count = Math.Min(
                disk.Layout.BlockSize,
                Round.Up(disk.Length, VpcGeometry.SectorSize) - (block * disk.Layout.BlockSize)) / VpcGeometry.SectorSize;
            return VpcBits.Run(bitmap, 0, sectors, value: true) >= count;
        }
    }

    private void CheckLocators()
    {
        bool hasParent = Footers.Best.DiskType == VpcDiskType.Differencing, isNamed = Header.ParentName.Length > 0;
        foreach (VpcLocator locator in Header.Locators.Where(l => l.IsUsed))
        {
            if (!locator.IsKnown)
            {
                _findings.Warning(
                    "LocatorUnknown",
                    $"a parent locator is for the unknown platform '{locator.PlatformText}'",
                    host: (long)Footers.Best.DataOffset);
            }
            else if (locator.Fault(disk.File.Length) is { } fault)
            {
                _findings.Corruption(
                    "LocatorFault",
                    $"the parent locator '{locator.PlatformText}': {fault}",
                    "drop the locator",
                    host: (long)Footers.Best.DataOffset);
            }
            else
            {
                isNamed |= locator.DataLength > 0;
            }
        }
        if (hasParent && !isNamed)
        {
            _findings.Corruption("ParentUnnamed", "a differencing disk that does not name its parent", host: (long)Footers.Best.DataOffset);
        }
    }

    /// <summary>Where a field of the header may be wrong, data that it does not account for tells.</summary>
    private async ValueTask ExplainGapsAsync(StoredBlock[] blocks, CancellationToken cancellationToken)
    {
        foreach (FileRange gap in Header.IsChecksumRight ? [] : disk.Maintenance.Gaps(blocks))
        {
            if (await StoredBytes.FirstDataAsync(disk.File, gap.Start, gap.Length, cancellationToken).ConfigureAwait(false) is not null)
            {
                _isExplained = false;
                return;
            }
        }
    }

    /// <summary>
    /// In a dynamic disk a sector without a bit is zero. If the file has something else there, this program and Hyper-V do
    /// not show it, and QEMU does.
    /// </summary>
    private async ValueTask CheckBitmapsAsync(StoredBlock[] blocks, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        byte[] bitmap = new byte[disk.Layout.BitmapBytes];
        foreach ((long place, _, long block) in blocks.Where(b => b.Place < disk.FooterOffset))
        {
            cancellationToken.ThrowIfCancellationRequested();
            await disk.File.ReadPaddedAsync(place, bitmap, cancellationToken).ConfigureAwait(false);
            long sectors = Math.Clamp(disk.Length - (block * disk.Layout.BlockSize), 0, disk.Layout.BlockSize) / VpcGeometry.SectorSize;
            for (int sector = 0; sector < sectors;)
            {
                bool isSet = VpcBits.Get(bitmap, sector);
                int run = VpcBits.Run(bitmap, sector, (int)sectors, isSet);
                long start = place + disk.Layout.BitmapBytes + ((long)sector * VpcGeometry.SectorSize);
                if (!isSet && await StoredBytes.FirstDataAsync(
                    disk.File, start, (long)run * VpcGeometry.SectorSize, cancellationToken).ConfigureAwait(false) is long data)
                {
                    _findings.Warning(
                        "BitmapHidesData",
                        $"block {block:#,0} has data at offset {data:#,0} in a sector that its bitmap says was never written: "
                            + $"it reads as zeroes here, QEMU shows it",
                        host: data);
                    break;
                }
                sector += run;
            }
            bytes?.Report(block * disk.Layout.BlockSize);
        }
    }
}
