using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Changes a disk's size. Growing: room for the table is made by moving what is in its way behind the blocks, then table, header, footers.
/// Shrinking: footers, then the header, which makes the table shorter. In between both sizes are complete disks.
/// </summary>
internal sealed class VpcResizer(VpcDisk disk, VpcCompactor compactor)
{
    private BlockNode File => disk.File;

    private long BlockSize => disk.BlockSize;

    public async ValueTask RunAsync(
        MetadataSession.Held held,
        long length,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        VpcSize.Require(length, isFixed: false, File.Name);
        length = Round.Up(length, VpcGeometry.SectorSize);
        VpcHeader.RequireFew(disk.Header.Blocks(length), BlockSize, File.Name);
        long old = disk.Length;
        if (length > old && disk.HasParent && disk.Backing is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{File.Name}: a differencing disk grows only when it is open with its parent, which could show through in the new space",
                File.Name);
        }
        await disk.RequireNothingBehindAsync("resized", Math.Max(length, disk.ClaimedEnd), cancellationToken).ConfigureAwait(false);
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        disk.ForgetStale(held);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (length > old)
        {
            await GrowAsync(held, old, length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await ShrinkAsync(held, length).ConfigureAwait(false);
        }
    }

    private async ValueTask GrowAsync(
        MetadataSession.Held held,
        long old,
        long length,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        int blocks = (int)disk.Header.Blocks(length), had = disk.Bat.Count, first = disk.Blocks;
        long tail = disk.InBlock(new(old));
        if (tail != 0 && disk.PlaceOf(first - 1) is { } last)
        {
            await File.WriteZeroesAsync(
                disk.DataAt(last, tail).Value, BlockSize - tail, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        }
        else if (tail != 0)
        {
            first--; // may get a place
        }
        (VpcFooter footer, VpcHeader before, long batmapBytes) = (disk.Footer, disk.Header, disk.Batmap.Bytes);
        try
        {
            long tableEnd = VpcLayout.TableEnd(before.TableOffset, blocks);
            VpcHeader header = before with { MaxTableEntries = Math.Max(before.MaxTableEntries, (uint)blocks) };
            if (blocks > before.MaxTableEntries)
            {
                header = header with { Locators = await ClearAsync(held, tableEnd + disk.Batmap.BytesFor(blocks)).ConfigureAwait(false) };
                before = before with { Locators = header.Locators }; // their old place is about to be the table's
            }
            if (blocks > had)
            {
                long from = header.TableOffset + (had * (long)BigBlockEntry.Size);
                byte[] unused = new byte[tableEnd - from];
                Array.Fill(unused, BigBlockEntry.Filler);
                await File.WriteAsync(from, unused, CancellationToken.None).ConfigureAwait(false);
                await disk.Batmap.MoveAsync(tableEnd, disk.Batmap.BytesFor(blocks)).ConfigureAwait(false);
                await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            }
            await disk.WriteHeaderAsync(held, header).ConfigureAwait(false);
            disk.Bat.SetCount(held, Math.Max(blocks, had), isInFile: true);
            VpcSpace space = await disk.NewSpaceAsync(held).ConfigureAwait(false); // the layout has changed; what is free is found again
            if (preallocation != PreallocationMode.Off)
            {
                await PreallocateAsync(held, space, old, length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            }
            await HideParentAsync(held, space, old, Math.Min(length, disk.HasParent ? disk.Backing!.Length : 0)).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            await SetSizeAsync(held, length).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            await TryUndoGrowthAsync(held, footer, before, batmapBytes, old, first, blocks).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Gives every block of a range a place, with no bit set, and claims host space for it as the mode says.</summary>
    private async ValueTask PreallocateAsync(
        MetadataSession.Held held,
        VpcSpace space,
        long offset,
        long end,
        PreallocationMode mode,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        byte[] zeroes = new byte[mode == PreallocationMode.Full ? 1 << 20 : 0];
        for (long at = offset - disk.InBlock(new(offset)); at < end; at += BlockSize)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int block = disk.BlockOf(new(at));
            bool isNew = disk.PlaceOf(block) is null;
            long data = disk.DataAt(await disk.PlaceOfAsync(held, space, block).ConfigureAwait(false), 0).Value;
            if (isNew && mode == PreallocationMode.Falloc)
            {
                await File.WriteZeroesAsync(data, BlockSize, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            }
            for (long done = 0; isNew && zeroes.Length > 0 && done < BlockSize; done += zeroes.Length)
            {
                await File.WriteAsync(
                    data + done,
                    zeroes.AsMemory(0, (int)Math.Min(zeroes.Length, BlockSize - done)),
                    cancellationToken).ConfigureAwait(false);
            }
            claimed?.Report(Math.Min(end, at + BlockSize) - offset);
        }
    }

    /// <summary>
    /// Growing has failed: the footers say the old size again, and the blocks that were added are given up. If that fails too, the
    /// disk has one of the two sizes, and blocks behind its end at most.
    /// </summary>
    private async ValueTask TryUndoGrowthAsync(
        MetadataSession.Held held, VpcFooter footer, VpcHeader before, long batmapBytes, long length, int first, int end)
    {
        try
        {
            if (disk.Batmap.Exists && disk.Header.MaxTableEntries == before.MaxTableEntries)
            {
                await disk.Batmap.MoveAsync(
                    VpcLayout.TableEnd(before.TableOffset, before.MaxTableEntries), batmapBytes).ConfigureAwait(false);
            }
            VpcSpace space = await disk.NewSpaceAsync(held).ConfigureAwait(false);
            await disk.WriteFootersAsync(held, footer, length).ConfigureAwait(false);
            Drop(held, space, Math.Min(first, disk.Bat.Count), Math.Min(end, disk.Bat.Count));
            await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            // else the batmap stands behind the longer table
            if (!disk.Batmap.Exists || disk.Header.MaxTableEntries == before.MaxTableEntries)
            {
                await disk.WriteHeaderAsync(held, before).ConfigureAwait(false);
                disk.Bat.SetCount(held, (int)before.MaxTableEntries, isInFile: true);
            }
            disk.Session.Space = null;
            // blocks that made room for the table move back
            await compactor.RunAsync(held, dropEmpty: false, null, CancellationToken.None).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // What went wrong first is on its way to the caller.
        }
    }

    /// <summary>
    /// Makes a range behind the disk's end its own zeroes, so that what the parent has there does not show in the new space.
    /// </summary>
    private async ValueTask HideParentAsync(MetadataSession.Held held, VpcSpace space, long offset, long end)
    {
        bool isNeeded = offset < end;
        while (offset < end)
        {
            var guest = new GuestOffset(offset);
            long within = disk.InBlock(guest), count = Math.Min(end - offset, BlockSize - within);
            HostOffset place = await disk.PlaceOfAsync(held, space, disk.BlockOf(guest)).ConfigureAwait(false);
            await File.WriteZeroesAsync(disk.DataAt(place, within).Value, count).ConfigureAwait(false);
            await disk.SetBitsAsync(held, guest, count).ConfigureAwait(false);
            offset += count;
        }
        if (isNeeded)
        {
            await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
    }

    private async ValueTask ShrinkAsync(MetadataSession.Held held, long length)
    {
        await SetSizeAsync(held, length).ConfigureAwait(false);
        int blocks = (int)disk.Header.Blocks(length);
        if (disk.Batmap.Exists) // it stands right behind the table, and would have to move with its end
        {
            Drop(held, await disk.SpaceAsync(held).ConfigureAwait(false), blocks, disk.Bat.Count);
            await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            await (await disk.NewSpaceAsync(held).ConfigureAwait(false)).TrimAsync(held).ConfigureAwait(false);
            return;
        }
        HostOffset[] dropped = [.. disk.Bat.Used().Where(e => e.Block >= blocks).Select(e => VpcLayout.PlaceOf(e.Entry))];
        await disk.WriteHeaderAsync(held, disk.Header with { MaxTableEntries = (uint)blocks }).ConfigureAwait(false);
        disk.Bat.SetCount(held, blocks, isInFile: true);
        disk.Bitmaps.Clear();
        await (await disk.NewSpaceAsync(held).ConfigureAwait(false)).TrimAsync(held).ConfigureAwait(false);
        foreach (HostOffset place in dropped.Where(p => p.Value + disk.Layout.Span <= disk.FooterOffset))
        {
            await File.DiscardAsync(place.Value, disk.Layout.Span).ConfigureAwait(false);
        }
    }

    private void Drop(MetadataSession.Held held, VpcSpace space, int first, int end)
    {
        for (int block = disk.Bat.NextUsed(first); block < end; block = disk.Bat.NextUsed(block + 1))
        {
            disk.Drop(held, space, block);
        }
    }

    /// <summary>
    /// Moves the blocks and locators that lie between the table and <paramref name="end"/> elsewhere; returns the locators.
    /// </summary>
    private async ValueTask<IReadOnlyList<VpcLocator>> ClearAsync(MetadataSession.Held held, long end)
    {
        long start = disk.Header.TableOffset, headerAt = (long)disk.Footer.DataOffset;
        if (headerAt >= start && headerAt < end)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{File.Name}: the dynamic header lies behind the block allocation table, which cannot grow "
                    + $"over it. Convert the disk to a new one.",
                File.Name,
                headerAt);
        }
        await disk.Maintenance.ClearAsync(held, start, end, CancellationToken.None).ConfigureAwait(false);
        VpcSpace space = await disk.NewSpaceAsync(held).ConfigureAwait(false);
        VpcLocator[] locators = [.. disk.Header.Locators];
        long least = end;
        for (int i = 0; i < locators.Length; i++)
        {
            VpcLocator locator = locators[i];
            if (locator.HasData(File.Length) && locator.Extent.Start < end && locator.Extent.End > start)
            {
                HostOffset place = await space.AllocateSectorsAsync(held, locator.DataLength, least).ConfigureAwait(false);
                least = place.Value + Round.Up(locator.DataLength, VpcGeometry.SectorSize);
                locators[i] = locator with { DataOffset = (ulong)place.Value };
                await StoredBytes.CopyAsync(
                    disk.File,
                    locator.Extent.Start,
                    place.Value,
                    locator.Extent.End - locator.Extent.Start,
                    CancellationToken.None).ConfigureAwait(false);
            }
        }
        return locators;
    }

    private ValueTask SetSizeAsync(MetadataSession.Held held, long length)
    {
        (VpcGeometry geometry, string creator) = VpcSize.Exactly(length, disk.Footer.CreatorApplication);
        return disk.WriteFootersAsync(
            held, disk.Footer with { CurrentSize = length, Geometry = geometry, CreatorApplication = creator }, length);
    }
}
