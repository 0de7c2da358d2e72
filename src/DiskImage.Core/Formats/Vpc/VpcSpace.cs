using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Where new blocks go. Made from the block allocation table before the first change.</summary>
/// <remarks>
/// <para>Blocks begin at any sector of a file of up to 2 TiB, so what is free is kept as gaps and not as a map of
/// units: 32 bytes a gap.</para>
/// <para>The file must end in a sound footer after every flush, and new blocks go where the footer is. So the file grows several blocks
/// ahead: the footer is written behind them and flushed, only then is its old place zeroed and handed out. At any moment, whatever the
/// host reorders, the end or the copy at offset 0 holds a footer. When the disk is closed the file is cut back
/// behind its last block.</para>
/// <para>A place that is handed out reads as zeroes: QEMU ignores the sector bitmaps of dynamic disks.</para>
/// </remarks>
internal sealed class VpcSpace : FileSpace
{
    private const long Ahead = 64 << 20; // bytes by which the file grows. Ours

    private readonly VpcDisk _disk;
    // each holds a block at its start, and one more each stride; the lowest first
    private readonly PriorityQueue<FileRange, long> _gaps = new();
    private long _end, _left; // behind everything that is used; blocks that have no place yet
    private bool _isTailZero;

    /// <summary>Takes the blocks of a disk that are all where they can be.</summary>
    public VpcSpace(VpcDisk disk, StoredBlock[] blocks)
    {
        _disk = disk;
        _end = disk.UsedEnd();
        _left = disk.Bat.Count - blocks.Length;
        foreach (FileRange gap in disk.Maintenance.Gaps(blocks))
        {
            Add(disk.Layout.PlaceAt(gap.Start), Math.Min(gap.End, _end));
        }
    }

    /// <summary>A place for a block; it reads as zeroes.</summary>
    public async ValueTask<HostOffset> AllocateAsync(MetadataSession.Held held)
    {
        _disk.Session.Require(held);
        VpcLayout layout = _disk.Layout;
        long place;
        if (_gaps.TryDequeue(out FileRange gap, out place))
        {
            Add(place + layout.Stride, gap.End);
            await _disk.File.WriteZeroesAsync(place, layout.Span).ConfigureAwait(false);
        }
        else
        {
            place = layout.PlaceAt(_end);
            await ReachAsync(place + layout.Span, Math.Min(Ahead / layout.Stride, _left - 1) * layout.Stride).ConfigureAwait(false);
            _end = place + layout.Span;
        }
        _left--;
        return new(place);
    }

    /// <summary>
    /// Whole sectors for something else, at the lowest place at or after <paramref name="least"/> that nothing uses. They need not read as
    /// zeroes. Blocks go to the end from then on, until the space is made anew.
    /// </summary>
    public async ValueTask<HostOffset> AllocateSectorsAsync(MetadataSession.Held held, long bytes, long least)
    {
        _disk.Session.Require(held);
        long length = Round.Up(bytes, VpcGeometry.SectorSize), place = Math.Max(least, _disk.UsedEnd());
        (StoredBlock[] blocks, _) = await _disk.Maintenance.StoredAsync(CancellationToken.None).ConfigureAwait(false);
        foreach (FileRange gap in _disk.Maintenance.Gaps(blocks))
        {
            long start = Math.Max(least, Round.Up(gap.Start, VpcGeometry.SectorSize));
            if (gap.End - start >= length)
            {
                place = start;
                break;
            }
        }
        _gaps.Clear();
        if (place + length > _end)
        {
            await ReachAsync(place + length, 0).ConfigureAwait(false);
            _end = place + length;
        }
        return new(place);
    }

    /// <summary>A block is not in the table any more. Its place is free after the next flush.</summary>
    public void GiveUp(MetadataSession.Held held, HostOffset place)
    {
        FreeAfterFlush(held, place.Value, _disk.Layout.Span);
        _left++;
    }

    /// <summary>Takes back the places of blocks.</summary>
    public override ValueTask FreeAsync(MetadataSession.Held held, long offset, long length)
    {
        Free(held, offset, length);
        return default;
    }

    /// <summary>Gives space back that nothing in the file, as it is on the disk, refers to.</summary>
    public void Free(MetadataSession.Held held, long offset, long length)
    {
        for (long place = offset, span = _disk.Layout.Span; place < offset + length; place += span)
        {
            Add(place, place + span);
        }
    }

    /// <summary>Cuts the file back behind the last block. The table must be flushed.</summary>
    public async ValueTask TrimAsync(MetadataSession.Held held)
    {
        _disk.Session.Require(held);
        long end = _disk.UsedEnd();
        if (end >= _disk.FooterOffset)
        {
            return;
        }
        await _disk.MoveFooterAsync(end).ConfigureAwait(false);
        (_end, _isTailZero) = (end, true);
        FileRange[] gaps = [.. _gaps.UnorderedItems.Select(g => g.Element)];
        _gaps.Clear();
        foreach (FileRange gap in gaps)
        {
            Add(gap.Start, Math.Min(gap.End, end));
        }
    }

    private void Add(long place, long end)
    {
        if (end - place >= _disk.Layout.Span)
        {
            _gaps.Enqueue(new(place, end), place);
        }
    }

    /// <summary>
    /// Makes the file reach an offset, and some bytes more if it must grow, with the footer behind it and zeroes up to the footer.
    /// </summary>
    private async ValueTask ReachAsync(long offset, long more)
    {
        if (offset / VpcGeometry.SectorSize >= BigBlockEntry.Nowhere)
        {
            string file = _disk.File.Name;
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace,
                $"{file}: a block at offset {offset:#,0} is out of reach for the block allocation table, which reaches 2 TiB",
                file,
                offset);
        }
        if (!_isTailZero)
        {
            // left there by a program that died
            await _disk.File.WriteZeroesAsync(_end, Math.Max(0, _disk.FooterOffset - _end)).ConfigureAwait(false);
            _isTailZero = true;
        }
        if (offset > _disk.FooterOffset)
        {
            _isTailZero = false; // if zeroing fails, it is made up for the next time
            await _disk.MoveFooterAsync(Round.Up(offset + Math.Max(0, more), VpcGeometry.SectorSize)).ConfigureAwait(false);
            _isTailZero = true;
        }
    }
}
