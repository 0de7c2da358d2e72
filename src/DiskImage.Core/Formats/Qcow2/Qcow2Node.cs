using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// A qcow2 disk. This part: its state, and reading: guest offset → L1 → L2 → host cluster. Spec: qcow2, "Cluster mapping".
/// </summary>
/// <remarks>
/// <para><c>_gate</c> is the metadata lock: it guards the header, the tables, the caches and the allocator, and is held for look-ups
/// and updates in memory and for the metadata I/O they cause, never for guest data, except while the image is compacted.</para>
/// <para>Order of writes: refcount blocks, refcount table, L2 tables, L1 table, each behind a flush of the former. What loses its last
/// reference is given back after a flush. So a crash leaks space at most.</para>
/// </remarks>
internal sealed partial class Qcow2Node : FormatNode, IDescribed, IUnfinished, IRepairable, ICompressedWritable, IReservable
{
    private const int MaxSharedTables = 32 << 10; // L1 entries that lead to a table of another: a repair may leave some. Ours
    private const int MaxPieceBytes = 64 << 10; // of an L2 table, per cache entry. Ours

    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly WriteOrder _order;
    private readonly Qcow2Guard _guard;
    private readonly Qcow2Refcounts _refcounts;
    private readonly MetadataCache _l2;
    private readonly PointerTable _l1;
    private readonly BlockNode _dataNode;
    private readonly IBlockDecompressor _decompressor;
    private readonly IBlockCompressor _compressor;
    private readonly bool _discardToHost;
    private readonly bool? _lazyOption;
    private readonly Qcow2OverlapCheck _overlapCheck;
    private readonly bool _isSparse;
    private readonly bool _requiresAll;
    private readonly long _lengthAtOpen;
    private Qcow2Header _header;
    private Qcow2Geometry _geometry;
    private long _grownTo; // while the disk grows: its length to be

    private Qcow2Node(BlockNode file, BlockNode? dataFile, BlockNode? backing, Qcow2Header header, Qcow2OpenOptions options)
        : base(file, backing, dataFile is null ? [] : [("data-file", dataFile)])
    {
        _header = header;
        _geometry = new Qcow2Geometry(header);
        _dataNode = dataFile ?? file;
        _order = new WriteOrder(file) { DataFile = dataFile };
        _guard = new Qcow2Guard(file.Name, _geometry, options.OverlapCheck);
        _refcounts = new Qcow2Refcounts(file, _geometry, _order, _guard, options.RefcountCacheSize);
        _l2 = new MetadataCache(_order, Math.Min(_geometry.ClusterSize, MaxPieceBytes), options.L2CacheSize);
        _l1 = new PointerTable(_order);
        _decompressor = Qcow2Compression.Decompressor(header.CompressionType);
        _compressor = Qcow2Compression.Compressor(header.CompressionType);
        (_lazyOption, _overlapCheck) = (options.LazyRefcounts, options.OverlapCheck);
        _requiresAll = options.MissingClusters == Qcow2MissingClusters.Error;
        _discardToHost = options.Discard == Qcow2DiscardMode.Unmap;
        _isSparse = dataFile is not null || file.AllocatedLength < file.Length - (file.Length / 8);
        _lengthAtOpen = file.Length;
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => Math.Max(_header.Size, _grownTo);

    public override bool IsReadOnly { get; }

    protected override int AllocationUnit => _geometry.ClusterSize;

    protected override int ZeroUnit => _geometry.SubclusterSize;

    // Preallocated clusters and raw data files are full of holes; asking costs little where there is an eighth to win.
    protected override bool DataMayBeSparse => _isSparse;

    internal Qcow2Geometry Geometry => _geometry;

    internal Qcow2Header Header => _header;

    private BlockNode? DataFile => ReferenceEquals(_dataNode, File) ? null : _dataNode;

    /// <summary>Opens the tables of an image whose header is checked. The children are the node's on success.</summary>
    public static async ValueTask<Qcow2Node> OpenAsync(
        BlockNode file, BlockNode? dataFile, BlockNode? backing, Qcow2Header header, Qcow2OpenOptions options, bool forRepair, CancellationToken cancellationToken)
    {
        var node = new Qcow2Node(file, dataFile, backing, header, options);
        await node._l1.LoadAsync(header.L1TableOffset, header.L1Size, cancellationToken).ConfigureAwait(false);
        if (!forRepair)
        {
            node.RequireRoot();
        }
        if (!file.IsReadOnly && !forRepair)
        {
            await node.PrepareForWritingAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    /// <summary>Refuses an L1 table that cannot be one: it is not in the file, or leads to more tables than the file can hold.</summary>
    private void RequireRoot()
    {
        long needed = _geometry.L1EntriesFor(_header.Size), most = _geometry.Clusters(File.Length) + MaxSharedTables;
        if (needed > 0 && (_l1.HostOffset == 0 || _l1.HostOffset >= File.Length))
        {
            throw Corrupt($"the L1 table is at host offset {_l1.HostOffset:#,0}; allowed: a place behind the header and inside the file of {File.Length:#,0} bytes", _l1.HostOffset);
        }
        long used = 0;
        for (int i = _l1.NextUsed(0); i < _l1.Count && used <= most; i = _l1.NextUsed(i + 1))
        {
            used++;
        }
        if (used > most)
        {
            throw Corrupt($"the L1 table has more than {most:#,0} entries; a file of {File.Length:#,0} bytes cannot hold so many L2 tables", _l1.HostOffset);
        }
    }

    public ImageDescription Describe() => new()
    {
        Format = Qcow2Driver.FormatName,
        ClusterSize = _geometry.ClusterSize,
        BackingFile = _header.BackingFile,
        BackingFormat = _header.BackingFormat,
        Encrypted = _header.CryptMethod != 0,
        Dirty = _header.IsInChange,
        FormatSpecific = Qcow2Info.Of(_header),
    };

    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (!IsReadOnly)
        {
            await UnderGateAsync(() => SettleRefcountsAsync(cancellationToken)).ConfigureAwait(false);
        }
        return await AloneAsync(() => new Qcow2Checker(File, _header, bytes, cancellationToken, DataFile).RunAsync()).ConfigureAwait(false);
    }

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        await UnderGateAsync(async () =>
        {
            await SettleRefcountsAsync(cancellationToken).ConfigureAwait(false);
            await SettleBitmapsAsync().ConfigureAwait(false);
        }).ConfigureAwait(false);
        CheckReport report = await Qcow2Repairer.RunAsync(File, _header, DataFile, mode, bytes, cancellationToken).ConfigureAwait(false);
        await ReloadAsync(forWriting: report.Corruptions == 0, cancellationToken).ConfigureAwait(false);
        return report;
    });

