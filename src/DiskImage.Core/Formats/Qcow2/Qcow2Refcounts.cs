using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The refcounts of an image: which of its clusters are in use, and how often. Spec: qcow2, "Host cluster management".</summary>
/// <remarks>
/// <para>Idea. A refcount block describes a range of host clusters. A block that is missing describes free clusters, and when it is
/// needed it is placed in the first cluster of its own range: that cluster is free, and the block counts itself. So a new
/// block needs no other block, and the table entry is all there is to write besides. When the table is too small, a larger one
/// is placed in the first range that the old one does not cover.</para>
/// <para>Order of writes: refcount blocks, refcount table, then (declared by <see cref="Qcow2Tables"/>) L2 and L1 tables. What loses its
/// last reference goes down after the session's flush only, when that is durable. After a crash an image may leak clusters; it never shares
/// one.</para>
/// <para>The session's lock guards it.</para>
/// </remarks>
internal sealed class Qcow2Refcounts : FileSpace
{
    private readonly Qcow2Disk _disk;

    public Qcow2Refcounts(Qcow2Disk disk, long cacheBytes)
    {
        _disk = disk;
        Blocks = new MetadataCache(disk.Session.Order, disk.Geometry.ClusterSize, cacheBytes)
        {
            Events = (DebugEvent.RefblockLoad, DebugEvent.RefblockUpdatePart),
        };
        Table = new PointerTable(disk.Session.Order) { Events = (DebugEvent.ReftableLoad, DebugEvent.RefblockAllocHookup) };
        Account = new Qcow2RefcountAccount(disk);
    }

    /// <summary>Where the refcount table is; changes when it grows.</summary>
    public HostOffset TablePlace => new(Table.HostOffset);

    public int TableClusters => (int)Geometry.Clusters(Table.Count * 8L);

    public PointerTable Table { get; }

    /// <summary>The refcount blocks that were used last.</summary>
    public MetadataCache Blocks { get; }

    /// <summary>What was counted up, where it may have to go down again.</summary>
    public Qcow2RefcountAccount Account { get; }

    /// <summary>Refcounts in a block.</summary>
    public int PerBlock => 1 << Geometry.RefcountsPerBlockBits;

    private Qcow2Geometry Geometry => _disk.Geometry;

    private BlockNode File => _disk.File;

