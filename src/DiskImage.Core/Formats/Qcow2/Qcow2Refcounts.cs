using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// The refcounts of an image and the allocation of its clusters. Spec: qcow2, "Host cluster management".
/// </summary>
/// <remarks>
/// <para>Idea. A refcount block describes a range of host clusters. A block that is missing describes free clusters, and when it is
/// needed it is placed in the first cluster of its own range: that cluster is free, and the block counts itself. So a new
/// block needs no other block, and the table entry is all there is to write besides. When the table is too small, a larger one
/// is placed in the first range that the old one does not cover.</para>
/// <para>Order of writes: refcount blocks, refcount table, then (declared by the node) L2 and L1 tables. Space is given back in two
/// steps: <see cref="FreeAfterFlush"/> notes it, and only when the removal of the last reference is durable does the
/// refcount go down and the space become allocatable. After a crash an image may leak clusters; it never shares one.</para>
/// <para>Finding space: everything below <c>_firstFree</c> is known to be in use, so a search never starts from zero again.</para>
/// <para>Not thread-safe: the node's metadata lock guards it.</para>
/// </remarks>
internal sealed partial class Qcow2Refcounts
{
    private readonly BlockNode _file;
    private Qcow2Geometry _geometry;
    private readonly WriteOrder _order;
    private readonly Qcow2Guard _guard;
    private readonly MetadataCache _blocks;
    private readonly PointerTable _table;
    private readonly List<(long Offset, long Length)> _toFree = [];
    private long _firstFree; // cluster index: all clusters below are in use
    private long _toFreeBytes;
    private long _freeByte; // where the next compressed data may go, inside a cluster that is in use; 0 for nowhere

    public Qcow2Refcounts(BlockNode file, Qcow2Geometry geometry, WriteOrder order, Qcow2Guard guard, long cacheBytes)
    {
        (_file, _geometry, _order, _guard) = (file, geometry, order, guard);
        _blocks = new MetadataCache(order, geometry.ClusterSize, cacheBytes);
        _table = new PointerTable(order);
    }

    /// <summary>Where the refcount table is; changes when it grows.</summary>
    public long TableOffset => _table.HostOffset;

    public int TableClusters => (int)_geometry.Clusters(_table.Count * 8L);

    public PointerTable Table => _table;

    /// <summary>Bytes that become free with the next flush.</summary>
    public long PendingFree => _toFreeBytes;

    private int PerBlock => 1 << _geometry.RefcountsPerBlockBits;

