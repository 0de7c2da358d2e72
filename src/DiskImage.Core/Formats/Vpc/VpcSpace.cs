using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Where new blocks go, and where the footer is. Built from the block allocation table before the first change.
/// </summary>
/// <remarks>
/// <para>The file must end in a sound footer after every flush, and new blocks go where the footer is. So the file grows several blocks
/// ahead: the footer is written behind them and flushed, only then is its old place zeroed and handed out. At any moment, whatever the
/// host reorders, the end or the copy at offset 0 holds a footer. When the disk is closed the file is cut back behind its last block.</para>
/// <para>A place that is handed out reads as zeroes: QEMU ignores the sector bitmaps of dynamic disks. A freed place is handed out again
/// only after the flush that made the table forget it. Not thread-safe: the disk's metadata lock guards it.</para>
/// </remarks>
internal sealed class VpcSpace(BlockNode file, VpcBat bat, VpcLayout layout)
{
    private const long Ahead = 64 << 20; // bytes by which the file grows. Ours

    private readonly Stack<long> _free = []; // the lowest on top
    private readonly List<long> _pending = []; // free after the next flush
    private long _end, _left;
    private bool _isTailZero;

    /// <summary>Where the footer at the end is.</summary>
    public long FooterOffset { get; private set; }

    /// <summary>Finds the free places and makes sure that there is a footer at the end.</summary>
    /// <exception cref="DiskImageException">Corrupt: blocks overlap each other or a structure, or lie outside the file.</exception>
    public async ValueTask PrepareAsync(VpcFooters footers, VpcFooter footer)
    {
        long limit = footers.EndOffset(file.Length);
        long[] blocks = SortedBlocks();
        long end = VpcFooter.Length;
        foreach (long block in blocks)
        {
            if (layout.Overlap(block, block + layout.Span) is { } what)
            {
                throw Damaged($"the block at offset {block:#,0} overlaps {what}", block);
            }
            if (block < end)
            {
                throw Damaged($"the block at offset {block:#,0} overlaps another one", block);
            }
            if (layout.Span > limit - block)
            {
                throw Damaged($"the block at offset {block:#,0} reaches past the end of the blocks at {limit:#,0}", block);
            }
            end = block + layout.Span;
        }
        _end = Math.Max(layout.StructuresEnd, Round.Up(end, VpcGeometry.SectorSize));
        _left = bat.Count - blocks.Length;
        FindGaps(blocks);
        if (footers.EndLength == VpcFooter.Length && limit % VpcGeometry.SectorSize == 0 && limit >= _end)
        {
            FooterOffset = limit;
            return;
        }
        FooterOffset = Round.Up(Math.Max(file.Length, _end), VpcGeometry.SectorSize);
        await file.WriteAsync(FooterOffset, footer.ToBytes()).ConfigureAwait(false);
        await file.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>A place for a block; it reads as zeroes.</summary>
    public async ValueTask<long> AllocateAsync(VpcFooter footer)
    {
        long place;
        if (_free.TryPop(out place))
        {
            await file.WriteZeroesAsync(place, layout.Span).ConfigureAwait(false);
        }
        else
        {
            place = layout.PlaceAt(_end);
            await ReachAsync(place + layout.Span, Math.Min(Ahead / layout.Stride, _left - 1) * layout.Stride, footer).ConfigureAwait(false);
            _end = place + layout.Span;
        }
        _left--;
        return place;
    }

    /// <summary>Whole sectors for something else, at the lowest free place at or after <paramref name="least"/>. They need not read as zeroes.</summary>
    public async ValueTask<long> AllocateSectorsAsync(long bytes, long least, VpcFooter footer)
    {
        long length = Round.Up(bytes, VpcGeometry.SectorSize), place = least;
        foreach ((long start, long end) in Used(SortedBlocks()))
        {
            if (start - place >= length)
            {
                break;
            }
            place = Math.Max(place, Round.Up(end, VpcGeometry.SectorSize));
        }
        SetFree(_free.Where(f => f >= place + length || place >= f + layout.Span));
        if (place + length > _end)
        {
            await ReachAsync(place + length, 0, footer).ConfigureAwait(false);
            _end = place + length;
        }
        return place;
    }

    /// <summary>A block is not in the table any more. Its place is free after the next flush.</summary>
    public void Free(long place)
    {
        _pending.Add(place);
        _left++;
    }

    /// <summary>The table is flushed: returns the places that are free now.</summary>
    public IReadOnlyList<long> Release()
    {
        if (_pending.Count == 0)
        {
            return [];
        }
        long[] released = [.. _pending];
        _pending.Clear();
        SetFree(_free.Concat(released));
        return released;
    }

    /// <summary>Nothing more is handed out below an offset.</summary>
    public void KeepClear(long offset)
    {
        SetFree(_free.Where(f => f >= offset));
        _end = Math.Max(_end, offset);
    }

    /// <summary>Cuts the file back behind the last block. The table must be flushed.</summary>
    public async ValueTask TrimAsync(VpcFooter footer)
    {
        long end = layout.StructuresEnd;
        for (int block = bat.NextUsed(0); block < bat.Count; block = bat.NextUsed(block + 1))
        {
            end = Math.Max(end, bat.OffsetOf(block)!.Value + layout.Span);
        }
        end = Round.Up(end, VpcGeometry.SectorSize);
        if (end >= FooterOffset)
        {
            return;
        }
        await file.WriteAsync(end, footer.ToBytes()).ConfigureAwait(false);
        await file.FlushAsync().ConfigureAwait(false);
        await file.ResizeAsync(end + VpcFooter.Length).ConfigureAwait(false);
        (FooterOffset, _end, _isTailZero) = (end, end, true);
        SetFree(_free.Where(f => f + layout.Span <= end));
    }

    /// <summary>Everything that is used, in the order of offsets.</summary>
    public IEnumerable<(long Start, long End)> Used(long[] sortedBlocks)
        => sortedBlocks.Select(b => (Start: b, End: b + layout.Span)).Concat(layout.Structures.Select(s => (s.Start, s.End))).OrderBy(r => r.Start);

    /// <summary>Where blocks begin, in order.</summary>
    public long[] SortedBlocks()
    {
        var blocks = new List<long>();
        for (int block = bat.NextUsed(0); block < bat.Count; block = bat.NextUsed(block + 1))
        {
            blocks.Add(bat.OffsetOf(block)!.Value);
        }
        blocks.Sort();
        return [.. blocks];
    }

    private void FindGaps(long[] blocks)
    {
        var places = new List<long>();
        long at = 0;
        foreach ((long start, long end) in Used(blocks))
        {
            for (long place = layout.PlaceAt(at); place + layout.Span <= start; place += layout.Stride)
            {
                places.Add(place);
            }
            at = Math.Max(at, end);
        }
        SetFree(places);
    }

    private void SetFree(IEnumerable<long> places)
    {
        long[] falling = [.. places.OrderDescending()];
        _free.Clear();
        Array.ForEach(falling, _free.Push);
    }

    /// <summary>Makes the file reach an offset, and some bytes more if it must grow, with the footer behind it and zeroes up to the footer.</summary>
    private async ValueTask ReachAsync(long offset, long more, VpcFooter footer)
    {
        if (offset / VpcGeometry.SectorSize >= VpcBat.Unused)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace, $"{file.Name}: a block at offset {offset:#,0} is out of reach for the block allocation table, which reaches 2 TiB", file.Name, offset);
        }
        if (!_isTailZero)
        {
            await file.WriteZeroesAsync(_end, Math.Max(0, FooterOffset - _end)).ConfigureAwait(false); // left there by a program that died
            _isTailZero = true;
        }
        if (offset > FooterOffset)
        {
            long old = FooterOffset, next = Round.Up(offset + Math.Max(0, more), VpcGeometry.SectorSize);
            await file.WriteAsync(next, footer.ToBytes()).ConfigureAwait(false);
            await file.FlushAsync().ConfigureAwait(false);
            (FooterOffset, _isTailZero) = (next, false); // if zeroing fails, it is made up for the next time
            await file.WriteZeroesAsync(old, VpcFooter.Length).ConfigureAwait(false);
            _isTailZero = true;
        }
    }

    private DiskImageException Damaged(string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: {what}, so nothing can be written safely. Repair it with Repair-DiskImage -Mode All.", file.Name, offset);
}
