using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Looks at all structures of a dynamic disk's file: footer and copy, header, locators, table, bitmaps, and the space between. It reads the file,
/// not the node's caches, so changes must be flushed. Memory: the offsets of the blocks.
/// </summary>
internal sealed class VpcChecker(
    BlockNode file, VpcFooters footers, VpcHeader header, VpcLayout layout, VpcBat bat, VpcBatmap batmap, VpcStaleEntries stale, long length, string? sizeWarning)
{
    private readonly CheckFindings _findings = new();
    private readonly int _diskBlocks = (int)header.Blocks(length);
    private readonly byte[] _buffer = new byte[1 << 20];
    private long _allocated, _fragmented, _end, _footerCorruptions;
    private bool _isExplained = true; // nothing but zeroes is where no structure and no block is

    /// <summary>True if the header's checksum is right, or alone is wrong: every byte of the file has its meaning by what the header says.</summary>
    public bool IsHeaderBelieved { get; private set; }

    public async ValueTask<CheckReport> RunAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckFooters();
        CheckSize();
        CheckHeader();
        CheckLocators();
        (long Place, int Block)[] blocks = CheckTable();
        CheckStale();
        await CheckSpaceAsync(blocks, cancellationToken).ConfigureAwait(false);
        await CheckBatmapAsync(cancellationToken).ConfigureAwait(false);
        CheckSeal();
        if (footers.Best.DiskType == VpcDiskType.Dynamic)
        {
            await CheckBitmapsAsync(blocks, bytes, cancellationToken).ConfigureAwait(false);
        }
        bytes?.Report(length);
        return new CheckReport
        {
            Findings = _findings.List,
            Corruptions = _findings.Corruptions,
            Leaks = _findings.Leaks,
            CheckErrors = _findings.Errors,
            TotalClusters = _diskBlocks,
            AllocatedClusters = _allocated,
            FragmentedClusters = _fragmented,
            CompressedClusters = 0,
            ImageEndOffset = _end,
        };
    }

    private void CheckFooters()
    {
        if (!footers.IsSealed)
        {
            _findings.Corruption(
                "FooterChecksum",
                "the checksums of both footers are wrong; they say the same otherwise, and nothing contradicts it",
                "write the right checksums", host: footers.EndOffset(file.Length));
            return;
        }
        if (footers.End is null)
        {
            _findings.Corruption(
                "FooterDamaged",
                "there is no sound footer at the end of the file; the copy at offset 0 is used",
                "write the copy to the end", host: file.Length);
        }
        else if (footers.EndLength != VpcFooter.Length)
        {
            _findings.Warning(
                "FooterShort",
                "the footer has 511 bytes, as programs before Virtual PC 2004 wrote it",
                "write it with 512 bytes", host: footers.EndOffset(file.Length));
        }
        if (footers.Copy is null)
        {
            _findings.Corruption(
                "FooterCopyDamaged",
                "the copy of the footer at offset 0 is damaged or missing; QEMU does not open such a disk",
                "write the footer to offset 0", host: 0);
        }
        else if (!footers.IsCopyEqual)
        {
            _findings.Corruption(
                "FooterCopyDiffers",
                "the copy of the footer at offset 0 says something else than the footer at the end",
                "write the footer to offset 0", host: 0);
        }
    }

    private void CheckHeader()
    {
        long at = (long)footers.Best.DataOffset;
        if (at % VpcGeometry.SectorSize != 0 || header.TableOffset % VpcGeometry.SectorSize != 0)
        {
            _findings.Corruption(
                "Misaligned",
                $"the dynamic header at offset {at:#,0} or the block allocation table at offset {header.TableOffset:#,0} does not begin at a sector",
                host: at);
        }
        for (int i = 1; i < layout.Structures.Count; i++)
        {
            (VpcRegion before, VpcRegion here) = (layout.Structures[i - 1], layout.Structures[i]);
            if (here.Start < before.End)
            {
                _findings.Corruption(
                    "Overlap", $"{here.What} at offset {here.Start:#,0} overlaps {before.What}, which ends at {before.End:#,0}", host: here.Start);
            }
        }
    }

    /// <summary>Comes last: what the other checks found tells whether a wrong checksum of the header is all that is wrong.</summary>
    private void CheckSeal()
    {
        IsHeaderBelieved = header.IsChecksumRight || (header.IsPlausible && _isExplained && _findings.Corruptions == _footerCorruptions);
        if (header.IsChecksumRight)
        {
            return;
        }
        string why = IsHeaderBelieved ? "all that it says fits the file" : "and what it says does not explain all of the file, so a field may be damaged; nothing is changed, convert the disk to save what can be read";
        _findings.Corruption(
            "HeaderChecksum",
            $"the dynamic header's checksum is wrong; {why}",
            IsHeaderBelieved ? "write the right one" : null,
            host: (long)footers.Best.DataOffset);
    }

    private void CheckSize()
    {
        _footerCorruptions = _findings.Corruptions;
        if (sizeWarning is not null)
        {
            _findings.Warning("SizesDiffer", sizeWarning, host: footers.EndOffset(file.Length));
        }
    }

    /// <summary>What the table has behind the disk's last block.</summary>
    private void CheckStale()
    {
        foreach (VpcStaleEntry entry in stale.Listed)
        {
            _findings.Corruption(
                "Stale",
                $"entry {entry.Block:#,0} of the table is behind the disk's last block and leads to offset {entry.Place:#,0}, {entry.What}: a program that makes the disk larger would show or free that",
                "clear the entry",
                host: header.TableOffset + (entry.Block * 4L));
        }
        int first = bat.NextUsed(Math.Min(_diskBlocks, bat.Count));
        if (first < bat.Count)
        {
            _findings.Warning(
                "Behind",
                $"blocks are stored behind the end of the disk at {length:#,0}, the first for guest offset {first * layout.BlockSize:#,0}; the footer's current size is {footers.Best.CurrentSize:#,0}. They are kept, and not shown",
                host: bat.OffsetOf(first));
        }
    }

    private async ValueTask CheckBatmapAsync(CancellationToken cancellationToken)
    {
        if (!batmap.Exists)
        {
            return;
        }
        if (!batmap.IsChecksumRight)
        {
            _findings.Corruption("BatmapChecksum", "the checksum of XenServer's batmap is wrong", "say of no block that it is whole", host: batmap.HeaderOffset);
            return;
        }
        byte[] bitmap = new byte[layout.BitmapBytes];
        int sectors = (int)(layout.BlockSize / VpcGeometry.SectorSize);
        for (int block = 0; block < _diskBlocks; block++)
        {
            if (batmap.IsWhole(block) && !await IsWholeAsync(block).ConfigureAwait(false))
            {
                _findings.Corruption(
                    "Batmap",
                    $"XenServer's batmap says that all of block {block:#,0} is there, and its bitmap says otherwise: XenServer reads something else than other programs",
                    "say of no block that it is whole",
                    block * layout.BlockSize,
                    layout.BlockSize,
                    batmap.MapOffset + (block / 8));
            }
        }

        async ValueTask<bool> IsWholeAsync(int block)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (bat.OffsetOf(block) is not long place)
            {
                return false;
            }
            await file.ReadPaddedAsync(place, bitmap, cancellationToken).ConfigureAwait(false);
            long count = Math.Min(layout.BlockSize, Round.Up(length, VpcGeometry.SectorSize) - (block * layout.BlockSize)) / VpcGeometry.SectorSize;
            return VpcBits.Run(bitmap, 0, sectors, value: true) >= count;
        }
    }

    private void CheckLocators()
    {
        bool hasParent = footers.Best.DiskType == VpcDiskType.Differencing, isNamed = header.ParentName.Length > 0;
        foreach (VpcLocator locator in header.Locators.Where(l => l.IsUsed))
        {
            if (!locator.IsKnown)
            {
                _findings.Warning(
                    "LocatorUnknown", $"a parent locator is for the unknown platform '{locator.PlatformText}'", host: (long)footers.Best.DataOffset);
            }
            else if (locator.Fault(file.Length) is { } fault)
            {
                _findings.Corruption(
                    "LocatorFault", $"the parent locator '{locator.PlatformText}': {fault}", "drop the locator", host: (long)footers.Best.DataOffset);
            }
            else
            {
                isNamed |= locator.DataLength > 0;
            }
        }
        if (hasParent && !isNamed)
        {
            _findings.Corruption("ParentUnnamed", "a differencing disk that does not name its parent", host: (long)footers.Best.DataOffset);
        }
    }

    /// <summary>The blocks that lie inside the file, in the order of their places.</summary>
    private (long Place, int Block)[] CheckTable()
    {
        long limit = footers.EndOffset(file.Length), previous = -1;
        var blocks = new List<(long Place, int Block)>();
        for (int block = bat.NextUsed(0); block < bat.Count; block = bat.NextUsed(block + 1))
        {
            long place = bat.OffsetOf(block)!.Value, guest = block * layout.BlockSize;
            _allocated += block < _diskBlocks ? 1 : 0;
            _fragmented += previous >= 0 && (place < previous + layout.Span || place > previous + layout.Stride) ? 1 : 0;
            previous = place;
            if (place >= limit)
            {
                _findings.Corruption(
                    "OutOfFile",
                    $"block {block:#,0} is said to be at offset {place:#,0}, past the end of the blocks at {limit:#,0}",
                    "forget the block: its data is not there",
                    guest,
                    layout.BlockSize,
                    place);
                continue;
            }
            if (layout.Span > limit - place)
            {
                _findings.Corruption(
                    "Truncated",
                    $"block {block:#,0} at offset {place:#,0} is cut off: {limit - place:#,0} of its {layout.Span:#,0} bytes are there",
                    "make the file longer; what is missing becomes zeroes",
                    guest,
                    layout.BlockSize,
                    place);
            }
            blocks.Add((place, block));
        }
        (long Place, int Block)[] sorted = [.. blocks];
        Array.Sort(sorted);
        for (int i = 0; i < sorted.Length; i++)
        {
            (long place, int block) = sorted[i];
            if (layout.Overlap(place, place + layout.Span) is { } what)
            {
                Overlaps(place, block, what);
            }
            if (i > 0 && place < sorted[i - 1].Place + layout.Span)
            {
                Overlaps(place, block, $"block {sorted[i - 1].Block:#,0} at offset {sorted[i - 1].Place:#,0}");
            }
        }
        return sorted;

        void Overlaps(long place, int block, string what) => _findings.Corruption(
            "Overlap",
            $"block {block:#,0} at offset {place:#,0} overlaps {what}",
            "give the block a place of its own, with what it reads as now",
            block * layout.BlockSize,
            layout.BlockSize,
            place);
    }

    /// <summary>Gaps that could hold a block, and what is left over at the end.</summary>
    private async ValueTask CheckSpaceAsync((long Place, int Block)[] blocks, CancellationToken cancellationToken)
    {
        long limit = footers.EndOffset(file.Length), at = 0;
        foreach ((long start, long end) in blocks.Select(b => (b.Place, b.Place + layout.Span)).Concat(layout.Structures.Select(s => (s.Start, s.End))).Order())
        {
            await LookAsync(at, start).ConfigureAwait(false);
            at = Math.Max(at, end);
        }
        at = Round.Up(at, VpcGeometry.SectorSize);
        await LookAsync(at, limit).ConfigureAwait(false);
        _end = at + VpcFooter.Length;

        // A gap that is too small for a block is how makers align their blocks.
        async ValueTask LookAsync(long start, long end)
        {
            if (!header.IsChecksumRight && _isExplained && start < end)
            {
                _isExplained = await FirstDataAsync(start, end, _buffer, cancellationToken).ConfigureAwait(false) is null;
            }
            if (end - start >= layout.Span && (end < limit || footers.End is not null))
            {
                Unused(start, end);
            }
        }

        void Unused(long start, long end) => _findings.Leak(
            $"{end - start:#,0} bytes at offset {start:#,0} are not used",
            "move blocks into the gap and cut the file",
            start,
            Math.Max(1, (end - start) / layout.Span));
    }

    /// <summary>
    /// In a dynamic disk a sector without a bit is zero. If the file has something else there, this program and Hyper-V do not show it, and QEMU does.
    /// </summary>
    private async ValueTask CheckBitmapsAsync((long Place, int Block)[] blocks, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        byte[] bitmap = new byte[layout.BitmapBytes];
        foreach ((long place, int block) in blocks)
        {
            cancellationToken.ThrowIfCancellationRequested();
            await file.ReadPaddedAsync(place, bitmap, cancellationToken).ConfigureAwait(false);
            long sectors = Math.Clamp(length - (block * layout.BlockSize), 0, layout.BlockSize) / VpcGeometry.SectorSize;
            for (int sector = 0; sector < sectors;)
            {
                bool isSet = VpcBits.Get(bitmap, sector);
                int run = VpcBits.Run(bitmap, sector, (int)sectors, isSet);
                long start = place + layout.BitmapBytes + ((long)sector * VpcGeometry.SectorSize);
                if (!isSet && await FirstDataAsync(start, start + ((long)run * VpcGeometry.SectorSize), _buffer, cancellationToken).ConfigureAwait(false) is long data)
                {
                    _findings.Warning(
                        "BitmapHidesData",
                        $"block {block:#,0} has data at offset {data:#,0} in a sector that its bitmap says was never written: it reads as zeroes here, QEMU shows it",
                        host: data);
                    break;
                }
                sector += run;
            }
            bytes?.Report(block * layout.BlockSize);
        }
    }

    private async ValueTask<long?> FirstDataAsync(long start, long end, byte[] buffer, CancellationToken cancellationToken)
    {
        for (end = Math.Min(end, file.Length); start < end;)
        {
            BlockExtent extent = await file.GetExtentAsync(start, end - start, cancellationToken).ConfigureAwait(false);
            int count = (int)Math.Min(extent.Length, buffer.Length);
            if (!extent.IsZero)
            {
                await file.ReadAsync(start, buffer.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                int at = buffer.AsSpan(0, count).IndexOfAnyExcept((byte)0);
                if (at >= 0)
                {
                    return start + at;
                }
            }
            start += extent.IsZero ? extent.Length : count;
        }
        return null;
    }
}