    public async ValueTask LoadAsync(Qcow2Header header, CancellationToken cancellationToken)
    {
        Restart(_geometry);
        await _table.LoadAsync(header.RefcountTableOffset, header.RefcountTableClusters * (header.ClusterSize / 8), cancellationToken).ConfigureAwait(false);
        for (int i = _table.NextUsed(0); i < _table.Count; i = _table.NextUsed(i + 1))
        {
            long offset = L2Entry.OffsetOf(_table[i]);
            if (_geometry.InCluster(offset) != 0 || offset >= _file.Length)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{_file.Name}: refcount table entry {i} points to offset {offset:#,0}; allowed: a multiple of {_geometry.ClusterSize:#,0} inside the file's {_file.Length:#,0} bytes. Repair the image with Repair-DiskImage.",
                    _file.Name,
                    _table.HostOffset + (i * 8L));
            }
            _guard.AddTable(offset);
        }
    }

    /// <summary>The refcount of a cluster, counted from the start of the file.</summary>
    public async ValueTask<ulong> GetAsync(long cluster, CancellationToken cancellationToken)
        => await BlockAsync(cluster, cancellationToken).ConfigureAwait(false) is { } block
            ? RefcountBlock.Get(block.Bytes, (int)(cluster & (PerBlock - 1)), _geometry.RefcountOrder)
            : 0;

    /// <summary>
    /// Takes up to <paramref name="count"/> free clusters in a row, refcount 1. Fewer only if the first free ones are a
    /// shorter gap.
    /// </summary>
    public async ValueTask<(long Offset, int Count)> AllocateAsync(int count)
    {
        while (true)
        {
            long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
            _firstFree = first;
            int index = (int)(first & (PerBlock - 1));
            CachedPiece block = await EnsureBlockAsync(first).ConfigureAwait(false);
            if (RefcountBlock.Get(block.Bytes, index, _geometry.RefcountOrder) != 0)
            {
                continue; // the new block took the very cluster
            }
            int end = RefcountBlock.NextUsed(block.Bytes, index, Math.Min(index + count, PerBlock), _geometry.RefcountOrder);
            for (int i = index; i < end; i++)
            {
                Put(block, i, 1);
            }
            _firstFree = first + (end - index);
            Note(HostOffset(first), (long)(end - index) << _geometry.ClusterBits);
            return (HostOffset(first), end - index);
        }
    }

    /// <summary>Takes <paramref name="count"/> free clusters in a row, for tables; searches until there are that many.</summary>
    public async ValueTask<long> AllocateContiguousAsync(long count)
    {
        long first = await FindFreeAsync(_firstFree).ConfigureAwait(false);
        for (long run = 0; run < count;)
        {
            long cluster = first + run;
            if (count >= PerBlock && await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is null)
            {
                return await AllocateBehindAsync(count).ConfigureAwait(false); // a block at the start of each range leaves no room for it
            }
            _ = await EnsureBlockAsync(cluster).ConfigureAwait(false);
            if (await GetAsync(cluster, CancellationToken.None).ConfigureAwait(false) == 0)
            {
                run++;
            }
            else
            {
                (first, run) = (await FindFreeAsync(cluster + 1).ConfigureAwait(false), 0);
            }
        }
        await AddAsync(HostOffset(first), count << _geometry.ClusterBits, +1).ConfigureAwait(false);
        return HostOffset(first);
    }

    /// <summary>
    /// Takes clusters in a row, more than a refcount block counts, in the ranges behind all that have a block. Their blocks lie in a
    /// row before them, and nothing else can be in use there.
    /// </summary>
    private async ValueTask<long> AllocateBehindAsync(long count)
    {
        int blocks = checked((int)Round.Units(count, PerBlock - 1)), range; // each block counts itself, too
        while (true)
        {
            for (range = _table.Count; range > 0 && _table[range - 1] == 0; range--)
            {
            }
            if (range + blocks <= _table.Count)
            {
                break;
            }
            await GrowTableAsync(range + blocks).ConfigureAwait(false);
        }
        long start = (long)range << _geometry.RefcountsPerBlockBits, left = blocks + count;
        _guard.Require(HostOffset(start), left << _geometry.ClusterBits);
        for (int i = 0; i < blocks; i++)
        {
            CachedPiece block = await _blocks.GetNewAsync(HostOffset(start + i)).ConfigureAwait(false);
            for (int used = 0; left > 0 && used < PerBlock; used++, left--)
            {
                Put(block, used, 1);
            }
            _table[range + i] = (ulong)HostOffset(start + i);
            _guard.AddTable(HostOffset(start + i));
        }
        Note(HostOffset(start + blocks), count << _geometry.ClusterBits);
        return HostOffset(start + blocks);
    }

    /// <summary>
    /// Takes bytes for compressed data, packed behind what was taken before where that is possible: a cluster then has as many
    /// references as pieces of data in it.
    /// </summary>
    /// <param name="length">Bytes, fewer than a cluster has.</param>
    public async ValueTask<long> AllocateBytesAsync(int length)
    {
        long current = _freeByte >> _geometry.ClusterBits;
        bool canShare = _freeByte != 0 && await GetAsync(current, CancellationToken.None).ConfigureAwait(false) < _geometry.MaxRefcount;
        int room = canShare ? _geometry.ClusterSize - _geometry.InCluster(_freeByte) : 0;
        long offset = _freeByte;
        long fresh = 0;
        if (length > room)
        {
            (fresh, _) = await AllocateAsync(1).ConfigureAwait(false);
            canShare &= fresh == HostOffset(current + 1); // then it straddles
            offset = canShare ? _freeByte : fresh;
        }
        try
        {
            await AddAsync(HostOffset(current), canShare ? 1 : 0, +1).ConfigureAwait(false);
        }
        catch
        {
            await AddAsync(fresh, fresh == 0 ? 0 : 1, -1).ConfigureAwait(false);
            throw;
        }
        _freeByte = offset + length;
        if (_geometry.InCluster(_freeByte) == 0)
        {
            _freeByte = 0;
        }
        return offset;
    }

    /// <summary>Adds 1 or -1 to the refcount of every cluster that the range touches, now.</summary>
    /// <exception cref="DiskImageException">Corrupt if a refcount would leave its range.</exception>
    public async ValueTask AddAsync(long offset, long length, int change)
    {
        long end = _geometry.Clusters(offset + length);
        for (long cluster = offset >> _geometry.ClusterBits; cluster < end;)
        {
            CachedPiece block = await EnsureBlockAsync(cluster).ConfigureAwait(false);
            int index = (int)(cluster & (PerBlock - 1)), stop = (int)Math.Min(PerBlock, index + (end - cluster));
            AddInBlock(block, index, stop, cluster, change);
            if (change > 0)
            {
                Note(HostOffset(cluster), (long)(stop - index) << _geometry.ClusterBits);
            }
            cluster += stop - index;
        }
    }

    /// <summary>Changes the refcounts [index, stop) of a block, all or none.</summary>
    private void AddInBlock(CachedPiece block, int index, int stop, long cluster, int change)
    {
        int order = _geometry.RefcountOrder;
        for (int i = index; i < stop; i++)
        {
            if (RefcountBlock.Get(block.Bytes, i, order) == (change > 0 ? _geometry.MaxRefcount : 0))
            {
                throw CannotAdd(cluster + i - index, change);
            }
        }
        for (int i = index; i < stop; i++, cluster++)
        {
            ulong old = RefcountBlock.Get(block.Bytes, i, order);
            _ = RefcountBlock.Set(block.Bytes, i, order, change > 0 ? old + 1 : old - 1);
            if (change < 0 && old == 1)
            {
                _firstFree = Math.Min(_firstFree, cluster);
                _guard.RemoveTable(HostOffset(cluster)); // before anything can fail: the next owner may write there
                _freeByte = _freeByte >> _geometry.ClusterBits == cluster ? 0 : _freeByte;
            }
        }
        int start = (index << order) >> 3;
        _blocks.Changed(block, start, (((stop << order) + 7) >> 3) - start);
    }

    private DiskImageException CannotAdd(long cluster, int change) => new(
        change > 0 ? DiskImageErrorKind.OutOfRange : DiskImageErrorKind.Corrupt,
        change > 0
            ? $"{_file.Name}: a cluster would need a refcount above {_geometry.MaxRefcount}, the most that {1 << _geometry.RefcountOrder} refcount bits hold"
            : $"{_file.Name}: the refcount of the cluster at offset {HostOffset(cluster):#,0} is 0 although it is in use. Check the image with Test-DiskImage.",
        _file.Name,
        HostOffset(cluster));

    /// <summary>Notes a range whose last reference from the tables was just removed; it is given back after the next flush.</summary>
    public void FreeAfterFlush(long offset, long length)
    {
        if (length == 0)
        {
            return; // a table of no entries
        }
        Append(_toFree, offset, length);
        _toFreeBytes += length;
    }

    /// <summary>Adds a range to a list; it is joined with the last one where it continues that at the start of a cluster.</summary>
    private void Append(List<(long Offset, long Length)> ranges, long offset, long length)
    {
        if (ranges.Count > 0 && ranges[^1] is var last && last.Offset + last.Length == offset && (offset & (_geometry.ClusterSize - 1)) == 0)
        {
            ranges[^1] = (last.Offset, last.Length + length);
        }
        else
        {
            ranges.Add((offset, length));
        }
    }

    /// <summary>
    /// Called when everything is durable: the noted ranges become free. If it fails, what is not free yet stays noted.
    /// </summary>
    /// <param name="free">Gets the clusters that have no reference left, also if it fails.</param>
    public async ValueTask ReleaseAsync(List<(long Offset, long Length)> free)
    {
        while (_toFree.Count > 0)
        {
            (long offset, long length) = _toFree[^1];
            long last = _geometry.Clusters(offset + length) - 1;
            long start = Math.Max(offset, HostOffset(last & -PerBlock)); // as far as one refcount block goes
            length -= start - offset;
            CachedPiece block = await EnsureBlockAsync(last).ConfigureAwait(false);
            _toFree.RemoveAt(_toFree.Count - 1);
            if (start > offset)
            {
                _toFree.Add((offset, start - offset));
            }
            _toFreeBytes -= length;
            int index = (int)((start >> _geometry.ClusterBits) & (PerBlock - 1)), stop = (int)(last & (PerBlock - 1)) + 1;
            AddInBlock(block, index, stop, start >> _geometry.ClusterBits, -1);
            for (long cluster = start >> _geometry.ClusterBits; index < stop; index++, cluster++)
            {
                if (RefcountBlock.Get(block.Bytes, index, _geometry.RefcountOrder) == 0)
                {
                    Append(free, HostOffset(cluster), _geometry.ClusterSize);
                }
            }
        }
    }

    /// <summary>Where the last cluster that is in use ends.</summary>
    public async ValueTask<long> UsedEndAsync()
    {
        for (int i = _table.Count - 1; i >= 0; i--)
        {
            if (await BlockAsync((long)i << _geometry.RefcountsPerBlockBits, CancellationToken.None).ConfigureAwait(false) is { } block)
            {
                int k = PerBlock - 1;
                while (k >= 0 && RefcountBlock.Get(block.Bytes, k, _geometry.RefcountOrder) == 0)
                {
                    k--;
                }
                if (k >= 0)
                {
                    return HostOffset(((long)i << _geometry.RefcountsPerBlockBits) + k + 1);
                }
            }
        }
        return _geometry.ClusterSize;
    }

    /// <summary>Forgets everything: the structure was replaced, perhaps by one of another width. Nothing may be left to write.</summary>
    public void Restart(Qcow2Geometry geometry)
    {
        _geometry = geometry;
        _blocks.Clear();
        _toFree.Clear();
        (_account, _owed) = (null, []);
        (_firstFree, _freeByte, _toFreeBytes) = (0, 0, 0);
    }

    private long HostOffset(long cluster) => cluster << _geometry.ClusterBits;

    private void Put(CachedPiece block, int index, ulong value)
    {
        (int start, int length) = RefcountBlock.Set(block.Bytes, index, _geometry.RefcountOrder, value);
        _blocks.Changed(block, start, length);
    }

    private async ValueTask<CachedPiece?> BlockAsync(long cluster, CancellationToken cancellationToken)
    {
        long index = cluster >> _geometry.RefcountsPerBlockBits;
        long offset = index < _table.Count ? L2Entry.OffsetOf(_table[(int)index]) : 0;
        if (offset == 0)
        {
            return null;
        }
        return await _blocks.GetAsync(offset, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<CachedPiece> EnsureBlockAsync(long cluster)
    {
        if (await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false) is { } existing)
        {
            return existing;
        }
        long index = cluster >> _geometry.RefcountsPerBlockBits;
        if (HostOffset(cluster) >= Qcow2Header.MaxHostOffset)
        {
            throw new DiskImageException(DiskImageErrorKind.NoSpace, $"{_file.Name}: the image file cannot grow past {Qcow2Header.MaxHostOffset:#,0} bytes", _file.Name);
        }
        if (index >= _table.Count)
        {
            await GrowTableAsync(index + 1).ConfigureAwait(false);
            return (await BlockAsync(cluster, CancellationToken.None).ConfigureAwait(false)) ?? await EnsureBlockAsync(cluster).ConfigureAwait(false);
        }
        long own = index << _geometry.RefcountsPerBlockBits;
        _guard.Require(HostOffset(own), _geometry.ClusterSize);
        CachedPiece block = await _blocks.GetNewAsync(HostOffset(own)).ConfigureAwait(false);
        Put(block, 0, 1);
        _table[(int)index] = (ulong)HostOffset(own);
        _guard.AddTable(HostOffset(own));
        return block;
    }

    /// <summary>Index of the first free cluster at or after <paramref name="from"/>; always finds one, at worst past the end.</summary>
    private async ValueTask<long> FindFreeAsync(long from)
    {
        while (true)
        {
            if (await BlockAsync(from, CancellationToken.None).ConfigureAwait(false) is not { } block)
            {
                return from;
            }
            int index = (int)(from & (PerBlock - 1));
            int found = RefcountBlock.NextFree(block.Bytes, index, PerBlock, _geometry.RefcountOrder);
            from += found - index;
            if (found < PerBlock)
            {
                return from;
            }
        }
    }

    /// <summary>
    /// Moves to a larger refcount table. The new one, and the blocks that count it, lie in the first ranges the old one does not
    /// cover, so nothing there can be in use. Written and flushed before the header changes hands.
    /// </summary>
    private async ValueTask GrowTableAsync(long entries)
    {
        int perCluster = _geometry.ClusterSize / 8;
        long wanted = Math.Max(entries + (entries / 2), _table.Count * 2L);
        long start = (long)_table.Count << _geometry.RefcountsPerBlockBits; // first cluster the old table does not cover
        long tableClusters, blocks;
        while (true)
        {
            tableClusters = Round.Units(wanted, perCluster);
            blocks = (tableClusters + PerBlock - 2) / (PerBlock - 1); // each block counts itself, too
            if (tableClusters * perCluster >= _table.Count + blocks)
            {
                break;
            }
            wanted = _table.Count + blocks;
        }
        if (tableClusters << _geometry.ClusterBits > Qcow2Header.MaxRefcountTableBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace,
                $"{_file.Name}: the image needs a refcount table of more than {Qcow2Header.MaxRefcountTableBytes:#,0} bytes, QEMU's limit. Convert it to an image with larger clusters.",
                _file.Name);
        }
        byte[] bytes = new byte[tableClusters << _geometry.ClusterBits];
        _table.Bytes.CopyTo(bytes);
        _guard.Require(HostOffset(start), (blocks + tableClusters) << _geometry.ClusterBits);
        long tableOffset = HostOffset(start + blocks);
        (long oldOffset, long oldLength) = (_table.HostOffset, Round.Up(_table.Count * 8L, _geometry.ClusterSize));
        try
        {
            for (long i = 0, left = blocks + tableClusters; i < blocks; i++) // the blocks in a row, then the table
            {
                CachedPiece block = await _blocks.GetNewAsync(HostOffset(start + i)).ConfigureAwait(false);
                BigEndian.U64(bytes, (int)(_table.Count + i) * 8, (ulong)HostOffset(start + i));
                for (int used = 0; left > 0 && used < PerBlock; used++, left--)
                {
                    Put(block, used, 1);
                }
            }
            await _order.WriteBackAsync().ConfigureAwait(false);
            await _file.WriteAsync(tableOffset, bytes).ConfigureAwait(false);
            await _file.FlushAsync().ConfigureAwait(false);
            byte[] field = new byte[12];
            BigEndian.U64(field, 0, (ulong)tableOffset);
            BigEndian.U32(field, 8, (uint)tableClusters);
            await _file.WriteAsync(Qcow2Header.RefcountTableAt, field).ConfigureAwait(false);
            await _file.FlushAsync().ConfigureAwait(false);
        }
        catch
        {
            _blocks.Forget(HostOffset(start), blocks << _geometry.ClusterBits); // the next attempt goes to the same place
            throw;
        }
        for (long i = 0; i < blocks; i++)
        {
            _guard.AddTable(HostOffset(start + i));
        }
        _table.Replace(tableOffset, bytes);
        _guard.RefcountTable = (tableOffset, bytes.Length);
        FreeAfterFlush(oldOffset, oldLength);
    }
}