    /// <summary>Forgets what is cached: the file was changed underneath. There must be nothing left to write.</summary>
    private async ValueTask ReloadAsync(bool forWriting, CancellationToken cancellationToken)
    {
        _header = await Qcow2Header.ReadAsync(File, forRepair: true, cancellationToken).ConfigureAwait(false);
        _geometry = new Qcow2Geometry(_header); // a repair may have widened the refcounts
        _refcounts.Restart(_geometry);
        _l2.Clear();
        await _l1.LoadAsync(_header.L1TableOffset, _header.L1Size, cancellationToken).ConfigureAwait(false);
        if (forWriting && !_header.Has(Qcow2Incompatible.Corrupt | Qcow2Incompatible.Dirty))
        {
            await PrepareForWritingAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            long end = Math.Min(Length, offset + length);
            BlockExtent run = await MapPieceAsync(offset, end, cancellationToken).ConfigureAwait(false);
            while (run.End < end && !run.IsCompressed)
            {
                BlockExtent next = await MapPieceAsync(run.End, end, cancellationToken).ConfigureAwait(false);
                if (!run.IsContinuedBy(next))
                {
                    break;
                }
                run = run with { Length = run.Length + next.Length };
            }
            return run;
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override async ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        L2Entry entry;
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            CachedPiece piece = (await L2PieceAsync(offset, cancellationToken).ConfigureAwait(false))!;
            entry = EntryAt(piece, PieceIndex(offset));
        }
        finally
        {
            _ = _gate.Release();
        }
        (long host, int maxLength) = entry.CompressedRange(_geometry.ClusterBits);
        int length = (int)Math.Clamp(File.Length - host, 0, maxLength);
        if (length == 0)
        {
            throw Missing("compressed cluster", _geometry.ClusterStart(offset), File, host);
        }
        bool whole = buffer.Length == _geometry.ClusterSize;
        byte[] packed = ArrayPool<byte>.Shared.Rent(length);
        byte[]? cluster = whole ? null : ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize);
        try
        {
            await File.ReadAsync(host, packed.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            Memory<byte> output = whole ? buffer : cluster.AsMemory(0, _geometry.ClusterSize);
            if (!_decompressor.TryDecompress(packed.AsSpan(0, length), output.Span))
            {
                throw Corrupt(
                    length < maxLength
                        ? $"the compressed cluster for guest offset {_geometry.ClusterStart(offset):#,0} goes on past the end of the file of {File.Length:#,0} bytes: it was cut off. If this is a copy that was cut short, copy the image again"
                        : $"the compressed cluster for guest offset {_geometry.ClusterStart(offset):#,0} does not decompress to {_geometry.ClusterSize:#,0} bytes",
                    host);
            }
            if (!whole)
            {
                output.Slice(_geometry.InCluster(offset), buffer.Length).CopyTo(buffer);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
            if (cluster is not null)
            {
                ArrayPool<byte>.Shared.Return(cluster);
            }
        }
    }

    /// <summary>The extent at an offset, as far as one piece of an L2 table, or a run of missing tables, tells.</summary>
    private async ValueTask<BlockExtent> MapPieceAsync(long offset, long end, CancellationToken cancellationToken)
    {
        int l1Index = _geometry.L1Index(offset);
        if (L1Entry(offset) == 0)
        {
            return new(offset, Math.Min(EndOfUnmapped(l1Index), Length) - offset, BlockStatus.None);
        }
        CachedPiece? piece = await L2PieceAsync(offset, cancellationToken).ConfigureAwait(false);
        return piece is not null
            ? MapInPiece(piece, offset, end)
            : new(offset, Math.Min((l1Index + 1) * _geometry.L2Span, Length) - offset, BlockStatus.None); // an entry of flags only
    }

    private BlockExtent MapInPiece(CachedPiece piece, long offset, long end)
    {
        int index = PieceIndex(offset), entries = _l2.PieceSize / _geometry.L2EntryBytes;
        BlockExtent run = ExtentOf(EntryAt(piece, index), offset);
        while (run.End < end && !run.IsCompressed)
        {
            index += _geometry.InCluster(run.End) == 0 ? 1 : 0;
            if (index == entries)
            {
                break;
            }
            BlockExtent next = ExtentOf(EntryAt(piece, index), run.End);
            if (!run.IsContinuedBy(next))
            {
                break;
            }
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Length - offset) };
    }

