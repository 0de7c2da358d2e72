using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Writing: places for blocks, sector bits, flushing, zeroes, closing.</summary>
internal sealed partial class VpcNode
{
    private VpcSpace? _space; // built before the first change

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            VpcSpace space = await SpaceAsync().ConfigureAwait(false);
            long place = await PlaceOfAsync(space, BlockOf(offset)).ConfigureAwait(false);
            long within = InBlock(offset), host = place + _layout.BitmapBytes + within;
            (bool isSet, long run) = await RunAsync(place, within, length, cancellationToken).ConfigureAwait(false);
            long end = offset + Math.Min(length, run);
            return isSet
                ? WriteMapping.InPlace(offset, end - offset, File, host)
                : new(offset, end - offset, File, host, IsNew: true, SectorStart(offset), SectorStart(end + VpcGeometry.SectorSize - 1), HostReadsZero: false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override ValueTask CommitMappingAsync(WriteMapping mapping)
        => UnderGateAsync(() => SetBitsAsync(mapping.CopyStart, mapping.CopyEnd));

    /// <summary>The block stays where it is, with these sectors' bits not set: it reads as before.</summary>
    protected override ValueTask AbandonMappingAsync(WriteMapping mapping) => default;

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => UnderGateAsync(() => FlushLockedAsync(cancellationToken));

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly && _space is not null)
            {
                await UnderGateAsync(async () =>
                {
                    await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
                    await _space.TrimAsync(Footer).ConfigureAwait(false);
                }).ConfigureAwait(false);
            }
        }
        finally
        {
            _gate.Dispose();
        }
    }

    /// <summary>
    /// There is no zero state. Without a parent a whole block is dropped; else the bytes in the file are zeroed (holes, where the host has them),
    /// and where a parent could show through, or one to come, their sectors are marked as this disk's own, with a new block if need be: its place
    /// reads as zeroes.
    /// </summary>
    protected override async ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long within = InBlock(offset), count = Math.Min(length, BlockSize - within);
        int block = BlockOf(offset);
        bool isWhole = within == 0 && (count == BlockSize || offset + count >= ClaimedEnd);
        bool mustDecide = HasParent || mode == ZeroWriteMode.KeepAllocated;
        if (mode == ZeroWriteMode.MayUnmap && HasParent && Backing is not null && await ReadsAsZeroAsync(offset, offset + count, cancellationToken).ConfigureAwait(false))
        {
            return count;
        }
        long? place = null;
        await UnderGateAsync(async () =>
        {
            place = _bat.OffsetOf(block);
            if (place is null && !mustDecide)
            {
                count = Math.Min(length, (_bat.NextUsed(block) * BlockSize) - offset);
                return;
            }
            VpcSpace space = await SpaceAsync().ConfigureAwait(false);
            if (place is null)
            {
                _ = await PlaceOfAsync(space, block).ConfigureAwait(false);
                await SetBitsAsync(offset, offset + count).ConfigureAwait(false);
            }
            else if (isWhole && !mustDecide)
            {
                Drop(space, block);
                place = null;
            }
        }).ConfigureAwait(false);
        if (place is long present)
        {
            await File.WriteZeroesAsync(present + _layout.BitmapBytes + within, count, mode, cancellationToken).ConfigureAwait(false);
            if (mustDecide)
            {
                await UnderGateAsync(() => SetBitsAsync(offset, offset + count)).ConfigureAwait(false);
            }
        }
        return count;
    }

    /// <summary>Without a parent whole blocks are dropped. Else the host may have the space back; the bits stay, so no parent's data comes up.</summary>
    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            long within = InBlock(offset), count = Math.Min(end - offset, BlockSize - within);
            int block = BlockOf(offset);
            bool isWhole = within == 0 && (count == BlockSize || offset + count >= ClaimedEnd);
            long? place = null;
            await UnderGateAsync(async () =>
            {
                place = _bat.OffsetOf(block);
                if (place is null)
                {
                    count = Math.Min(end, _bat.NextUsed(block) * BlockSize) - offset;
                    return;
                }
                VpcSpace space = await SpaceAsync().ConfigureAwait(false);
                if (isWhole && !HasParent)
                {
                    Drop(space, block);
                    place = null;
                }
            }).ConfigureAwait(false);
            if (place is long present)
            {
                await File.DiscardAsync(present + _layout.BitmapBytes + within, count, cancellationToken).ConfigureAwait(false);
            }
            offset += count;
        }
    }

    /// <summary>The allocator; built, after the headers were found sound and the copy of the footer was put right, before the first change.</summary>
    private async ValueTask<VpcSpace> SpaceAsync()
    {
        if (_space is not null)
        {
            return _space;
        }
        if (_header.MaxTableEntries > VpcHeader.MaxEntries)
        {
            VpcHeader.RequireFew(_header.MaxTableEntries, BlockSize, Name);
        }
        if (!_footers.IsSealed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the checksums of both footers are wrong, so the disk is read but not written to. Repair it with Repair-DiskImage -Mode All.", Name, 0);
        }
        if (!_header.IsChecksumRight)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the dynamic header's checksum is wrong, so the disk is read but not written to. Repair it with Repair-DiskImage -Mode All.",
                Name,
                (long)Footer.DataOffset);
        }
        var space = new VpcSpace(File, _bat, _layout);
        await space.PrepareAsync(_footers, Footer).ConfigureAwait(false);
        if (!_footers.IsCopyEqual)
        {
            await File.WriteAsync(0, Footer.ToBytes()).ConfigureAwait(false); // QEMU goes by the copy
        }
        _footers = new VpcFooters(Footer, VpcFooter.Length, Footer);
        return _space = space;
    }

    /// <summary>Where a block is; it gets a place, with no bit set, if it has none.</summary>
    private async ValueTask<long> PlaceOfAsync(VpcSpace space, int block)
    {
        if (_bat.OffsetOf(block) is long present)
        {
            return present;
        }
        long place = await space.AllocateAsync(Footer).ConfigureAwait(false);
        _bitmaps.Forget(place, _layout.BitmapBytes);
        _batmap.Clear(block);
        for (long at = place; at < place + _layout.BitmapBytes; at += VpcGeometry.SectorSize)
        {
            _ = await _bitmaps.GetNewAsync(at).ConfigureAwait(false);
        }
        _bat[block] = (uint)(place / VpcGeometry.SectorSize);
        return place;
    }

    /// <summary>Marks the sectors of a range, in one block that has a place, as held by this disk.</summary>
    private async ValueTask SetBitsAsync(long start, long end)
    {
        long place = _bat.OffsetOf(BlockOf(start))!.Value, first = InBlock(start) / VpcGeometry.SectorSize;
        long last = first + ((end - start) / VpcGeometry.SectorSize);
        while (first < last)
        {
            CachedPiece piece = await _bitmaps.GetAsync(PieceOf(place, first), CancellationToken.None).ConfigureAwait(false);
            int index = (int)(first % SectorsPerPiece), stop = (int)Math.Min(SectorsPerPiece, index + (last - first));
            VpcBits.Set(piece.Bytes, index, stop);
            _bitmaps.Changed(piece, 0, VpcGeometry.SectorSize);
            first += stop - index;
        }
        _order.DataWritten(); // a bit that reaches the disk before its sector would put something else in place of the old contents
    }

    private void Drop(VpcSpace space, int block)
    {
        long place = _bat.OffsetOf(block)!.Value;
        _bitmaps.Forget(place, _layout.BitmapBytes);
        _batmap.Clear(block);
        _bat[block] = VpcBat.Unused;
        space.Free(place);
    }

    private async ValueTask FlushLockedAsync(CancellationToken cancellationToken)
    {
        await _order.FlushAsync(cancellationToken).ConfigureAwait(false);
        foreach (long place in _space?.Release() ?? [])
        {
            await File.DiscardAsync(place, _layout.Span, cancellationToken).ConfigureAwait(false);
        }
    }

    private static long SectorStart(long offset) => offset & ~(long)(VpcGeometry.SectorSize - 1);
}
