using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What making the file shorter asks: how much is in use, places below a limit, and the refcount structure's own place.</summary>
/// <remarks>Limits and counts are in clusters from the start of the file.</remarks>
internal sealed partial class Qcow2Refcounts
{
    /// <summary>Clusters in use for anything but refcount blocks.</summary>
    public async ValueTask<long> UsedClustersAsync()
    {
        long used = 0;
        for (int i = _table.NextUsed(0); i < _table.Count; i = _table.NextUsed(i + 1))
        {
            CachedPiece block = (await BlockAsync((long)i << _geometry.RefcountsPerBlockBits, CancellationToken.None).ConfigureAwait(false))!;
            used--; // the block itself
            for (int k = 0; k < PerBlock; k++)
            {
                used += RefcountBlock.Get(block.Bytes, k, _geometry.RefcountOrder) == 0 ? 0 : 1;
            }
        }
        return used;
    }

    /// <summary>Refcount blocks that a file of that many clusters needs.</summary>
    public long BlocksFor(long clusters) => Round.Units(clusters, PerBlock);

    /// <summary>Where a file without gaps ends that holds so many clusters and the refcount blocks for all of it.</summary>
    public long PackedEnd(long clusters)
    {
        long end = clusters;
        while (clusters + BlocksFor(end) != end)
        {
            end = clusters + BlocksFor(end);
        }
        return end;
    }

    /// <summary>
    /// The cluster at or before <paramref name="end"/> up to which the clusters from <paramref name="first"/> on have at most so many
    /// references in all; at least one cluster further.
    /// </summary>
    public async ValueTask<long> EndOfBatchAsync(long first, long end, long references)
    {
        for (long cluster = first; cluster < end;)
        {
            if (await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is not { } block)
            {
                cluster = ((cluster >> _geometry.RefcountsPerBlockBits) + 1) << _geometry.RefcountsPerBlockBits;
                continue;
            }
            for (int k = (int)(cluster & (PerBlock - 1)); k < PerBlock && cluster < end; k++, cluster++)
            {
                references -= (long)Math.Min(RefcountBlock.Get(block.Bytes, k, _geometry.RefcountOrder), int.MaxValue);
                if (references < 0 && cluster > first)
                {
                    return cluster;
                }
            }
        }
        return end;
    }

    /// <summary>Like <see cref="AllocateAsync"/>, below a limit; a count of 0 if nothing is free there.</summary>
    public async ValueTask<(long Offset, int Count)> AllocateBelowAsync(int count, long limit)
    {
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        if (first >= limit)
        {
            return default;
        }
        (long offset, int got) = await AllocateAsync((int)Math.Min(count, limit - first)).ConfigureAwait(false);
        if ((offset >> _geometry.ClusterBits) + got <= limit)
        {
            return (offset, got);
        }
        await AddAsync(offset, (long)got << _geometry.ClusterBits, -1).ConfigureAwait(false); // a new refcount block took the last place
        return default;
    }

    /// <summary>Takes the lowest free clusters in a row that end at or before a limit; 0 if there are none.</summary>
    public async ValueTask<long> AllocateRunBelowAsync(long count, long limit)
    {
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        for (long run = 0; first + count <= limit;)
        {
            long cluster = first + run;
            int index = (int)(cluster & (PerBlock - 1));
            bool isFree = await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is { } block
                ? RefcountBlock.Get(block.Bytes, index, _geometry.RefcountOrder) == 0
                : index != 0; // the first is where the missing block goes
            if (!isFree)
            {
                (first, run) = (await FindFreeAsync(cluster + 1).ConfigureAwait(false), 0);
            }
            else if (++run == count)
            {
                await AddAsync(HostOffset(first), count << _geometry.ClusterBits, +1).ConfigureAwait(false);
                return HostOffset(first);
            }
        }
        return 0;
    }

    /// <summary>The next compressed data goes to a cluster of its own, the lowest that is free.</summary>
    public void EndPacking() => _freeByte = 0;