    /// <summary>From an offset to the end of its run of like subclusters inside one cluster.</summary>
    private BlockExtent ExtentOf(L2Entry entry, long offset)
    {
        RequireSound(entry, offset);
        int within = _geometry.InCluster(offset), subcluster = within / _geometry.SubclusterSize;
        int run = entry.RunOf(subcluster, _geometry.HasSubclusters);
        long length = ((long)(subcluster + run) * _geometry.SubclusterSize) - within;
        switch (entry.KindOf(subcluster, _geometry.HasSubclusters))
        {
            case ClusterKind.Unallocated:
                return new(offset, length, BlockStatus.None);
            case ClusterKind.Zero:
                if (_header.Version < 3)
                {
                    throw Corrupt($"the L2 entry for guest offset {offset:#,0} is a zero cluster, which version 2 does not have", entry.HostOffset);
                }
                return entry.HostOffset == 0
                    ? new(offset, length, BlockStatus.Allocated | BlockStatus.Zero)
                    : new(offset, length, BlockStatus.Allocated | BlockStatus.Zero, _dataNode, entry.HostOffset + within); // reserved there, not stored
            case ClusterKind.Compressed:
                return new(offset, _geometry.ClusterSize - within, BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed);
            default:
                if (entry.HostOffset >= _dataNode.Length && _requiresAll)
                {
                    throw Missing("cluster", offset - within, _dataNode, entry.HostOffset);
                }
                return new(offset, length, BlockStatus.Allocated | BlockStatus.Data, _dataNode, entry.HostOffset + within);
        }
    }

