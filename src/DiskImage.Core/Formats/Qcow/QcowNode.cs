using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow;

/// <summary>A qcow disk of version 1: guest offset → L1 table → L2 table → cluster of the file, plain or compressed.</summary>
/// <remarks>
/// <para>There are no reference counts, and every program puts what is new at the end of the file. So does this: places are handed out in
/// order and none is used again. Order of writes: data and new tables, L2 entries, L1 entries; a crash leaks at most.</para>
/// <para>All tables are read when an image is opened for writing: one that leads out of the file, or to two uses of one place,
/// is not written to.</para>
/// </remarks>
internal sealed class QcowNode : FormatNode, IDescribed, ICheckable, IRebasable, IEmptiable, ICompressedWritable, IReservable
{
    private const int MostAtOnce = 4 << 20; // bytes of new clusters in one step
    private const int CacheBytes = 32 << 20;

    private readonly MetadataSession _session;
    private readonly MetadataCache _l2;
    private readonly PointerTable _l1;
    private readonly DecodedUnits _decoded;
    private readonly ReservedPlaces _reserved = new();
    private QcowHeader _header;
    private long _end; // where the next place is
    private long _zeroFrom; // from here on the file reads as zeroes

    private QcowNode(BlockNode file, BlockNode? backing, QcowHeader header, ISectorCipher? cipher)
        : base(file, backing)
    {
        (_header, Cipher) = (header, cipher);
        _session = new MetadataSession(file);
        _l2 = new MetadataCache(_session.Order, header.L2Bytes, CacheBytes)
        {
            Events = (DebugEvent.L2Load, DebugEvent.L2Update),
        }; // a piece is a table
        _l1 = new PointerTable(_session.Order) { Events = (DebugEvent.None, DebugEvent.L1Update) };
        IsReadOnly = file.IsReadOnly;
        _end = _zeroFrom = file.Length;
        _decoded = new DecodedUnits(CacheBytes / 8, (entry, buffer, token) => DecodeAsync(new QcowEntry((ulong)entry), buffer, token));
    }

    public override long Length => _header.Size;

    public override bool IsReadOnly { get; }

    public int CompressionUnit => _header.ClusterSize;

    protected override int AllocationUnit => _header.ClusterSize;

    protected override bool DataMayBeSparse => true; // zeroed clusters are holes

    protected override ISectorCipher? Cipher { get; }

    /// <summary>Reads the L1 table; to write, all tables. The file and the backing image are the node's on success.</summary>
    public static async ValueTask<QcowNode> OpenAsync(
        BlockNode file, BlockNode? backing, QcowHeader header, ISectorCipher? cipher, CancellationToken cancellationToken)
    {
        var node = new QcowNode(file, backing, header, cipher);
        await node._l1.LoadAsync(header.L1Offset, header.L1Entries, cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly)
        {
            var findings = new CheckFindings();
            var checker = new QcowChecker(file, header, node._l1);
            _ = await checker.RunAsync(findings, null, decode: false, cancellationToken).ConfigureAwait(false);
            if (findings.Corruptions > 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{file.Name}: {findings.List.First(f => f.Severity == CheckSeverity.Corruption).Message}, so nothing can be written "
                        + $"safely. What can be read of it can be converted.",
                    file.Name);
            }
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = QcowDriver.FormatName,
        ClusterSize = _header.ClusterSize,
        BackingFile = _header.BackingFile,
        Encrypted = _header.CryptMethod != 0,
        FormatSpecific = new QcowInfo { L2Entries = _header.L2Entries, MaximumSize = _header.MaxSize },
    };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(
        () => _session.CheckAsync(
            token => new QcowChecker(File, _header, _l1).RunAsync(new CheckFindings(), bytes, decode: true, token),
            bytes: null, // the checker tells
            Length,
            cancellationToken),
        cancellationToken);

    public int? Compress(ReadOnlySpan<byte> unit, Span<byte> output)
    {
        output = output[..(_header.ClusterSize - 1)]; // as large as a plain cluster would be no gain, nor fit the entry
        if (unit.Length == _header.ClusterSize)
        {
            return DeflateCodec.Instance.Compress(unit, output);
        }
        byte[] padded = ArrayPool<byte>.Shared.Rent(_header.ClusterSize); // the last cluster is compressed whole
        unit.CopyTo(padded);
        padded.AsSpan(unit.Length, _header.ClusterSize - unit.Length).Clear();
        int? length = DeflateCodec.Instance.Compress(padded.AsSpan(0, _header.ClusterSize), output);
        ArrayPool<byte>.Shared.Return(padded);
        return length;
    }

