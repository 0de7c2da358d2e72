using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Finds free clusters and takes them. Spec: qcow2, "Host cluster management".</summary>
/// <remarks>
/// <para>Everything below <c>_firstFree</c> is known to be in use, so a search never starts from zero again. Limits and counts are in
/// clusters, from the start of the file.</para>
/// <para>The session's lock guards it.</para>
/// </remarks>
internal sealed class Qcow2Allocator(Qcow2Disk disk)
{
    private long _firstFree; // cluster index: all clusters below are in use
    private long _freeByte; // where the next compressed data may go, inside a cluster that is in use; 0 for nowhere

    private Qcow2Refcounts Refcounts => disk.Refcounts;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>Nothing is known of the counts.</summary>
    public void Restart() => (_firstFree, _freeByte) = (0, 0);

    /// <summary>A cluster has lost its last reference.</summary>
    public void Freed(long cluster)
    {
        _firstFree = Math.Min(_firstFree, cluster);
        _freeByte = _freeByte >> Geometry.ClusterBits == cluster ? 0 : _freeByte;
    }

    /// <summary>The next compressed data goes to a cluster of its own, the lowest that is free.</summary>
    public void EndPacking() => _freeByte = 0;

    /// <summary>
    /// Takes up to <paramref name="count"/> free clusters in a row, refcount 1. Fewer only if the first free ones are a
    /// shorter gap.
    /// </summary>
    public async ValueTask<(HostOffset Place, int Count)> AllocateAsync(MetadataSession.Held held, int count)
    {
        await disk.TellAsync(DebugEvent.ClusterAlloc).ConfigureAwait(false);
        return await TakeFreeAsync(held, count).ConfigureAwait(false);
    }

    private async ValueTask<(HostOffset Place, int Count)> TakeFreeAsync(MetadataSession.Held held, int count)
    {
        while (true)
        {
            long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
            _firstFree = first;
            int index = Refcounts.IndexOf(first);
            CachedPiece block = await Refcounts.EnsureBlockAsync(held, first).ConfigureAwait(false);
            if (Refcounts.Get(block, index) != 0)
            {
                continue; // the new block took the very cluster
            }
            int end = RefcountBlock.NextUsed(block.Bytes, index, Math.Min(index + count, Refcounts.PerBlock), Geometry.RefcountOrder);
            Refcounts.Take(held, block, index, end, Geometry.PlaceOf(first));
            _firstFree = first + (end - index);
            return (Geometry.PlaceOf(first), end - index);
        }
    }

    /// <summary>Takes a number of free clusters in a row, for tables; searches until there are that many.</summary>
    public async ValueTask<HostOffset> AllocateContiguousAsync(MetadataSession.Held held, long count)
    {
        await disk.TellAsync(DebugEvent.ClusterAlloc).ConfigureAwait(false);
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        for (long run = 0; run < count;)
        {
            long cluster = first + run;
            if (count >= Refcounts.PerBlock && await Refcounts.BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is null)
            {
                // a block at the start of each range leaves no room for it
                return await Refcounts.TakeBehindAsync(held, count).ConfigureAwait(false);
            }
            _ = await Refcounts.EnsureBlockAsync(held, cluster).ConfigureAwait(false);
            if (await Refcounts.GetAsync(cluster, CancellationToken.None).ConfigureAwait(false) == 0)
            {
                run++;
            }
            else
            {
                (first, run) = (await FindFreeAsync(cluster + 1).ConfigureAwait(false), 0);
            }
        }
        await Refcounts.AddAsync(held, Geometry.PlaceOf(first), count << Geometry.ClusterBits, +1).ConfigureAwait(false);
        return Geometry.PlaceOf(first);
    }

    /// <summary>
    /// Takes bytes for compressed data, packed behind what was taken before where that is possible: a cluster then has as many
    /// references as pieces of data in it.
    /// </summary>
    /// <param name="held">The lock.</param>
    /// <param name="length">Bytes, fewer than a cluster has.</param>
    public async ValueTask<HostOffset> AllocateBytesAsync(MetadataSession.Held held, int length)
    {
        await disk.TellAsync(DebugEvent.ClusterAllocBytes).ConfigureAwait(false);
        HostOffset place = new(_freeByte), current = Geometry.ClusterStart(place), fresh = default;
        bool canShare = _freeByte != 0
            && await Refcounts.GetAsync(current, CancellationToken.None).ConfigureAwait(false) < Geometry.MaxRefcount;
        int room = canShare ? Geometry.ClusterSize - Geometry.InCluster(_freeByte) : 0;
        if (length > room)
        {
            (fresh, _) = await TakeFreeAsync(held, 1).ConfigureAwait(false);
            canShare &= fresh == current + Geometry.ClusterSize; // then it straddles
            place = canShare ? place : fresh;
        }
        try
        {
            await Refcounts.AddAsync(held, current, canShare ? 1 : 0, +1).ConfigureAwait(false);
        }
        catch
        {
            await Refcounts.AddAsync(held, fresh, fresh.Value == 0 ? 0 : 1, -1).ConfigureAwait(false);
            throw;
        }
        _freeByte = (place + length).Value;
        if (Geometry.InCluster(_freeByte) == 0)
        {
            _freeByte = 0;
        }
        return place;
    }

    /// <summary>Like <see cref="AllocateAsync"/>, below a limit; a count of 0 if nothing is free there.</summary>
    public async ValueTask<(HostOffset Place, int Count)> AllocateBelowAsync(MetadataSession.Held held, int count, long limit)
    {
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        if (first >= limit)
        {
            return default;
        }
        (HostOffset place, int got) = await AllocateAsync(held, (int)Math.Min(count, limit - first)).ConfigureAwait(false);
        if (Geometry.ClusterOf(place) + got <= limit)
        {
            return (place, got);
        }
        // a new refcount block took the last place
        await Refcounts.AddAsync(held, place, (long)got << Geometry.ClusterBits, -1).ConfigureAwait(false);
        return default;
    }

    /// <summary>Takes the lowest free clusters in a row that end at or before a limit; null if there are none.</summary>
    public async ValueTask<HostOffset?> AllocateRunBelowAsync(MetadataSession.Held held, long count, long limit)
    {
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        for (long run = 0; first + count <= limit;)
        {
            long cluster = first + run;
            int index = Refcounts.IndexOf(cluster);
            bool isFree = await Refcounts.BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is { } block
                ? Refcounts.Get(block, index) == 0
                : index != 0; // the first is where the missing block goes
            if (!isFree)
            {
                (first, run) = (await FindFreeAsync(cluster + 1).ConfigureAwait(false), 0);
            }
            else if (++run == count)
            {
                await Refcounts.AddAsync(held, Geometry.PlaceOf(first), count << Geometry.ClusterBits, +1).ConfigureAwait(false);
                return Geometry.PlaceOf(first);
            }
        }
        return null;
    }

    /// <summary>Index of the first free cluster at or after <paramref name="from"/>; always finds one, at worst past the end.</summary>
    private async ValueTask<long> FindFreeAsync(long from)
    {
        while (true)
        {
            if (await Refcounts.BlockAsync(from, CancellationToken.None).ConfigureAwait(false) is not { } block)
            {
                return from;
            }
            int index = Refcounts.IndexOf(from);
            int found = RefcountBlock.NextFree(block.Bytes, index, Refcounts.PerBlock, Geometry.RefcountOrder);
            from += found - index;
            if (found < Refcounts.PerBlock)
            {
                return from;
            }
        }
    }
}