    /// <summary>The piece of the L2 table that maps an offset; null if the table is missing.</summary>
    private async ValueTask<CachedPiece?> L2PieceAsync(long guest, CancellationToken cancellationToken)
    {
        long table = L2Entry.OffsetOf(L1Entry(guest));
        if (table == 0)
        {
            return null;
        }
        RequireAligned(table, guest, "L1 entry");
        return await L2PieceAsync(table, PieceStart(guest), guest, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A piece of an L2 table; what the disk needs of it must be in the file.</summary>
    /// <param name="table">Where the table is.</param>
    /// <param name="start">Where in it the piece begins.</param>
    /// <param name="guest">Any offset that the table maps.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    private ValueTask<CachedPiece> L2PieceAsync(long table, long start, long guest, CancellationToken cancellationToken)
    {
        if (table + start + _l2.PieceSize > File.Length && _requiresAll && !_l2.Holds(table + start))
        {
            long first = (guest & -_geometry.L2Span) + (start / _geometry.L2EntryBytes << _geometry.ClusterBits);
            long needed = Math.Clamp(_geometry.Clusters(Length - first) * _geometry.L2EntryBytes, 0, _l2.PieceSize);
            if (table + start + needed > File.Length)
            {
                throw Missing("L2 table", guest, File, table);
            }
        }
        return _l2.GetAsync(table + start, cancellationToken);
    }

    /// <summary>Where a run of ranges without an L2 table ends, or what the file has of the L1 table.</summary>
    private long EndOfUnmapped(int l1Index)
    {
        int next = _l1.NextUsed(l1Index);
        return (l1Index < _l1.Stored ? Math.Min(next, _l1.Stored) : next) * _geometry.L2Span; // counts of entries are bounded, so this fits
    }

    /// <summary>The L1 entry of an offset, which the file must have.</summary>
    private ulong L1Entry(long guest)
    {
        int index = _geometry.L1Index(guest);
        ulong entry = _l1[index];
        return entry != 0 || index < _l1.Stored || !_requiresAll ? entry : throw Missing("L1 table", guest, File, _l1.HostOffset);
    }

    /// <summary>Byte offset, in its L2 table, of the piece that maps an offset.</summary>
    private long PieceStart(long guest) => Round.Down((long)_geometry.L2Index(guest) * _geometry.L2EntryBytes, _l2.PieceSize);

    /// <summary>Index of an offset's entry in its piece.</summary>
    private int PieceIndex(long guest) => _geometry.L2Index(guest) & ((_l2.PieceSize / _geometry.L2EntryBytes) - 1);

    private L2Entry EntryAt(CachedPiece piece, int index)
    {
        L2Entry entry = _geometry.HasSubclusters
            ? new(BigEndian.U64(piece.Bytes, index * 16), BigEndian.U64(piece.Bytes, (index * 16) + 8))
            : new(BigEndian.U64(piece.Bytes, index * 8));
        bool isNowhere = entry is { HostOffset: 0, IsCompressed: false, IsCopied: true } && ReferenceEquals(_dataNode, File);
        return isNowhere ? entry.WithCopied(false) : entry; // offset 0 is a place in an external data file only
    }

    private void SetEntry(CachedPiece piece, int index, L2Entry entry)
    {
        BigEndian.U64(piece.Bytes, index * _geometry.L2EntryBytes, entry.Raw);
        if (_geometry.HasSubclusters)
        {
            BigEndian.U64(piece.Bytes, (index * 16) + 8, entry.Bitmap);
        }
        _l2.Changed(piece, index * _geometry.L2EntryBytes, _geometry.L2EntryBytes);
    }

    /// <summary>Refuses an entry by which nothing can be read or written: misplaced, or with subclusters that contradict each other.</summary>
    private void RequireSound(L2Entry entry, long guest)
    {
        bool isExternal = !ReferenceEquals(_dataNode, File);
        if (entry.Fault(_geometry.HasSubclusters, isExternal) is { } fault)
        {
            throw Corrupt($"the L2 entry for guest offset {guest:#,0} {fault}", entry.HostOffset);
        }
        if (entry.IsCompressed || entry.HostOffset == 0)
        {
            return;
        }
        RequireAligned(entry.HostOffset, guest, "L2 entry");
        if (isExternal && entry.HostOffset != _geometry.ClusterStart(guest))
        {
            throw Corrupt(
                $"the L2 entry for guest offset {guest:#,0} points to offset {entry.HostOffset:#,0} of the external data file; allowed: {_geometry.ClusterStart(guest):#,0}, where the guest has it",
                entry.HostOffset);
        }
    }

    /// <summary>Something that the tables say is there lies past the end of its file.</summary>
    private static DiskImageException Missing(string what, long guest, BlockNode file, long host) => new(
        DiskImageErrorKind.Corrupt,
        $"{file.Name}: the {what} for guest offset {guest:#,0} is at host offset {host:#,0}, but the file has only {file.Length:#,0} bytes. If this is a copy that was cut short, copy the image again."
            + " Repair-DiskImage -Mode All makes what is missing read as zeroes for good; the open option missing-clusters=zero only reads it so, as QEMU does.",
        file.Name,
        host);

    private void RequireAligned(long hostOffset, long guest, string what)
    {
        if (_geometry.InCluster(hostOffset) != 0)
        {
            throw Corrupt(
                $"the {what} for guest offset {guest:#,0} points to host offset {hostOffset:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}", hostOffset);
        }
    }

    private DiskImageException Corrupt(string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{Name}: {what}. Look at all of it with Test-DiskImage.", Name, offset);
}
