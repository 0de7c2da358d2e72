using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// What making the file shorter asks of the refcounts: how much is in use, and that their own structure is small and lies low.
/// </summary>
/// <remarks>Limits and counts are in clusters from the start of the file.</remarks>
internal sealed class Qcow2RefcountPacker(Qcow2Disk disk, MetadataSession.Held held)
{
    private Qcow2Refcounts Refcounts => disk.Refcounts;

    private PointerTable Table => disk.Refcounts.Table;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>Clusters in use for anything but refcount blocks.</summary>
    public async ValueTask<long> UsedClustersAsync()
    {
        long used = 0;
        for (int i = Table.NextUsed(0); i < Table.Count; i = Table.NextUsed(i + 1))
        {
            CachedPiece block = (await Refcounts.BlockAsync(
                (long)i << Geometry.RefcountsPerBlockBits, CancellationToken.None).ConfigureAwait(false))!;
            used--; // the block itself
            for (int k = 0; k < Refcounts.PerBlock; k++)
            {
                used += Refcounts.Get(block, k) == 0 ? 0 : 1;
            }
        }
        return used;
    }

    /// <summary>Refcount blocks that a file of that many clusters needs.</summary>
    public long BlocksFor(long clusters) => Round.Units(clusters, Refcounts.PerBlock);

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
            if (await Refcounts.BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is not { } block)
            {
                cluster = ((cluster >> Geometry.RefcountsPerBlockBits) + 1) << Geometry.RefcountsPerBlockBits;
                continue;
            }
            for (int k = Refcounts.IndexOf(cluster); k < Refcounts.PerBlock && cluster < end; k++, cluster++)
            {
                references -= (long)Math.Min(Refcounts.Get(block, k), int.MaxValue);
                if (references < 0 && cluster > first)
                {
                    return cluster;
                }
            }
        }
        return end;
    }

    /// <summary>
    /// Has the first <paramref name="needed"/> refcount blocks lie below a limit, as far as there is room, also those that are missing:
    /// so none lies where a table is to have its place in one piece. Everything must be flushed before, and must be flushed again
    /// before the space is used.
    /// </summary>
    /// <remarks>Nothing else may be pending: an old block stays as the file has it until the table points to the new one.</remarks>
    public async ValueTask MoveBlocksAsync(long limit, long needed)
    {
        for (int i = 0; i < Math.Min(needed, Table.Count); i++)
        {
            HostOffset old = Refcounts.EntryAt(i);
            long first = (long)i << Geometry.RefcountsPerBlockBits;
            if ((old.Value == 0 ? first : Geometry.ClusterOf(old)) < limit)
            {
                continue;
            }
            (HostOffset place, int count) = await disk.Allocator.AllocateBelowAsync(held, 1, limit).ConfigureAwait(false);
            if (count == 0)
            {
                return;
            }
            disk.Guard.Require(place, Geometry.ClusterSize);
            CachedPiece? block = await Refcounts.BlockAsync(first, CancellationToken.None).ConfigureAwait(false);
            CachedPiece moved = await Refcounts.Blocks.GetNewAsync(place.Value).ConfigureAwait(false);
            block?.Bytes.CopyTo(moved.Bytes, 0);
            Table[i] = (ulong)place.Value;
            disk.Guard.AddTable(place);
            if (old.Value != 0)
            {
                Refcounts.Blocks.Forget(old.Value, Geometry.ClusterSize);
                Refcounts.FreeAfterFlush(held, old, Geometry.ClusterSize);
            }
        }
    }

    /// <summary>Refcount blocks without anything to count go, and the end of the refcount table with them.</summary>
    public async ValueTask TrimAsync()
    {
        await DropEmptyBlocksAsync().ConfigureAwait(false);
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        if (ShortenTable())
        {
            await disk.UpdateHeaderAsync(held, disk.Header).ConfigureAwait(false);
            await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Drops the blocks that count nothing but, at most, themselves. The table must be written and flushed before anything is
    /// allocated.
    /// </summary>
    private async ValueTask DropEmptyBlocksAsync()
    {
        for (int i = Table.NextUsed(0); i < Table.Count; i = Table.NextUsed(i + 1))
        {
            HostOffset place = Refcounts.EntryAt(i);
            long first = (long)i << Geometry.RefcountsPerBlockBits, own = Geometry.ClusterOf(place) - first;
            CachedPiece block = (await Refcounts.BlockAsync(first, CancellationToken.None).ConfigureAwait(false))!;
            bool countsItself = own >= 0 && own < Refcounts.PerBlock;
            int used = RefcountBlock.NextUsed(block.Bytes, 0, Refcounts.PerBlock, Geometry.RefcountOrder);
            if (used == own)
            {
                used = RefcountBlock.NextUsed(block.Bytes, used + 1, Refcounts.PerBlock, Geometry.RefcountOrder);
            }
            if (used < Refcounts.PerBlock)
            {
                continue;
            }
            Table[i] = 0;
            Refcounts.Blocks.Forget(place.Value, Geometry.ClusterSize);
            disk.Allocator.Freed(first);
            if (countsItself)
            {
                disk.Guard.RemoveTable(place); // its own count goes with it
            }
            else
            {
                Refcounts.FreeAfterFlush(held, place, Geometry.ClusterSize);
            }
        }
    }

    /// <summary>
    /// Leaves away the end of the table that has no entry. True if it did: then the header is to be written, and what is left away
    /// becomes free with the flush after that. The table must be written.
    /// </summary>
    private bool ShortenTable()
    {
        int entries = 1;
        for (int i = Table.NextUsed(0); i < Table.Count; i = Table.NextUsed(i + 1))
        {
            entries = i + 1;
        }
        int length = (int)Round.Up(entries * 8L, Geometry.ClusterSize);
        if (length >= Table.Bytes.Length)
        {
            return false;
        }
        Refcounts.FreeAfterFlush(held, Refcounts.TablePlace + length, Table.Bytes.Length - length);
        Refcounts.ReplaceTable(held, Refcounts.TablePlace, Table.Bytes[..length].ToArray());
        return true;
    }
}
