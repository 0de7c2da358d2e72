using System.Buffers;
using System.Runtime.InteropServices;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Making the disk longer or shorter, moving the BAT, cutting the file. Spec: MS-VHDX 2.5, 2.6.2.2.</summary>
/// <remarks>
/// Growing prepares what lies past the old end first and changes the size last; shrinking changes the size first and clears what lies
/// past it then. So a crash leaves a disk of one of the two sizes, and leaked space at most.
/// </remarks>
internal sealed partial class VhdxNode
{
    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (length > VhdxLayout.MaxVirtualSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: cannot be {length:#,0} bytes long; a VHDX has at most {VhdxLayout.MaxVirtualSize:#,0} (64T)", Name);
        }
        if (length % _geometry.SectorSize != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: a size of {length:#,0} bytes is not possible; allowed: multiples of {_geometry.SectorSize}, its logical sector", Name);
        }
        VhdxGeometry wanted = _geometry.WithSize(length);
        return AloneAsync(() => UnderGateAsync(async () =>
        {
            if (wanted.VirtualSize == Length)
            {
                return;
            }
            await BeginAsync(isVisible: true).ConfigureAwait(false);
            _ = await SpaceAsync().ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false); // the BAT in the file is now the BAT
            if (wanted.VirtualSize < Length)
            {
                await ShrinkAsync(wanted, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await GrowAsync(wanted, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            }
        }));
    }

    private async ValueTask GrowAsync(VhdxGeometry wanted, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        VhdxGeometry old = _geometry;
        long entries = _metadata.HasParent ? wanted.EntriesWithBitmaps : wanted.EntriesWithoutBitmaps;
        if (entries * VhdxGeometry.EntryBytes > _regions.Bat.Length)
        {
            await MoveBatAsync(entries * VhdxGeometry.EntryBytes).ConfigureAwait(false);
        }
        try
        {
            _geometry = wanted;
            await ClearEntriesAsync(old, wanted.EntriesWithBitmaps, givenUp: null, cancellationToken).ConfigureAwait(false);
            await ClearTailOfLastBlockAsync(old).ConfigureAwait(false);
            bool hasPlaces = _metadata.IsFixed || preallocation is PreallocationMode.Falloc or PreallocationMode.Full;
            for (long block = old.Blocks; block < wanted.Blocks && (hasPlaces || _metadata.HasParent); block++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                BatEntry entry = hasPlaces
                    ? new BatEntry(BlockState.FullyPresent, await AllocateAsync(wanted.BlockSize, preallocation).ConfigureAwait(false))
                    : new BatEntry(BlockState.Zero); // not what a longer parent holds there
                await SetEntryAsync(wanted.PayloadIndex(block), entry).ConfigureAwait(false);
                claimed?.Report(Math.Min(wanted.VirtualSize, wanted.StartOf(block) + wanted.BlockSize) - old.VirtualSize);
            }
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await WriteSizeAsync(wanted.VirtualSize).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            await ShrinkBackAsync(old).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Takes back a growth that failed or was cancelled. If that fails too, space is leaked: the first failure is what counts.</summary>
    private async ValueTask ShrinkBackAsync(VhdxGeometry old)
    {
        try
        {
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            await ShrinkAsync(old, CancellationToken.None).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // what made the growth fail is on its way already
        }
        finally
        {
            _geometry = old;
        }
    }

    private async ValueTask ShrinkAsync(VhdxGeometry wanted, CancellationToken cancellationToken)
    {
        VhdxGeometry old = _geometry;
        await WriteSizeAsync(wanted.VirtualSize).ConfigureAwait(false);
        _geometry = wanted;
        await ClearEntriesAsync(wanted, old.EntriesWithBitmaps, givenUp: old, cancellationToken).ConfigureAwait(false);
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        await TruncateAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes what the last block gains read as zeroes.</summary>
    private async ValueTask ClearTailOfLastBlockAsync(VhdxGeometry old)
    {
        if (old.Blocks == 0 || old.BytesOf(old.Blocks - 1) == _geometry.BytesOf(old.Blocks - 1))
        {
            return;
        }
        long block = old.Blocks - 1, start = old.VirtualSize, end = _geometry.StartOf(block) + _geometry.BytesOf(block);
        BatEntry entry = await EntryAsync(_geometry.PayloadIndex(block), CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent && _metadata.HasParent)
        {
            entry = await AddPartialAsync(block).ConfigureAwait(false);
        }
        if (!entry.IsStored)
        {
            return;
        }
        long host = entry.FileOffset + _geometry.InBlock(start);
        await File.WriteZeroesAsync(host, Math.Min(File.Length, host + (end - start)) - host).ConfigureAwait(false);
        if (host + (end - start) > File.Length)
        {
            await File.ResizeAsync(host + (end - start)).ConfigureAwait(false);
        }
        if (entry.State == BlockState.PartiallyPresent)
        {
            await SetSectorsAsync(entry, block, start, end).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Clears the entries that have no meaning in a disk of a size, up to index <paramref name="end"/>, in one entry of the log, and
    /// gives up what those refer to that were in use. The cache holds no changes.
    /// </summary>
    /// <param name="size">The disk of that size.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="givenUp">The disk whose entries were in use; null to give nothing up. What a stale entry names may live.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    private async ValueTask ClearEntriesAsync(VhdxGeometry size, long end, VhdxGeometry? givenUp, CancellationToken cancellationToken)
    {
        long bat = _regions.Bat.Offset, from = size.EntriesWithoutBitmaps;
        long kept = _metadata.HasParent && size.Chunks > 0 ? size.BitmapIndex(size.Chunks - 1) : -1; // the last chunk's bitmap stays
        bool isClear = true;
        await EachBatPartAsync(Math.Min(end, _regions.Bat.Length / VhdxGeometry.EntryBytes), (firstIndex, entries) =>
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(entries.Span);
            for (int i = (int)Math.Clamp(from - firstIndex, 0, words.Length); i < words.Length; i++)
            {
                if (words[i] != 0 && firstIndex + i != kept)
                {
                    isClear = false;
                    GiveUpEntry(firstIndex + i, new BatEntry(LittleEndian.U64(entries.Span, i * VhdxGeometry.EntryBytes)), givenUp);
                }
            }
        }, cancellationToken).ConfigureAwait(false);
        if (isClear)
        {
            return;
        }
        long start = from * VhdxGeometry.EntryBytes, wholeStart = Round.Up(start, VhdxLayout.Sector);
        long wholeEnd = Round.Up(Math.Min(end * VhdxGeometry.EntryBytes, _regions.Bat.Length), VhdxLayout.Sector);
        var patch = new VhdxPatch(File);
        await patch.PutAsync(bat + start, new byte[wholeStart - start]).ConfigureAwait(false);
        if (kept >= from && HasEntry(kept))
        {
            byte[] sector = new byte[VhdxLayout.Sector];
            BatEntry entry = await EntryAsync(kept, cancellationToken).ConfigureAwait(false);
            LittleEndian.U64(sector, (int)(kept * VhdxGeometry.EntryBytes % VhdxLayout.Sector), entry.Raw);
            long at = kept * VhdxGeometry.EntryBytes, page = Round.Down(at, VhdxLayout.Sector);
            ReadOnlyMemory<byte> bytes = page >= wholeStart ? sector : sector.AsMemory((int)(at - page), VhdxGeometry.EntryBytes);
            await patch.PutAsync(bat + (page >= wholeStart ? page : at), bytes).ConfigureAwait(false);
        }
        VhdxLogUpdate[] zeroes = wholeEnd > wholeStart ? [VhdxLogUpdate.Zeroes(bat + wholeStart, wholeEnd - wholeStart)] : [];
        await _log!.WriteAsync([.. zeroes, .. patch.Updates]).ConfigureAwait(false);
        _cache.Clear();
    }

    private void GiveUpEntry(long index, BatEntry entry, VhdxGeometry? old)
    {
        if (old is null || entry.FileOffset < VhdxLayout.MiB || !old.IsInUse(index, _metadata.HasParent))
        {
            return;
        }
        if (!old.IsBitmapIndex(index))
        {
            GiveUp(entry);
        }
        else if (_metadata.HasParent && entry.State == BlockState.FullyPresent)
        {
            _space!.FreeAfterFlush(entry.FileOffset, VhdxLayout.BitmapBlockSize);
        }
    }

    /// <summary>Gives the BAT a larger region at the end of the file.</summary>
    private async ValueTask MoveBatAsync(long bytes)
    {
        VhdxRegion old = _regions.Bat;
        long length = Round.Up(bytes, VhdxLayout.MiB), used = EntriesInUse * VhdxGeometry.EntryBytes;
        VhdxRegion bat = old with { Offset = await AllocateAsync(length).ConfigureAwait(false), Length = length };
        await CopyAsync(old.Offset, bat.Offset, Math.Min(old.Length, Round.Up(used, VhdxLayout.Sector))).ConfigureAwait(false);
        VhdxRegionTable regions = _regions.With(bat);
        var patch = new VhdxPatch(File);
        for (int i = 0; i < 2; i++)
        {
            await patch.PutAsync(VhdxRegionTable.PlaceOf(i), regions.Bytes).ConfigureAwait(false);
        }
        await _log!.WriteAsync(patch.Updates).ConfigureAwait(false);
        _cache.Clear();
        _regions = regions;
        _space!.FreeAfterFlush(old.Offset, old.Length);
    }

    private async ValueTask WriteSizeAsync(long size)
    {
        byte[] bytes = new byte[8];
        LittleEndian.U64(bytes, 0, (ulong)size);
        await WriteItemsAsync([(VhdxItem.VirtualDiskSize, bytes)]).ConfigureAwait(false);
    }

    /// <summary>Cuts off what lies past the last used MiB. A fixed disk keeps the room that all of its blocks need. Spec: 2.6.2.1.</summary>
    private async ValueTask TruncateAsync(CancellationToken cancellationToken)
    {
        long end = _space!.End;
        if (_metadata.IsFixed)
        {
            long places = 0;
            await EachBatPartAsync(_geometry.EntriesWithoutBitmaps, (_, entries) =>
            {
                foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(entries.Span))
                {
                    places += new BatEntry(word).IsStored ? 1 : 0;
                }
            }, cancellationToken).ConfigureAwait(false);
            end += (_geometry.Blocks - places) * _geometry.BlockSize;
        }
        if (end < File.Length)
        {
            await _log!.AnnounceLengthAsync(end).ConfigureAwait(false);
            await File.ResizeAsync(end, PreallocationMode.Off, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Copies bytes of the file to a place that reads as zeroes; holes stay holes.</summary>
    private async ValueTask CopyAsync(long from, long to, long length, CancellationToken cancellationToken = default)
    {
        length = Math.Min(length, File.Length - from);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            for (long done = 0; done < length;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                BlockExtent extent = await File.GetExtentAsync(from + done, length - done, cancellationToken).ConfigureAwait(false);
                if (!extent.IsZero)
                {
                    Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, extent.Length));
                    await File.ReadAsync(from + done, part, cancellationToken).ConfigureAwait(false);
                    await File.WriteAsync(to + done, part, cancellationToken).ConfigureAwait(false);
                    extent = extent with { Length = part.Length };
                }
                done += extent.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
