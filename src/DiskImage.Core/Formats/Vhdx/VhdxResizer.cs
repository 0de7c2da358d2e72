using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Makes a disk longer or shorter, and moves its BAT. Spec: MS-VHDX 2.5, 2.6.2.2.</summary>
/// <remarks>
/// Growing prepares what lies past the old end first and changes the size last; shrinking changes the size first and clears what lies
/// past it then. So a crash leaves a disk of one of the two sizes, and leaked space at most.
/// </remarks>
internal sealed class VhdxResizer(VhdxDisk disk)
{
    private VhdxBat Bat => disk.Bat;

    public async ValueTask RunAsync(
        MetadataSession.Held held,
        long length,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        if (length > VhdxLayout.MaxVirtualSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: cannot be {length:#,0} bytes long; a VHDX has at most {VhdxLayout.MaxVirtualSize:#,0} (64T)",
                disk.Name);
        }
        if (length % disk.Geometry.SectorSize != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: a size of {length:#,0} bytes is not possible; allowed: multiples of "
                    + $"{disk.Geometry.SectorSize}, its logical sector",
                disk.Name);
        }
        VhdxGeometry wanted = disk.Geometry.WithSize(length);
        long now = disk.Geometry.VirtualSize;
        if (length == now)
        {
            return;
        }
        await disk.BeginAsync(held, isVisible: true).ConfigureAwait(false);
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false); // the BAT in the file is now the BAT
        if (length < now)
        {
            await ShrinkAsync(held, wanted, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await GrowAsync(held, wanted, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Gives the BAT a larger region at the end of the file, if it has no room for a number of entries.</summary>
    public async ValueTask MakeRoomAsync(MetadataSession.Held held, long entries)
    {
        VhdxRegion old = disk.Regions.Bat;
        if (entries * VhdxGeometry.EntryBytes <= old.Length)
        {
            return;
        }
        long length = Round.Up(entries * VhdxGeometry.EntryBytes, VhdxLayout.MiB), used = Bat.EntriesInUse * VhdxGeometry.EntryBytes;
        HostOffset place = await disk.AllocateAsync(held, length).ConfigureAwait(false);
        long copied = Math.Min(old.Length, Round.Up(used, VhdxLayout.Sector));
        await StoredBytes.CopyAsync(disk.File, old.Offset, place.Value, copied, CancellationToken.None).ConfigureAwait(false);
        await disk.WriteRegionsAsync(held, disk.Regions.With(old with { Offset = place.Value, Length = length })).ConfigureAwait(false);
        disk.Cache.Clear();
        disk.Space.FreeAfterFlush(held, old.Offset, old.Length);
    }

    private async ValueTask GrowAsync(
        MetadataSession.Held held,
        VhdxGeometry wanted,
        PreallocationMode preallocation,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        VhdxGeometry old = disk.Geometry;
        await MakeRoomAsync(held, disk.HasParent ? wanted.EntriesWithBitmaps : wanted.EntriesWithoutBitmaps).ConfigureAwait(false);
        try
        {
            disk.SetGeometry(held, wanted);
            await ClearEntriesAsync(held, old, wanted.EntriesWithBitmaps, givenUp: null, cancellationToken).ConfigureAwait(false);
            await ClearTailOfLastBlockAsync(held, old).ConfigureAwait(false);
            bool hasPlaces = disk.Metadata.IsFixed || preallocation is PreallocationMode.Falloc or PreallocationMode.Full;
            for (long block = old.Blocks; block < wanted.Blocks && (hasPlaces || disk.HasParent); block++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                BatEntry entry = hasPlaces
                    ? new BatEntry(
                        BlockState.FullyPresent, await disk.AllocateAsync(held, wanted.BlockSize, preallocation).ConfigureAwait(false))
                    : new BatEntry(BlockState.Zero); // not what a longer parent holds there
                await Bat.SetPayloadAsync(held, block, entry).ConfigureAwait(false);
                claimed?.Report(Math.Min(wanted.VirtualSize, wanted.StartOf(block) + wanted.BlockSize) - old.VirtualSize);
            }
            await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await WriteSizeAsync(held, wanted.VirtualSize).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            await ShrinkBackAsync(held, old).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>
    /// Takes back a growth that failed or was cancelled. If that fails too, space is leaked: the first failure is what counts.
    /// </summary>
    private async ValueTask ShrinkBackAsync(MetadataSession.Held held, VhdxGeometry old)
    {
        try
        {
            await disk.Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            await ShrinkAsync(held, old, CancellationToken.None).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // what made the growth fail is on its way already
        }
        finally
        {
            disk.SetGeometry(held, old);
        }
    }

    private async ValueTask ShrinkAsync(MetadataSession.Held held, VhdxGeometry wanted, CancellationToken cancellationToken)
    {
        VhdxGeometry old = disk.Geometry;
        await WriteSizeAsync(held, wanted.VirtualSize).ConfigureAwait(false);
        disk.SetGeometry(held, wanted);
        await ClearEntriesAsync(held, wanted, old.EntriesWithBitmaps, givenUp: old, cancellationToken).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await disk.TruncateAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes what the last block gains read as zeroes.</summary>
    private async ValueTask ClearTailOfLastBlockAsync(MetadataSession.Held held, VhdxGeometry old)
    {
        long block = old.Blocks - 1;
        if (old.Blocks == 0 || old.BytesOf(block) == disk.Geometry.BytesOf(block))
        {
            return;
        }
        var start = new GuestOffset(old.VirtualSize);
        long length = disk.Geometry.StartOf(block) + disk.Geometry.BytesOf(block) - start.Value;
        BatEntry entry = await Bat.PayloadAsync(block, CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent && disk.HasParent)
        {
            entry = await Bat.AddPartialAsync(held, block).ConfigureAwait(false);
        }
        if (!entry.IsStored)
        {
            return;
        }
        long host = (entry.Place + disk.Geometry.InBlock(start)).Value;
        await disk.File.WriteZeroesAsync(host, Math.Min(disk.File.Length, host + length) - host).ConfigureAwait(false);
        if (host + length > disk.File.Length)
        {
            await disk.File.ResizeAsync(host + length).ConfigureAwait(false);
        }
        if (entry.State == BlockState.PartiallyPresent)
        {
            await Bat.SetSectorsAsync(held, entry, block, start, length).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Clears the entries that have no meaning in a disk of a size, up to index <paramref name="end"/>, in one entry of the log, and
    /// gives up what those refer to that were in use. The cache holds no changes.
    /// </summary>
    /// <param name="held">The lock.</param>
    /// <param name="size">The disk of that size.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="givenUp">The disk whose entries were in use; null to give nothing up. What a stale entry names may live.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    private async ValueTask ClearEntriesAsync(
        MetadataSession.Held held, VhdxGeometry size, long end, VhdxGeometry? givenUp, CancellationToken cancellationToken)
    {
        long bat = disk.Regions.Bat.Offset, from = size.EntriesWithoutBitmaps;
        long kept = disk.HasParent && size.Chunks > 0 ? size.BitmapIndex(size.Chunks - 1) : -1; // the last chunk's bitmap stays
        bool isClear = true;
        await Bat.EachAsync(
            Math.Min(end, disk.Regions.Bat.Length / VhdxGeometry.EntryBytes),
            (index, entry) =>
            {
                if (index >= from && index != kept)
                {
                    isClear = false;
                    GiveUp(held, index, entry, givenUp);
                }
            },
            cancellationToken).ConfigureAwait(false);
        if (isClear)
        {
            return;
        }
        long start = from * VhdxGeometry.EntryBytes, wholeStart = Round.Up(start, VhdxLayout.Sector);
        long wholeEnd = Round.Up(Math.Min(end * VhdxGeometry.EntryBytes, disk.Regions.Bat.Length), VhdxLayout.Sector);
        var patch = new VhdxPatch(disk.File);
        await patch.PutAsync(bat + start, new byte[wholeStart - start]).ConfigureAwait(false);
        if (kept >= from && Bat.HasEntry(kept))
        {
            byte[] sector = new byte[VhdxLayout.Sector];
            BatEntry entry = await Bat.EntryAsync(kept, cancellationToken).ConfigureAwait(false);
            LittleEndian.U64(sector, (int)(kept * VhdxGeometry.EntryBytes % VhdxLayout.Sector), entry.Raw);
            long at = kept * VhdxGeometry.EntryBytes, page = Round.Down(at, VhdxLayout.Sector);
            ReadOnlyMemory<byte> bytes = page >= wholeStart ? sector : sector.AsMemory((int)(at - page), VhdxGeometry.EntryBytes);
            await patch.PutAsync(bat + (page >= wholeStart ? page : at), bytes).ConfigureAwait(false);
        }
        VhdxLogUpdate[] zeroes = wholeEnd > wholeStart ? [VhdxLogUpdate.Zeroes(bat + wholeStart, wholeEnd - wholeStart)] : [];
        await disk.Log.WriteAsync([.. zeroes, .. patch.Updates]).ConfigureAwait(false);
        disk.Cache.Clear();
    }

    private void GiveUp(MetadataSession.Held held, long index, BatEntry entry, VhdxGeometry? old)
    {
        if (old is null || entry.FileOffset < VhdxLayout.MiB || !old.IsInUse(index, disk.HasParent))
        {
            return;
        }
        if (!old.IsBitmapIndex(index))
        {
            Bat.GiveUp(held, entry);
        }
        else if (disk.HasParent && entry.State == BlockState.FullyPresent)
        {
            disk.Space.FreeAfterFlush(held, entry.FileOffset, VhdxLayout.BitmapBlockSize);
        }
    }

    private ValueTask WriteSizeAsync(MetadataSession.Held held, long size)
    {
        byte[] bytes = new byte[8];
        LittleEndian.U64(bytes, 0, (ulong)size);
        return new VhdxMetadataWriter(disk).WriteAsync(held, [(VhdxItem.VirtualDiskSize, bytes)]);
    }
}
