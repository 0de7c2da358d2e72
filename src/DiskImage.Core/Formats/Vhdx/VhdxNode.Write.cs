using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Writing: finding or making a place, and setting the bits of sectors once they are written.</summary>
internal sealed partial class VhdxNode
{
    /// <summary>Space that waits for a flush before it can be used again; beyond this the flush is not left to the user. Ours.</summary>
    private const long MaxWaiting = 1L << 30;

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await BeginChangeAsync().ConfigureAwait(false);
            long block = _geometry.BlockOf(offset);
            BatEntry entry = await EntryAsync(_geometry.PayloadIndex(block), cancellationToken).ConfigureAwait(false);
            long covered = Math.Min(length, _geometry.StartOf(block) + _geometry.BytesOf(block) - offset);
            if (entry.State == BlockState.NotPresent && _metadata.HasParent)
            {
                return covered == _geometry.BytesOf(block)
                    ? await WholeBlockAsync(offset, covered).ConfigureAwait(false)
                    : await IntoSectorsAsync(await AddPartialAsync(block).ConfigureAwait(false), block, offset, covered, isFresh: true).ConfigureAwait(false);
            }
            if (entry.State == BlockState.PartiallyPresent && _metadata.HasParent)
            {
                RequirePayload(entry, block);
                return await IntoSectorsAsync(entry, block, offset, covered, isFresh: false).ConfigureAwait(false);
            }
            if (entry.ReadsZero || entry.State == BlockState.NotPresent)
            {
                entry = await AddZeroAsync(block, entry).ConfigureAwait(false);
            }
            else if (entry.State != BlockState.FullyPresent)
            {
                throw Wrong(block, $"has the state {(int)entry.State}, so nothing can be written to it");
            }
            covered = await JoinAsync(entry, block, offset, covered, length).ConfigureAwait(false);
            RequirePlace(entry.FileOffset + _geometry.InBlock(offset), covered, $"payload block {block}");
            return WriteMapping.InPlace(offset, covered, File, entry.FileOffset + _geometry.InBlock(offset));
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override ValueTask CommitMappingAsync(WriteMapping mapping) => UnderGateAsync(async () =>
    {
        long block = _geometry.BlockOf(mapping.CopyStart);
        BatEntry entry = await EntryAsync(_geometry.PayloadIndex(block), CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent)
        {
            await SetEntryAsync(_geometry.PayloadIndex(block), new BatEntry(BlockState.FullyPresent, mapping.HostStart)).ConfigureAwait(false);
        }
        else
        {
            await SetSectorsAsync(entry, block, mapping.CopyStart, mapping.CopyEnd).ConfigureAwait(false);
        }
    });

    protected override ValueTask AbandonMappingAsync(WriteMapping mapping) => UnderGateAsync(async () =>
    {
        long block = _geometry.BlockOf(mapping.CopyStart);
        BatEntry entry = await EntryAsync(_geometry.PayloadIndex(block), CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent)
        {
            _space!.Free(mapping.HostStart, _geometry.BlockSize);
        }
    });

    /// <summary>How far a write can go on in one piece of the file, over further blocks that follow there.</summary>
    private async ValueTask<long> JoinAsync(BatEntry entry, long block, long offset, long covered, long length)
    {
        while (covered < length)
        {
            block++;
            BatEntry next = await EntryAsync(_geometry.PayloadIndex(block), CancellationToken.None).ConfigureAwait(false);
            if (next.State != BlockState.FullyPresent || next.FileOffset != entry.FileOffset + _geometry.InBlock(offset) + covered)
            {
                break;
            }
            covered += Math.Min(length - covered, _geometry.BytesOf(block));
        }
        return covered;
    }

    /// <summary>A place for a write that covers a whole block of which nothing is here yet.</summary>
    private async ValueTask<WriteMapping> WholeBlockAsync(long offset, long length)
    {
        long host = await AllocateAsync(_geometry.BlockSize).ConfigureAwait(false);
        return new(offset, length, File, host, IsNew: true, offset, offset + length, HostReadsZero: true);
    }

    /// <summary>A place in a partially present block, as far as its sectors are alike.</summary>
    private async ValueTask<WriteMapping> IntoSectorsAsync(BatEntry entry, long block, long offset, long length, bool isFresh)
    {
        (bool isHere, long run) = await SectorRunAsync(block, offset, offset + length, CancellationToken.None).ConfigureAwait(false);
        long covered = Math.Min(length, run), host = entry.FileOffset + _geometry.InBlock(offset);
        return isHere
            ? WriteMapping.InPlace(offset, covered, File, host)
            : new(
                offset, covered, File, host, IsNew: true,
                Round.Down(offset, _geometry.SectorSize), Round.Up(offset + covered, _geometry.SectorSize), HostReadsZero: isFresh);
    }

    /// <summary>Gives a block that reads as zeroes a place that does.</summary>
    private async ValueTask<BatEntry> AddZeroAsync(long block, BatEntry old)
    {
        long host = await AllocateAsync(_geometry.BlockSize).ConfigureAwait(false);
        var entry = new BatEntry(BlockState.FullyPresent, host);
        await SetEntryAsync(_geometry.PayloadIndex(block), entry).ConfigureAwait(false);
        GiveUp(old);
        return entry;
    }