    public ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken) => AloneAsync(
        () => _session.RunAsync(
            async held =>
            {
                if (IsReadOnly || Cipher is not null || offset % _header.ClusterSize != 0)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Unsupported,
                        $"{Name}: a compressed cluster goes to a writable image that is not encrypted, at a multiple of "
                            + $"{_header.ClusterSize:#,0}",
                        Name);
                }
                long cluster = offset >> _header.ClusterBits;
                await RequireTableAsync(cluster).ConfigureAwait(false);
                long place = Take(packed.Length, alignment: 1);
                await File.WriteAsync(place, packed, cancellationToken).ConfigureAwait(false);
                _session.Order.DataWritten();
                await SetAsync(cluster, QcowEntry.Compressed(place, packed.Length, _header.ClusterBits)).ConfigureAwait(false);
            },
            cancellationToken),
        cancellationToken);

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long last = (offset + length - 1) >> _header.ClusterBits;
        for (long cluster = offset >> _header.ClusterBits; cluster <= last; cluster++)
        {
            if (!_reserved.Has(cluster) && !(await GetAsync(cluster, cancellationToken).ConfigureAwait(false)).IsPlain)
            {
                await RequireTableAsync(cluster).ConfigureAwait(false);
                _reserved.Add(cluster, Take(_header.ClusterSize, _header.ClusterSize));
            }
        }
    }

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => AloneAsync(
        () => _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                QcowHeader header = _header with { BackingFile = null, NameOffset = 0, Time = 0 };
                if (!string.IsNullOrEmpty(backingFile))
                {
                    // a new place, so that the old name is good until the header changes
                    byte[] name = QcowHeader.NameBytes(backingFile, Name);
                    header = header with { BackingFile = backingFile, NameOffset = Take(name.Length, alignment: QcowHeader.EntryBytes) };
                    await File.WriteAsync(header.NameOffset, name).ConfigureAwait(false);
                    await File.FlushAsync().ConfigureAwait(false);
                }
                await SetHeaderAsync(header).ConfigureAwait(false);
            },
            cancellationToken),
        cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(
        () => _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                byte[] empty = new byte[_header.L1Entries * QcowHeader.EntryBytes];
                await File.WriteAsync(_header.L1Offset, empty, cancellationToken).ConfigureAwait(false);
                await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
                _l1.Replace(_header.L1Offset, empty);
                _l2.Clear();
                _reserved.Clear();
                long name = _header.BackingFile is null ? 0 : _header.NameOffset + QcowHeader.MaxBackingName;
                _end = Math.Min(_end, Math.Max(_header.L1Offset + empty.Length, name));
                await File.ResizeAsync(_end).ConfigureAwait(false);
                _zeroFrom = _end;
            },
            cancellationToken),
        cancellationToken);

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await ExtentAsync(offset, cancellationToken).ConfigureAwait(false);
        while (run.End < end && !run.IsCompressed && await ExtentAsync(run.End, cancellationToken).ConfigureAwait(false) is var next
            && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Length - offset) };
    }

    protected override async ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        QcowEntry entry;
        using (MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false))
        {
            entry = await GetAsync(offset >> _header.ClusterBits, cancellationToken).ConfigureAwait(false);
        }
        await _decoded.ReadAsync(
            (long)entry.Raw,
            _header.ClusterSize,
            (int)(offset & (_header.ClusterSize - 1)),
            buffer,
            cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        int size = _header.ClusterSize;
        long first = offset / size, start = first * size, within = offset - start;
        long wanted = Math.Min(((within + length - 1) / size) + 1, Math.Max(1, MostAtOnce / size));
        wanted = Math.Min(wanted, (Round.Down(first, _header.L2Entries) + _header.L2Entries) - first); // one table at a time
        QcowEntry entry = await GetAsync(first, cancellationToken).ConfigureAwait(false);
        long count = 1;
        if (entry.IsPlain)
        {
            QcowChecker.RequirePlace(entry, first, _header, File);
            while (count < wanted
                && (await GetAsync(first + count, cancellationToken).ConfigureAwait(false)).Raw == entry.Raw + (ulong)(count * size))
            {
                count++;
            }
            return WriteMapping.InPlace(offset, Math.Min(length, (count * size) - within), File, (long)entry.Raw + within);
        }
        await RequireTableAsync(first).ConfigureAwait(false);
        if (!_reserved.TryTake(first, wanted, size, out long place, out count))
        {
            while (count < wanted && !_reserved.Has(first + count)
                && !(await GetAsync(first + count, cancellationToken).ConfigureAwait(false)).IsPlain)
            {
                count++;
            }
            place = Take(count * size, size);
        }
        if (File.Length < place + (count * size))
        {
            await File.ResizeAsync(place + (count * size), cancellationToken: cancellationToken).ConfigureAwait(false);
        }
        return new(
            offset,
            Math.Min(length, (count * size) - within),
            File,
            place + within,
            IsNew: true,
            start,
            start + (count * size),
            HostReadsZero: place >= _zeroFrom);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        _session.Order.DataWritten(); // the file has its length before an entry leads to its end
        for (long at = mapping.CopyStart; at < mapping.CopyEnd; at += _header.ClusterSize)
        {
            await SetAsync(at >> _header.ClusterBits, new((ulong)(mapping.HostStart + (at - mapping.CopyStart)))).ConfigureAwait(false);
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        if (mapping.HostStart + (mapping.CopyEnd - mapping.CopyStart) == _end)
        {
            _end = mapping.HostStart; // else it is lost
        }
        _zeroFrom = Math.Max(_zeroFrom, mapping.HostStart + (mapping.CopyEnd - mapping.CopyStart)); // something may have been written there
    }

    /// <summary>A plain cluster keeps its place, whose space goes back to the host.</summary>
    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        bool mustDecide = _header.BackingFile is not null || mode == ZeroWriteMode.KeepAllocated; // also over a backing file to come
        BlockExtent extent = await ExtentAsync(offset, cancellationToken).ConfigureAwait(false);
        long count = Math.Min(length, extent.Length);
        if (extent.HostOffset is not null && Cipher is not null)
        {
            return 0; // zeroes do not look like any
        }
        if (extent.HostOffset is long host)
        {
            await File.WriteZeroesAsync(host, count, mode, cancellationToken).ConfigureAwait(false);
        }
        else if (mustDecide)
        {
            return 0; // there is no mark for zeroes
        }
        else if (extent.IsCompressed)
        {
            await SetAsync(offset >> _header.ClusterBits, default).ConfigureAwait(false);
        }
        return count;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        // else the backing file's old data would show
        for (long end = offset + length; _header.BackingFile is null && Cipher is null && offset < end;)
        {
            offset += await ZeroUnitsAsync(offset, end - offset, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => _session.RunAsync(held => _session.FlushAsync(held, cancellationToken), cancellationToken);

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: a qcow image of version 1 grows without preallocation only; allowed: off",
                Name);
        }
        length = length > _header.MaxSize ? length : Round.Up(length, QcowHeader.SectorSize);
        if (length > _header.MaxSize || length < Length)
        {
            throw new DiskImageException(
                length < Length ? DiskImageErrorKind.Unsupported : DiskImageErrorKind.OutOfRange,
                $"{Name}: a qcow image of version 1 of {Length:#,0} bytes cannot have {length:#,0}; allowed: from its "
                    + $"present size to {_header.MaxSize:#,0}."
                    + " Convert it to qcow2, which can shrink and grow further.",
                Name);
        }
        await AloneAsync(() => GrowAsync(length, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(
                    held => _session.FlushAsync(held, CancellationToken.None), CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
            Cipher?.Dispose();
        }
    }

    /// <summary>What is new reads as zeroes before it is there; an L1 table that has no room left goes to the end of the file.</summary>
    private async ValueTask GrowAsync(long length, CancellationToken cancellationToken)
    {
        long old = Length, shown = _header.BackingFile is null ? old : Backing is null ? length : Math.Clamp(Backing.Length, old, length);
        QcowHeader header = _header with { Size = length };
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                if (header.L1Entries > _l1.Count)
                {
                    byte[] table = new byte[header.L1Entries * QcowHeader.EntryBytes];
                    _l1.Bytes.CopyTo(table);
                    long place = Take(Round.Up(table.Length, QcowHeader.SectorSize), _header.ClusterSize);
                    await File.ResizeAsync(Math.Max(File.Length, _end), cancellationToken: cancellationToken).ConfigureAwait(false);
                    await File.WriteAsync(place, table, cancellationToken).ConfigureAwait(false);
                    await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
                    header = header with { L1Offset = place };
                    await SetHeaderAsync(header with { Size = old }).ConfigureAwait(false);
                    _l1.Replace(place, table);
                }
            },
            cancellationToken).ConfigureAwait(false);
        long tail = Math.Min(length, Math.Max(shown, Round.Up(old, AllocationUnit)));
        bool mustZero = shown > old
            || (old < tail && (await _session.RunAsync(
                _ => GetAsync(old >> _header.ClusterBits, cancellationToken), cancellationToken).ConfigureAwait(false)).Raw != 0);
        if (mustZero)
        {
            await WriteZeroesMappedAsync(old, tail, cancellationToken).ConfigureAwait(false);
        }
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                await SetHeaderAsync(header).ConfigureAwait(false);
            },
            CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask SetHeaderAsync(QcowHeader header)
    {
        await File.WriteAsync(0, header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _header = header;
    }

    /// <summary>Takes the next place.</summary>
    private long Take(long length, long alignment)
    {
        long place = Round.Up(_end, alignment);
        _end = place + length;
        return place;
    }

    private async ValueTask<BlockExtent> ExtentAsync(long offset, CancellationToken cancellationToken)
    {
        int index = (int)(offset / _header.Span), size = _header.ClusterSize;
        if (_l1[index] == 0)
        {
            int next = _l1.NextUsed(index);
            return new(offset, Math.Min(next * _header.Span, Length) - offset, BlockStatus.None);
        }
        long cluster = offset >> _header.ClusterBits, within = offset - (cluster * size);
        QcowEntry entry = await GetAsync(cluster, cancellationToken).ConfigureAwait(false);
        if (entry.IsNowhere)
        {
            return new(offset, size - within, BlockStatus.None);
        }
        if (entry.IsCompressed)
        {
            return new(offset, size - within, BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed);
        }
        QcowChecker.RequirePlace(entry, cluster, _header, File);
        return new(offset, size - within, BlockStatus.Allocated | BlockStatus.Data, File, (long)entry.Raw + within);
    }

    /// <summary>The entry of a cluster.</summary>
    private async ValueTask<QcowEntry> GetAsync(long cluster, CancellationToken cancellationToken)
        => await TableAsync(cluster, cancellationToken).ConfigureAwait(false) is { } table
            ? new(BigEndian.U64(table.Bytes, (int)(cluster & (_header.L2Entries - 1)) * QcowHeader.EntryBytes))
            : default;

    private async ValueTask SetAsync(long cluster, QcowEntry entry)
    {
        CachedPiece table = (await TableAsync(cluster, CancellationToken.None).ConfigureAwait(false))!;
        int at = (int)(cluster & (_header.L2Entries - 1)) * QcowHeader.EntryBytes;
        BigEndian.U64(table.Bytes, at, entry.Raw);
        _l2.Changed(table, at, QcowHeader.EntryBytes);
    }

    private async ValueTask<CachedPiece?> TableAsync(long cluster, CancellationToken cancellationToken)
    {
        ulong place = _l1[(int)(cluster >> _header.L2Bits)];
        return place == 0 ? null
            : QcowChecker.IsTable(place, _header, File.Length) ? await _l2.GetAsync((long)place, cancellationToken).ConfigureAwait(false)
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the L1 entry for guest offset {cluster << _header.ClusterBits:#,0} leads to offset {place:#,0}; "
                    + $"allowed: behind the header, with the table's"
                    + $" {_header.L2Bytes:#,0} bytes in the file of {File.Length:#,0} bytes. Look at all of "
                    + $"it with {new Remedy(RemedyKind.Check)}.",
                Name,
                (long)(place & long.MaxValue));
    }

    /// <summary>Makes sure that the table for a cluster is there.</summary>
    private async ValueTask RequireTableAsync(long cluster)
    {
        int index = (int)(cluster >> _header.L2Bits);
        if (_l1[index] != 0)
        {
            return;
        }
        long place = Take(_header.L2Bytes, _header.ClusterSize);
        if (File.Length < _end)
        {
            await File.ResizeAsync(_end).ConfigureAwait(false);
        }
        _ = await _l2.GetNewAsync(place).ConfigureAwait(false); // zeroes, written before the entry
        _session.Order.DataWritten();
        _l1[index] = (ulong)place;
    }

    private async ValueTask DecodeAsync(QcowEntry entry, Memory<byte> output, CancellationToken cancellationToken)
    {
        (long host, int length) = entry.Range(_header.ClusterBits);
        if (!await QcowChecker.TryDecodeAsync(File, entry, _header, output, cancellationToken).ConfigureAwait(false))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the compressed cluster of {length:#,0} bytes at offset {host:#,0} does not "
                    + $"decompress to {_header.ClusterSize:#,0} bytes",
                Name,
                host);
        }
    }
}