    /// <summary>
    /// Has the first <paramref name="needed"/> refcount blocks lie below a limit, as far as there is room, also those that are missing:
    /// so none lies where a table is to have its place in one piece. Everything must be flushed before, and must be flushed again
    /// before the space is used.
    /// </summary>
    /// <remarks>Nothing else may be pending: an old block stays as the file has it until the table points to the new one.</remarks>
    public async ValueTask MoveBlocksAsync(long limit, long needed)
    {
        for (int i = 0; i < Math.Min(needed, _table.Count); i++)
        {
            long old = L2Entry.OffsetOf(_table[i]), first = (long)i << _geometry.RefcountsPerBlockBits;
            if ((old == 0 ? first : old >> _geometry.ClusterBits) < limit)
            {
                continue;
            }
            (long place, int count) = await AllocateBelowAsync(1, limit).ConfigureAwait(false);
            if (count == 0)
            {
                return;
            }
            _guard.Require(place, _geometry.ClusterSize);
            CachedPiece? block = await BlockAsync(first, CancellationToken.None).ConfigureAwait(false);
            CachedPiece moved = await _blocks.GetNewAsync(place).ConfigureAwait(false);
            block?.Bytes.CopyTo(moved.Bytes, 0);
            _table[i] = (ulong)place;
            _guard.AddTable(place);
            if (old != 0)
            {
                _blocks.Forget(old, _geometry.ClusterSize);
                FreeAfterFlush(old, _geometry.ClusterSize);
            }
        }
    }

    /// <summary>
    /// Drops the blocks that count nothing but, at most, themselves. The table must be written and flushed before anything is
    /// allocated.
    /// </summary>
    public async ValueTask DropEmptyBlocksAsync()
    {
        for (int i = _table.NextUsed(0); i < _table.Count; i = _table.NextUsed(i + 1))
        {
            long offset = L2Entry.OffsetOf(_table[i]), first = (long)i << _geometry.RefcountsPerBlockBits;
            CachedPiece block = (await BlockAsync(first, CancellationToken.None).ConfigureAwait(false))!;
            long own = (offset >> _geometry.ClusterBits) - first;
            bool countsItself = own >= 0 && own < PerBlock;
            int used = RefcountBlock.NextUsed(block.Bytes, 0, PerBlock, _geometry.RefcountOrder);
            if (used == own)
            {
                used = RefcountBlock.NextUsed(block.Bytes, used + 1, PerBlock, _geometry.RefcountOrder);
            }
            if (used < PerBlock)
            {
                continue;
            }
            _table[i] = 0;
            _blocks.Forget(offset, _geometry.ClusterSize);
            _firstFree = Math.Min(_firstFree, first);
            if (countsItself)
            {
                _guard.RemoveTable(offset); // its own count goes with it
            }
            else
            {
                FreeAfterFlush(offset, _geometry.ClusterSize);
            }
        }
    }

    /// <summary>
    /// Leaves away the end of the table that has no entry. True if it did: then the header is to be written, and what is left away
    /// becomes free with the flush after that. The table must be written.
    /// </summary>
    public bool ShortenTable()
    {
        int entries = 1;
        for (int i = _table.NextUsed(0); i < _table.Count; i = _table.NextUsed(i + 1))
        {
            entries = i + 1;
        }
        int length = (int)Round.Up(entries * 8L, _geometry.ClusterSize);
        if (length >= _table.Bytes.Length)
        {
            return false;
        }
        FreeAfterFlush(_table.HostOffset + length, _table.Bytes.Length - length);
        ReplaceTable(_table.HostOffset, length);
        return true;
    }

    /// <summary>The table was copied to another place; the header is to be written.</summary>
    public void TableMoved(long place) => ReplaceTable(place, _table.Bytes.Length);

    private void ReplaceTable(long place, int length)
    {
        _table.Replace(place, _table.Bytes[..length].ToArray());
        _guard.RefcountTable = (place, length);
    }
}