    public async ValueTask LoadAsync(Qcow2Header header, CancellationToken cancellationToken)
    {
        Restart();
        await Table.LoadAsync(
            header.RefcountTableOffset, header.RefcountTableClusters * (header.ClusterSize / 8), cancellationToken).ConfigureAwait(false);
        for (int i = Table.NextUsed(0); i < Table.Count; i = Table.NextUsed(i + 1))
        {
            HostOffset place = EntryAt(i);
            if (Geometry.InCluster(place) != 0 || place.Value >= File.Length)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{File.Name}: refcount table entry {i} points to offset {place.Value:#,0}; allowed:"
                        + $" a multiple of {Geometry.ClusterSize:#,0}"
                        + $" inside the file's {File.Length:#,0} bytes. Repair the image with {new Remedy(RemedyKind.Repair)}.",
                    File.Name,
                    Table.HostOffset + (i * 8L));
            }
            _disk.Guard.AddTable(place);
        }
    }

    /// <summary>Forgets everything: the structure was replaced, perhaps by one of another width. Nothing may be left to write.</summary>
    public void Restart()
    {
        Blocks.Clear();
        ForgetWaiting();
        Account.Forget();
        _disk.Allocator.Restart();
    }

    /// <summary>The refcount of a cluster, counted from the start of the file.</summary>
    public async ValueTask<ulong> GetAsync(long cluster, CancellationToken cancellationToken)
        => await BlockAsync(cluster, cancellationToken).ConfigureAwait(false) is { } block ? Get(block, IndexOf(cluster)) : 0;

    /// <summary>The refcount of the cluster at a place.</summary>
    public ValueTask<ulong> GetAsync(HostOffset place, CancellationToken cancellationToken)
        => GetAsync(Geometry.ClusterOf(place), cancellationToken);

    /// <summary>Adds 1 or -1 to the refcount of every cluster that the range touches, now.</summary>
    /// <exception cref="DiskImageException">Corrupt if a refcount would leave its range.</exception>
    public async ValueTask AddAsync(MetadataSession.Held held, HostOffset place, long length, int change)
    {
        if (change < 0)
        {
            await _disk.TellAsync(DebugEvent.ClusterFree).ConfigureAwait(false);
        }
        long end = Geometry.Clusters(place.Value + length);
        for (long cluster = Geometry.ClusterOf(place); cluster < end;)
        {
            CachedPiece block = await EnsureBlockAsync(held, cluster).ConfigureAwait(false);
            int index = IndexOf(cluster), stop = (int)Math.Min(PerBlock, index + (end - cluster));
            AddInBlock(block, index, stop, cluster, change);
            if (change > 0)
            {
                Account.Note(Geometry.PlaceOf(cluster), (long)(stop - index) << Geometry.ClusterBits);
            }
            cluster += stop - index;
        }
    }

    /// <summary>Adds to the refcount of every cluster that a range touches, several times.</summary>
    public async ValueTask AddAsync(MetadataSession.Held held, HostOffset place, long length, ulong times)
    {
        for (ulong i = 0; i < times; i++)
        {
            await AddAsync(held, place, length, +1).ConfigureAwait(false);
        }
    }

    public override ValueTask FreeAsync(MetadataSession.Held held, long offset, long length) => AddAsync(held, new(offset), length, -1);

    /// <summary>Takes references away that nothing in the file, as it is on the disk, makes use of.</summary>
    public async ValueTask FreeAsync(MetadataSession.Held held, HostOffset place, long length, ulong times)
    {
        for (ulong i = 0; i < times && length > 0; i++)
        {
            await AddAsync(held, place, length, -1).ConfigureAwait(false);
        }
    }

    /// <summary>Takes a reference to each of several ranges away once the file no longer has it.</summary>
    public void FreeAfterFlush(MetadataSession.Held held, Qcow2Ranges ranges)
    {
        foreach (FileRange range in ranges.All)
        {
            FreeAfterFlush(held, range.Start, range.Length);
        }
    }

    /// <summary>Takes references to a range away once the file no longer has them.</summary>
    public void FreeAfterFlush(MetadataSession.Held held, HostOffset place, long length, ulong times = 1)
    {
        for (ulong i = 0; i < times; i++)
        {
            FreeAfterFlush(held, place.Value, length);
        }
    }

    /// <summary>
    /// What was given up is durable: counts it down, and tells the clusters that have no reference left. If it fails, what is not counted
    /// down yet goes on waiting.
    /// </summary>
    public override async ValueTask<IReadOnlyList<FileRange>> ReleaseAsync(MetadataSession.Held held)
    {
        var free = new Qcow2Ranges(Geometry);
        while (!IsNothingWaiting)
        {
            FileRange range = LastWaiting;
            HostOffset start = StartInLastBlock(range);
            long last = Geometry.Clusters(range.End) - 1, cluster = Geometry.ClusterOf(start);
            await _disk.TellAsync(DebugEvent.ClusterFree).ConfigureAwait(false);
            CachedPiece block = await EnsureBlockAsync(held, last).ConfigureAwait(false);
            TakeWaiting(start.Value);
            int index = IndexOf(cluster), stop = IndexOf(last) + 1;
            AddInBlock(block, index, stop, cluster, -1);
            for (; index < stop; index++, cluster++)
            {
                if (Get(block, index) == 0)
                {
                    free.Add(Geometry.PlaceOf(cluster), Geometry.ClusterSize);
                }
            }
        }
        await _disk.Session.Order.WriteBackAsync().ConfigureAwait(false); // may be lost in a crash: then it leaks
        return free.All;
    }

    /// <summary>Where the part of a range begins whose counts are all in the block that counts its end.</summary>
    public HostOffset StartInLastBlock(FileRange range)
    {
        long last = Geometry.Clusters(range.End) - 1;
        return new(Math.Max(range.Start, Geometry.PlaceOf(last & -PerBlock).Value));
    }

    /// <summary>Where the last cluster that is in use ends.</summary>
    public async ValueTask<HostOffset> UsedEndAsync()
    {
        for (int i = Table.Count - 1; i >= 0; i--)
        {
            long first = (long)i << Geometry.RefcountsPerBlockBits;
            if (await BlockAsync(first, CancellationToken.None).ConfigureAwait(false) is { } block)
            {
                int k = PerBlock - 1;
                while (k >= 0 && Get(block, k) == 0)
                {
                    k--;
                }
                if (k >= 0)
                {
                    return Geometry.PlaceOf(first + k + 1);
                }
            }
        }
        return new(Geometry.ClusterSize);
    }

    /// <summary>A cluster's index in its block.</summary>
    public int IndexOf(long cluster) => (int)(cluster & (PerBlock - 1));

    public ulong Get(CachedPiece block, int index) => RefcountBlock.Get(block.Bytes, index, Geometry.RefcountOrder);

    /// <summary>Where a block is, as the table says.</summary>
    public HostOffset EntryAt(int index) => new(L2Entry.OffsetOf(Table[index]));

    /// <summary>Takes the free clusters [index, end) of a block.</summary>
    public void Take(MetadataSession.Held held, CachedPiece block, int index, int end, HostOffset place)
    {
        _disk.Session.Require(held);
        for (int i = index; i < end; i++)
        {
            Put(block, i, 1);
        }
        Account.Note(place, (long)(end - index) << Geometry.ClusterBits);
    }

    /// <summary>The block that counts a cluster; null if there is none, so that the cluster is free.</summary>
    public async ValueTask<CachedPiece?> BlockAsync(long cluster, CancellationToken cancellationToken)
    {
        long index = cluster >> Geometry.RefcountsPerBlockBits;
        HostOffset place = index < Table.Count ? EntryAt((int)index) : default;
        return place.Value == 0 ? null : await Blocks.GetAsync(place.Value, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The block that counts a cluster, made if need be.</summary>
    public async ValueTask<CachedPiece> EnsureBlockAsync(MetadataSession.Held held, long cluster)
    {
        _disk.Session.Require(held);
        if (await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is { } existing)
        {
            return existing;
        }
        await _disk.TellAsync(DebugEvent.RefblockAlloc).ConfigureAwait(false);
        long index = cluster >> Geometry.RefcountsPerBlockBits;
        if (Geometry.PlaceOf(cluster).Value >= Qcow2Header.MaxHostOffset)
        {
            throw new DiskImageException(DiskImageErrorKind.NoSpace, $"{File.Name}:"
                + $" the image file cannot grow past {Qcow2Header.MaxHostOffset:#,0} bytes", File.Name);
        }
        if (index >= Table.Count)
        {
            await GrowTableAsync(held, index + 1).ConfigureAwait(false);
            return (await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false)) ?? await EnsureBlockAsync(
                held, cluster).ConfigureAwait(false);
        }
        HostOffset own = Geometry.PlaceOf(index << Geometry.RefcountsPerBlockBits);
        _disk.Guard.Require(own, Geometry.ClusterSize);
        await _disk.TellAsync(DebugEvent.RefblockAllocWrite).ConfigureAwait(false);
        CachedPiece block = await Blocks.GetNewAsync(own.Value).ConfigureAwait(false);
        Put(block, 0, 1);
        Table[(int)index] = (ulong)own.Value;
        _disk.Guard.AddTable(own);
        return block;
    }

    /// <summary>
    /// Takes clusters in a row, more than a refcount block counts, in the ranges behind all that have a block. Their blocks lie in a
    /// row before them, and nothing else can be in use there.
    /// </summary>
    public async ValueTask<HostOffset> TakeBehindAsync(MetadataSession.Held held, long count)
    {
        _disk.Session.Require(held);
        int blocks = checked((int)Round.Units(count, PerBlock - 1)), range; // each block counts itself, too
        while (true)
        {
            for (range = Table.Count; range > 0 && Table[range - 1] == 0; range--)
            {
            }
            if (range + blocks <= Table.Count)
            {
                break;
            }
            await GrowTableAsync(held, range + blocks).ConfigureAwait(false);
        }
        long start = (long)range << Geometry.RefcountsPerBlockBits;
        _disk.Guard.Require(Geometry.PlaceOf(start), (blocks + count) << Geometry.ClusterBits);
        await NewBlocksAsync(start, blocks, blocks + count).ConfigureAwait(false);
        for (int i = 0; i < blocks; i++)
        {
            Table[range + i] = (ulong)Geometry.PlaceOf(start + i).Value;
            _disk.Guard.AddTable(Geometry.PlaceOf(start + i));
        }
        HostOffset place = Geometry.PlaceOf(start + blocks);
        Account.Note(place, count << Geometry.ClusterBits);
        return place;
    }

    /// <summary>The table has other bytes at another place, or fewer at its own; it is written, and the header is to be.</summary>
    public void ReplaceTable(MetadataSession.Held held, HostOffset place, byte[] bytes)
    {
        _disk.Session.Require(held);
        Table.Replace(place.Value, bytes);
        _disk.Guard.RefcountTable = (place, bytes.Length);
    }

    // Compressed data is given up by the byte, and each piece of it has a reference to its cluster.
    protected override bool MayJoin(long offset) => Geometry.InCluster(offset) == 0;

    /// <summary>Changes the refcounts [index, stop) of a block, all or none.</summary>
    private void AddInBlock(CachedPiece block, int index, int stop, long cluster, int change)
    {
        int order = Geometry.RefcountOrder;
        for (int i = index; i < stop; i++)
        {
            if (RefcountBlock.Get(block.Bytes, i, order) == (change > 0 ? Geometry.MaxRefcount : 0))
            {
                throw CannotAdd(Geometry.PlaceOf(cluster + i - index), change);
            }
        }
        for (int i = index; i < stop; i++, cluster++)
        {
            ulong old = RefcountBlock.Get(block.Bytes, i, order);
            _ = RefcountBlock.Set(block.Bytes, i, order, change > 0 ? old + 1 : old - 1);
            if (change < 0 && old == 1)
            {
                _disk.Freed(cluster); // before anything can fail: the next owner may write there
            }
        }
        int start = (index << order) >> 3;
        Blocks.Changed(block, start, (((stop << order) + 7) >> 3) - start);
    }

    private DiskImageException CannotAdd(HostOffset place, int change) => new(
        change > 0 ? DiskImageErrorKind.OutOfRange : DiskImageErrorKind.Corrupt,
        change > 0
            ? (Wording)($"{File.Name}: a cluster would need a refcount above {Geometry.MaxRefcount},"
                + $" the most that {1 << Geometry.RefcountOrder} refcount bits hold")
            : (Wording)($"{File.Name}: the refcount of the cluster at offset {place.Value:#,0} is 0 although it is in use."
                + $" Check the image with {new Remedy(RemedyKind.Check)}."),
        File.Name,
        place.Value);

    private void Put(CachedPiece block, int index, ulong value)
    {
        (int start, int length) = RefcountBlock.Set(block.Bytes, index, Geometry.RefcountOrder, value);
        Blocks.Changed(block, start, length);
    }

    /// <summary>Makes blocks in a row that count as many clusters from the first of them on. Nothing leads to them yet.</summary>
    private async ValueTask NewBlocksAsync(long first, long blocks, long clusters)
    {
        try
        {
            for (long i = 0; i < blocks; i++)
            {
                CachedPiece block = await Blocks.GetNewAsync(Geometry.PlaceOf(first + i).Value).ConfigureAwait(false);
                for (int used = 0; clusters > 0 && used < PerBlock; used++, clusters--)
                {
                    Put(block, used, 1);
                }
            }
        }
        catch
        {
            Blocks.Forget(Geometry.PlaceOf(first).Value, blocks << Geometry.ClusterBits); // the next attempt goes to the same place
            throw;
        }
    }

    /// <summary>
    /// Moves to a larger refcount table. The new one, and the blocks that count it, lie in the first ranges the old one does not
    /// cover, so nothing there can be in use. Written and flushed before the header changes hands.
    /// </summary>
    private async ValueTask GrowTableAsync(MetadataSession.Held held, long entries)
    {
        await _disk.TellAsync(DebugEvent.ReftableGrow).ConfigureAwait(false);
        long start = (long)Table.Count << Geometry.RefcountsPerBlockBits; // first cluster the old table does not cover
        (long tableClusters, long blocks) = GrownTable(entries);
        byte[] bytes = new byte[tableClusters << Geometry.ClusterBits];
        Table.Bytes.CopyTo(bytes);
        _disk.Guard.Require(Geometry.PlaceOf(start), (blocks + tableClusters) << Geometry.ClusterBits);
        HostOffset place = Geometry.PlaceOf(start + blocks), old = TablePlace;
        long oldLength = Round.Up(Table.Count * 8L, Geometry.ClusterSize);
        await NewBlocksAsync(start, blocks, blocks + tableClusters).ConfigureAwait(false); // the blocks in a row, then the table
        for (long i = 0; i < blocks; i++)
        {
            BigEndian.U64(bytes, (int)(Table.Count + i) * 8, (ulong)Geometry.PlaceOf(start + i).Value);
        }
        try
        {
            await _disk.TellAsync(DebugEvent.RefblockAllocWriteBlocks).ConfigureAwait(false);
            await _disk.Session.Order.WriteBackAsync().ConfigureAwait(false);
            await _disk.TellAsync(DebugEvent.RefblockAllocWriteTable).ConfigureAwait(false);
            await File.WriteAsync(place.Value, bytes).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
            byte[] field = new byte[12];
            BigEndian.U64(field, 0, (ulong)place.Value);
            BigEndian.U32(field, 8, (uint)tableClusters);
            await _disk.TellAsync(DebugEvent.RefblockAllocSwitchTable).ConfigureAwait(false);
            await File.WriteAsync(Qcow2Header.RefcountTableAt, field).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
        }
        catch
        {
            Blocks.Forget(Geometry.PlaceOf(start).Value, blocks << Geometry.ClusterBits);
            throw;
        }
        for (long i = 0; i < blocks; i++)
        {
            _disk.Guard.AddTable(Geometry.PlaceOf(start + i));
        }
        ReplaceTable(held, place, bytes);
        FreeAfterFlush(held, old, oldLength);
    }

    /// <summary>The clusters that a table of at least so many entries takes, and the blocks that count it and themselves.</summary>
    private (long TableClusters, long Blocks) GrownTable(long entries)
    {
        int perCluster = Geometry.ClusterSize / 8;
        long wanted = Math.Max(entries + (entries / 2), Table.Count * 2L);
        while (true)
        {
            long tableClusters = Round.Units(wanted, perCluster);
            long blocks = (tableClusters + PerBlock - 2) / (PerBlock - 1); // each block counts itself, too
            if (tableClusters << Geometry.ClusterBits > Qcow2Header.MaxRefcountTableBytes)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.NoSpace,
                    $"{File.Name}: the image needs a refcount table of more than {Qcow2Header.MaxRefcountTableBytes:#,0} bytes,"
                        + $" QEMU's limit."
                        + $" Convert it to an image with larger clusters.",
                    File.Name);
            }
            if (tableClusters * perCluster >= Table.Count + blocks)
            {
                return (tableClusters, blocks);
            }
            wanted = Table.Count + blocks;
        }
    }
}