    /// <summary>Gives a block of which the parent holds everything a place, with no sector in it yet.</summary>
    private async ValueTask<BatEntry> AddPartialAsync(long block)
    {
        long host = await AllocateAsync(_geometry.BlockSize).ConfigureAwait(false);
        long chunk = _geometry.ChunkOf(block), index = _geometry.BitmapIndex(chunk);
        if (!HasEntry(index))
        {
            throw Wrong(block, $"cannot become partially present: the BAT region has no room for entry {index}, that of its sector bitmap");
        }
        BatEntry bitmap = await EntryAsync(index, CancellationToken.None).ConfigureAwait(false);
        if (bitmap.State == BlockState.FullyPresent)
        {
            _ = await BitmapAsync(block, CancellationToken.None).ConfigureAwait(false);
            await SetBitsAsync(bitmap.FileOffset, block, _geometry.StartOf(block), _geometry.StartOf(block) + _geometry.BytesOf(block), value: false).ConfigureAwait(false);
        }
        else
        {
            long place = await AllocateAsync(VhdxLayout.BitmapBlockSize).ConfigureAwait(false);
            _cache.Forget(place, VhdxLayout.BitmapBlockSize);
            await SetEntryAsync(index, new BatEntry(BlockState.FullyPresent, place)).ConfigureAwait(false);
        }
        var entry = new BatEntry(BlockState.PartiallyPresent, host);
        await SetEntryAsync(_geometry.PayloadIndex(block), entry).ConfigureAwait(false);
        return entry;
    }

    /// <summary>Space in the file that reads as zeroes.</summary>
    private async ValueTask<long> AllocateAsync(long length, PreallocationMode growth = PreallocationMode.Off)
    {
        VhdxSpace space = await SpaceAsync().ConfigureAwait(false);
        if (space.Waiting > MaxWaiting)
        {
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
        long host = space.Allocate(length);
        try
        {
            if (host < File.Length)
            {
                await File.WriteZeroesAsync(host, Math.Min(length, File.Length - host)).ConfigureAwait(false);
            }
            if (host + length > File.Length)
            {
                await File.ResizeAsync(host + length, growth).ConfigureAwait(false);
            }
        }
        catch
        {
            space.Free(host, length);
            throw;
        }
        return host;
    }

    /// <summary>Sectors of a block are written: says so in the bitmap, or in the BAT once all of them are.</summary>
    private async ValueTask SetSectorsAsync(BatEntry entry, long block, long start, long end)
    {
        long bitmap = await BitmapAsync(block, CancellationToken.None).ConfigureAwait(false);
        await SetBitsAsync(bitmap, block, start, end, value: true).ConfigureAwait(false);
        long first = _geometry.StartOf(block), last = first + _geometry.BytesOf(block);
        for (long at = first; at < last;)
        {
            (bool isHere, long run) = await SectorRunAsync(block, at, last, CancellationToken.None).ConfigureAwait(false);
            if (!isHere)
            {
                return;
            }
            at += run;
        }
        await SetEntryAsync(_geometry.PayloadIndex(block), new BatEntry(BlockState.FullyPresent, entry.FileOffset)).ConfigureAwait(false);
    }

    /// <summary>Sets or clears the bits of the sectors of a guest range in one block.</summary>
    private async ValueTask SetBitsAsync(long bitmap, long block, long start, long end, bool value)
    {
        const int PageBits = VhdxLayout.Sector * 8;
        int bit = _geometry.BitOf(start), lastBit = bit + (int)(Round.Units(Math.Min(end, _geometry.StartOf(block) + _geometry.BlockSize), _geometry.SectorSize) - (start / _geometry.SectorSize));
        while (bit < lastBit)
        {
            int inPage = bit % PageBits, count = Math.Min(PageBits - inPage, lastBit - bit);
            CachedPiece piece = await _cache.GetAsync(bitmap + Round.Down(bit / 8, VhdxLayout.Sector), CancellationToken.None).ConfigureAwait(false);
            VhdxBits.Set(piece.Bytes, inPage, inPage + count, value);
            _cache.Changed(piece, 0, VhdxLayout.Sector);
            bit += count;
        }
    }

    private async ValueTask SetEntryAsync(long index, BatEntry entry)
    {
        long at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await _cache.GetAsync(_regions.Bat.Offset + Round.Down(at, VhdxLayout.Sector), CancellationToken.None).ConfigureAwait(false);
        LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector), entry.Raw);
        _cache.Changed(piece, 0, VhdxLayout.Sector);
    }

    /// <summary>An entry was replaced: its space, if it had any, is free once that is durable.</summary>
    private void GiveUp(BatEntry old)
    {
        if (old.FileOffset >= VhdxLayout.MiB && old.State is not (BlockState.NotPresent or BlockState.Zero))
        {
            _space!.FreeAfterFlush(old.FileOffset, _geometry.BlockSize);
        }
    }
}
