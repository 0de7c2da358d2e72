using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Changing the size. Growing: room for the table is made by moving what is in its way behind the blocks, then table, header, footers. Shrinking:
/// footers, then the header, which makes the table shorter. In between both sizes are complete disks.
/// </summary>
internal sealed partial class VpcNode
{
    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        VpcSize.Require(length, isFixed: false, Name);
        length = Round.Up(length, VpcGeometry.SectorSize);
        VpcHeader.RequireFew(_header.Blocks(length), BlockSize, Name);
        long old = Length;
        if (length > old && HasParent && Backing is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: a differencing disk grows only when it is open with its parent, which could show through in the new space",
                Name);
        }
        await UnderGateAsync(async () =>
        {
            await RequireNothingBehindAsync("resized", Math.Max(length, ClaimedEnd), cancellationToken).ConfigureAwait(false);
            VpcSpace space = await SpaceAsync().ConfigureAwait(false);
            ForgetStale();
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            if (length > old)
            {
                await GrowAsync(space, old, length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await ShrinkAsync(space, length).ConfigureAwait(false);
            }
        }).ConfigureAwait(false);
    });

    /// <summary>Gives every block of a range a place, with no bit set, and claims host space for it as the mode says.</summary>
    private async ValueTask PreallocateAsync(
        VpcSpace space, long offset, long end, PreallocationMode mode, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        byte[] zeroes = new byte[mode == PreallocationMode.Full ? 1 << 20 : 0];
        for (long at = offset - InBlock(offset); at < end; at += BlockSize)
        {
            cancellationToken.ThrowIfCancellationRequested();
            bool isNew = _bat.OffsetOf(BlockOf(at)) is null;
            long data = await PlaceOfAsync(space, BlockOf(at)).ConfigureAwait(false) + _layout.BitmapBytes;
            if (isNew && mode == PreallocationMode.Falloc)
            {
                await File.WriteZeroesAsync(data, BlockSize, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            }
            for (long done = 0; isNew && zeroes.Length > 0 && done < BlockSize; done += zeroes.Length)
            {
                await File.WriteAsync(data + done, zeroes.AsMemory(0, (int)Math.Min(zeroes.Length, BlockSize - done)), cancellationToken).ConfigureAwait(false);
            }
            claimed?.Report(Math.Min(end, at + BlockSize) - offset);
        }
    }

    private async ValueTask GrowAsync(
        VpcSpace space, long old, long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        int blocks = (int)_header.Blocks(length), had = _bat.Count, first = DiskBlocks;
        if (InBlock(old) != 0 && _bat.OffsetOf(first - 1) is long last)
        {
            await File.WriteZeroesAsync(last + _layout.BitmapBytes + InBlock(old), BlockSize - InBlock(old), cancellationToken: CancellationToken.None).ConfigureAwait(false);
        }
        else if (InBlock(old) != 0)
        {
            first--; // may get a place
        }
        (VpcFooter footer, VpcHeader before, long batmapBytes) = (Footer, _header, _batmap.Bytes);
        try
        {
            long tableEnd = VpcLayout.TableEnd(_header.TableOffset, blocks);
            VpcHeader header = _header with { MaxTableEntries = Math.Max(_header.MaxTableEntries, (uint)blocks) };
            if (blocks > _header.MaxTableEntries)
            {
                header = header with { Locators = await ClearAsync(space, tableEnd + _batmap.BytesFor(blocks)).ConfigureAwait(false) };
                before = before with { Locators = header.Locators }; // their old place is about to be the table's
            }
            if (blocks > had)
            {
                long from = _header.TableOffset + (had * 4L);
                byte[] unused = new byte[tableEnd - from];
                Array.Fill(unused, (byte)0xFF);
                await File.WriteAsync(from, unused, CancellationToken.None).ConfigureAwait(false);
                await _batmap.MoveAsync(tableEnd, _batmap.BytesFor(blocks)).ConfigureAwait(false);
                await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            }
            await WriteHeaderAsync(header).ConfigureAwait(false);
            _bat.SetCount(Math.Max(blocks, had));
            space = await NewSpaceAsync().ConfigureAwait(false); // the layout has changed; what is free is found again
            if (preallocation != PreallocationMode.Off)
            {
                await PreallocateAsync(space, old, length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            }
            await HideParentAsync(space, old, Math.Min(length, HasParent ? Backing!.Length : 0)).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            await SetSizeAsync(space, length).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            await TryUndoGrowthAsync(footer, before, batmapBytes, old, first, blocks).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Growing has failed: the footers say the old size again, and the blocks that were added are given up. If that fails too, the disk has
    /// one of the two sizes, and blocks behind its end at most.</summary>
    private async ValueTask TryUndoGrowthAsync(VpcFooter footer, VpcHeader before, long batmapBytes, long length, int first, int end)
    {
        try
        {
            if (_batmap.Exists && _header.MaxTableEntries == before.MaxTableEntries)
            {
                await _batmap.MoveAsync(VpcLayout.TableEnd(before.TableOffset, before.MaxTableEntries), batmapBytes).ConfigureAwait(false);
            }
            VpcSpace space = await NewSpaceAsync().ConfigureAwait(false);
            await WriteFootersAsync(space, footer, length).ConfigureAwait(false);
            for (int block = _bat.NextUsed(Math.Min(first, _bat.Count)); block < Math.Min(end, _bat.Count); block = _bat.NextUsed(block + 1))
            {
                Drop(space, block);
            }
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            if (!_batmap.Exists || _header.MaxTableEntries == before.MaxTableEntries) // else the batmap stands behind the longer table
            {
                await WriteHeaderAsync(before).ConfigureAwait(false);
                _bat.SetCount((int)before.MaxTableEntries);
            }
            _space = null;
            await CompactLockedAsync(dropEmpty: false, null, CancellationToken.None).ConfigureAwait(false); // blocks that made room for the table move back
        }
        catch (DiskImageException)
        {
            // What went wrong first is on its way to the caller.
        }
    }

    /// <summary>Makes a range behind the disk's end its own zeroes, so that what the parent has there does not show in the new space.</summary>
    private async ValueTask HideParentAsync(VpcSpace space, long offset, long end)
    {
        bool isNeeded = offset < end;
        for (; offset < end; offset += BlockSize - InBlock(offset))
        {
            long stop = Math.Min(end, offset - InBlock(offset) + BlockSize);
            long place = await PlaceOfAsync(space, BlockOf(offset)).ConfigureAwait(false);
            await File.WriteZeroesAsync(place + _layout.BitmapBytes + InBlock(offset), stop - offset).ConfigureAwait(false);
            await SetBitsAsync(offset, stop).ConfigureAwait(false);
        }
        if (isNeeded)
        {
            await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    private async ValueTask ShrinkAsync(VpcSpace space, long length)
    {
        await SetSizeAsync(space, length).ConfigureAwait(false);
        int blocks = (int)_header.Blocks(length);
        if (_batmap.Exists) // it stands right behind the table, and would have to move with its end
        {
            for (int block = _bat.NextUsed(blocks); block < _bat.Count; block = _bat.NextUsed(block + 1))
            {
                Drop(space, block);
            }
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            await (await NewSpaceAsync().ConfigureAwait(false)).TrimAsync(Footer).ConfigureAwait(false);
            return;
        }
        var dropped = new List<long>();
        for (int block = _bat.NextUsed(blocks); block < _bat.Count; block = _bat.NextUsed(block + 1))
        {
            dropped.Add(_bat.OffsetOf(block)!.Value);
        }
        await WriteHeaderAsync(_header with { MaxTableEntries = (uint)blocks }).ConfigureAwait(false);
        _bat.SetCount(blocks);
        _bitmaps.Clear();
        await (await NewSpaceAsync().ConfigureAwait(false)).TrimAsync(Footer).ConfigureAwait(false);
        foreach (long place in dropped.Where(p => p + _layout.Span <= File.Length - VpcFooter.Length))
        {
            await File.DiscardAsync(place, _layout.Span).ConfigureAwait(false);
        }
    }

    /// <summary>Moves the blocks and locators that lie between the table and <paramref name="end"/> elsewhere; returns the locators.</summary>
    private async ValueTask<IReadOnlyList<VpcLocator>> ClearAsync(VpcSpace space, long end)
    {
        long start = _header.TableOffset;
        if ((long)Footer.DataOffset >= start && (long)Footer.DataOffset < end)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: the dynamic header lies behind the block allocation table, which cannot grow over it. Convert the disk to a new one.",
                Name,
                (long)Footer.DataOffset);
        }
        space.KeepClear(end);
        for (int block = _bat.NextUsed(0); block < _bat.Count; block = _bat.NextUsed(block + 1))
        {
            long place = _bat.OffsetOf(block)!.Value;
            if (place < end && place >= start)
            {
                await MoveAsync(block, await space.AllocateAsync(Footer).ConfigureAwait(false)).ConfigureAwait(false);
            }
        }
        await File.FlushAsync().ConfigureAwait(false);
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        VpcLocator[] locators = [.. _header.Locators];
        for (int i = 0; i < locators.Length; i++)
        {
            VpcLocator locator = locators[i];
            if (locator.IsUsed && locator.DataLength > 0 && locator.Fault(File.Length) is null && locator.Extent.Start < end && locator.Extent.End > start)
            {
                long place = await space.AllocateSectorsAsync(locator.DataLength, end, Footer).ConfigureAwait(false);
                space.KeepClear(place + Round.Up(locator.DataLength, VpcGeometry.SectorSize));
                locators[i] = locator with { DataOffset = (ulong)place };
                await CopyAsync(locator.Extent.Start, place, locator.Extent.End - locator.Extent.Start).ConfigureAwait(false);
            }
        }
        return locators;
    }

    /// <summary>Copies a block to a place that reads as zeroes and makes the table point there. Its bitmap must be flushed.</summary>
    private async ValueTask MoveAsync(int block, long place)
    {
        long old = _bat.OffsetOf(block)!.Value;
        await CopyAsync(old, place, _layout.Span).ConfigureAwait(false);
        _order.DataWritten();
        _bitmaps.Forget(old, _layout.BitmapBytes);
        _bitmaps.Forget(place, _layout.BitmapBytes);
        _bat[block] = (uint)(place / VpcGeometry.SectorSize);
    }

    /// <summary>Copies bytes of the file to a place that reads as zeroes; holes stay holes.</summary>
    private async ValueTask CopyAsync(long from, long to, long length)
    {
        byte[] buffer = System.Buffers.ArrayPool<byte>.Shared.Rent((int)Math.Min(length, 1 << 20));
        try
        {
            for (long at = 0; at < length && from + at < File.Length;)
            {
                long left = Math.Min(length - at, File.Length - from - at);
                BlockExtent extent = await File.GetExtentAsync(from + at, left).ConfigureAwait(false);
                int count = (int)Math.Min(extent.Length, buffer.Length);
                if (extent.IsZero)
                {
                    at += extent.Length;
                    continue;
                }
                await File.ReadAsync(from + at, buffer.AsMemory(0, count)).ConfigureAwait(false);
                await File.WriteAsync(to + at, buffer.AsMemory(0, count)).ConfigureAwait(false);
                at += count;
            }
        }
        finally
        {
            System.Buffers.ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private ValueTask SetSizeAsync(VpcSpace space, long length)
    {
        (VpcGeometry geometry, string creator) = VpcSize.Exactly(length, Footer.CreatorApplication);
        return WriteFootersAsync(space, Footer with { CurrentSize = length, Geometry = geometry, CreatorApplication = creator }, length);
    }

    /// <summary>Writes the footer at the end, which counts, and then its copy.</summary>
    private async ValueTask WriteFootersAsync(VpcSpace space, VpcFooter footer, long length)
    {
        byte[] bytes = footer.ToBytes();
        await File.WriteAsync(space.FooterOffset, bytes).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        await File.WriteAsync(0, bytes).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _footers = new VpcFooters(footer, VpcFooter.Length, footer);
        Volatile.Write(ref _length, length);
    }

    private async ValueTask WriteHeaderAsync(VpcHeader header)
    {
        await File.WriteAsync((long)Footer.DataOffset, header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _header = header with { IsChecksumRight = true };
        _layout = new VpcLayout(Footer, _header, File.Length, _batmap);
    }

    /// <summary>Refuses a change that would show or lose what is stored between the disk's end and another: its other size, or its table, may mean it.</summary>
    private async ValueTask RequireNothingBehindAsync(string what, long end, CancellationToken cancellationToken)
    {
        int block = _bat.NextUsed(DiskBlocks);
        long? behind = block < Math.Min(_bat.Count, _header.Blocks(end)) ? block * BlockSize : await DataInLastBlockAsync(cancellationToken).ConfigureAwait(false);
        if (behind is long offset)
        {
            throw VpcSize.Behind(Name, what, Length, Footer.CurrentSize, offset);
        }
    }

    /// <summary>The first byte between the end of the disk and its current size that is not zero, in the disk's last block.</summary>
    private async ValueTask<long?> DataInLastBlockAsync(CancellationToken cancellationToken)
    {
        int last = DiskBlocks - 1;
        long start = Length, end = Math.Min(ClaimedEnd, (last + 1) * BlockSize);
        if (start >= end || _bat.OffsetOf(last) is not long place)
        {
            return null;
        }
        byte[] buffer = new byte[Math.Min(BlockSize, 1 << 20)];
        long host = place + _layout.BitmapBytes + InBlock(start);
        return await IsZeroInFileAsync(host, Math.Min(end - start, File.Length - host), buffer, cancellationToken).ConfigureAwait(false) ? null : start;
    }

    /// <summary>Clears the entries behind the last block that cannot be blocks; with the next flush.</summary>
    private void ForgetStale()
    {
        if (_stale.Count > 0)
        {
            _bat.Rewrite(DiskBlocks);
            _stale = VpcStaleEntries.None;
        }
    }
}
