using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// A stream that is being written: compressed grains in ascending order, each table behind its grains, the directory, the footer. Spec:
/// Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
/// </summary>
/// <remarks>
/// <para>
/// Every request to the file begins where the last one ended. In memory are a table, the directory and one grain that is not complete.
/// </para>
/// <para>Layout of a version 3 stream as ESXi and OVF tools make and take it: header with the directory "at the end", descriptor, grains
/// from sector 128 on, no redundant copies; a table that would be empty is left out, its entry is 0. What is not written reads as
/// zeroes.</para>
/// </remarks>
internal sealed class VmdkStreamWriter : BlockNode, IDescribed, ICompressedWritable
{
    private const int OverheadSectors = 128, GrainBytes = VmdkHeader.DefaultGrainSectors * VmdkHeader.SectorSize;

    private readonly BlockNode _file;
    private readonly VmdkHeader _header;
    private readonly VmdkDescriptor _descriptor;
    private readonly SemaphoreSlim _gate = new(1, 1); // guards everything below: writes come one after the other
    private readonly byte[] _table = new byte[VmdkHeader.DefaultTableEntries * sizeof(uint)];
    private readonly byte[] _directory;
    private readonly byte[] _pending = new byte[GrainBytes];
    private readonly byte[] _packed = new byte[Round.Up(VmdkSparseExtent.MarkerBytes + ZlibCompressor.StoredBytes(GrainBytes),
        VmdkHeader.SectorSize)];
    private long _position = OverheadSectors * (long)VmdkHeader.SectorSize; // where the next request goes
    private long _grain = -1, _tableIndex; // the grain in hand, or the last that was stored; the table in hand
    private bool _hasPending, _isFinished;

    private VmdkStreamWriter(BlockNode file, VmdkHeader header, VmdkDescriptor descriptor)
    {
        (_file, _header, _descriptor) = (file, header, descriptor);
        _directory = new byte[Round.Up(header.DirectoryEntries * (long)sizeof(uint), VmdkHeader.SectorSize)];
        Children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file };
    }

    public override string Name => _file.Name;

    public override long Length => _header.Length;

    public override bool IsReadOnly => false;

    public override BlockLimits Limits { get; } = new(GrainBytes);

    public override IReadOnlyDictionary<string, BlockNode> Children { get; }

    public bool IsAlwaysCompressed => true;

    public int CompressionUnit => GrainBytes;

    /// <summary>The header of a stream, but for its descriptor.</summary>
    public static VmdkHeader Plan(long length) => new()
    {
        Version = 3,
        Flags = VmdkFlags.NewLineTest | VmdkFlags.Compressed | VmdkFlags.Markers,
        Capacity = length / VmdkHeader.SectorSize,
        GrainSectors = VmdkHeader.DefaultGrainSectors,
        DescriptorSector = 1,
        DescriptorSectors = VmdkCreator.DescriptorSectors,
        TableEntries = VmdkHeader.DefaultTableEntries,
        DirectorySector = VmdkHeader.AtEnd,
        Overhead = OverheadSectors,
        Compression = 1,
    };

    /// <summary>Writes all that comes before the first grain, in one request.</summary>
    public static async ValueTask BeginAsync(BlockNode file, VmdkDescriptor descriptor, long length, CancellationToken cancellationToken)
    {
        byte[] start = new byte[OverheadSectors * VmdkHeader.SectorSize], text = descriptor.ToBytes();
        if (text.Length > VmdkCreator.DescriptorSectors * VmdkHeader.SectorSize)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption,
                $"{file.Name}: the descriptor has {text.Length:#,0} bytes, and there is no room for it. Use a shorter name.", file.Name);
        }
        Plan(length).ToBytes().CopyTo(start, 0);
        text.CopyTo(start, VmdkHeader.SectorSize);
        await file.WriteAsync(0, start, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>True for a file that holds what <see cref="BeginAsync"/> writes, and nothing more.</summary>
    public static bool IsBegun(BlockNode file, VmdkHeader header)
        => header is { IsStream: true, Overhead: OverheadSectors } && file.Length == OverheadSectors * VmdkHeader.SectorSize
            && header == Plan(header.Length);

    /// <summary>Goes on with a stream that was begun. The file is the node's.</summary>
    public static VmdkStreamWriter Open(BlockNode file, VmdkHeader header, VmdkDescriptor descriptor) => new(file, header, descriptor);

    public ImageDescription Describe() => new()
    {
        Format = VmdkDriver.FormatName,
        ClusterSize = GrainBytes,
        Compressed = true,
        FormatSpecific = new VmdkInfo
        {
            CreateType = _descriptor.CreateType,
            Cid = VmdkParent.Text(_descriptor.Cid),
            AdapterType = _descriptor.Value(VmdkText.AdapterKey),
            HardwareVersion = _descriptor.Value(VmdkText.HardwareKey),
            ToolsVersion = _descriptor.Value(VmdkText.ToolsKey),
            Encoding = _descriptor.EncodingName,
            SparseVersion = (int)_header.Version,
            Extents = [.. _descriptor.Extents.Select(e => e.Text)],
        },
    };

    public int LargestCompressed => ZlibCompressor.StoredBytes(GrainBytes);

    /// <summary>
    /// What does not get smaller is stored as it is, as a stream of its own: so whoever compresses in parallel does that, too. A grain is
    /// always stored whole, with zeroes behind what there is.
    /// </summary>
    public int? Compress(ReadOnlySpan<byte> unit, Span<byte> output)
    {
        if (unit.Length == GrainBytes)
        {
            return ZlibCompressor.Instance.Compress(unit, output[..GrainBytes]) ?? ZlibCompressor.Store(unit, output);
        }
        byte[] whole = ArrayPool<byte>.Shared.Rent(GrainBytes);
        try
        {
            unit.CopyTo(whole);
            whole.AsSpan(unit.Length, GrainBytes - unit.Length).Clear();
            return Compress(whole.AsSpan(0, GrainBytes), output);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(whole);
        }
    }

    public async ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await BeginGrainAsync(offset / GrainBytes).ConfigureAwait(false);
            packed.CopyTo(_packed.AsMemory(VmdkSparseExtent.MarkerBytes));
            await StoreAsync(packed.Length).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_grain >= 0 && offset < (_grain + 1) * GrainBytes)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{Name}: a stream is written once, from front to back, and read when it is complete; offset {offset:#,0}"
                        + " was written already",
                    Name,
                    offset);
            }
            buffer.Span.Clear();
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            while (!buffer.IsEmpty)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long grain = offset / GrainBytes;
                int within = (int)(offset % GrainBytes), count = Math.Min(buffer.Length, GrainBytes - within);
                if (grain != _grain || !_hasPending)
                {
                    await BeginGrainAsync(grain).ConfigureAwait(false);
                    Array.Clear(_pending);
                    _hasPending = true;
                }
                buffer[..count].CopyTo(_pending.AsMemory(within));
                (offset, buffer) = (offset + count, buffer[count..]);
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>What is not written reads as zeroes; only what is in hand can be zeroed.</summary>
    protected override async ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode,
        CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            long start = offset, end = offset + length, held = _grain * GrainBytes;
            if (_hasPending && start < held + GrainBytes && start >= held)
            {
                int within = (int)(start - held), count = (int)Math.Min(end - start, GrainBytes - within);
                _pending.AsSpan(within, count).Clear();
                start += count;
            }
            if (start < end && start < (_grain + 1) * GrainBytes)
            {
                throw Passed(start / GrainBytes);
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(offset < (Volatile.Read(ref _grain) + 1) * GrainBytes
            ? new BlockExtent(offset, Math.Min(length, ((_grain + 1) * GrainBytes) - offset),
                BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed)
            : new BlockExtent(offset, length, BlockStatus.Zero));

    /// <summary>What was written so far; the stream has its end when it is closed.</summary>
    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => _file.FlushAsync(cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!_isFinished)
            {
                _isFinished = true;
                await FinishAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            _gate.Dispose();
        }
    }

    private DiskImageException Passed(long grain) => new(
        DiskImageErrorKind.Unsupported,
        $"{Name}: a stream (streamOptimized) is written once, from front to back: guest offset {grain * GrainBytes:#,0} comes"
            + $" before {_grain * GrainBytes:#,0}, which was written"
            + " already. Convert a complete disk to it.",
        Name,
        grain * GrainBytes);

    /// <summary>Stores what is in hand, and the tables before the next grain's.</summary>
    private async ValueTask BeginGrainAsync(long grain)
    {
        if (grain <= _grain)
        {
            throw Passed(grain);
        }
        await StorePendingAsync().ConfigureAwait(false);
        await StoreTablesAsync(grain / VmdkHeader.DefaultTableEntries).ConfigureAwait(false);
        Volatile.Write(ref _grain, grain);
    }

    private async ValueTask StorePendingAsync()
    {
        if (!_hasPending)
        {
            return;
        }
        _hasPending = false;
        if (ZeroDetection.IsZero(_pending))
        {
            return;
        }
        await StoreAsync(Compress(_pending, _packed.AsSpan(VmdkSparseExtent.MarkerBytes))!.Value).ConfigureAwait(false);
    }

    /// <summary>Writes the grain in hand, whose bytes are behind the room for its marker.</summary>
    private async ValueTask StoreAsync(int length)
    {
        LittleEndian.U64(_packed, 0, (ulong)(_grain * _header.GrainSectors));
        LittleEndian.U32(_packed, 8, (uint)length);
        int count = VmdkSparseExtent.MarkerBytes + length, whole = (int)Round.Up(count, VmdkHeader.SectorSize);
        _packed.AsSpan(count, whole - count).Clear();
        long place = _position;
        await PutAsync(_packed.AsMemory(0, whole)).ConfigureAwait(false);
        LittleEndian.U32(_table, (int)(_grain % VmdkHeader.DefaultTableEntries) * sizeof(uint), Sector(place));
    }

    /// <summary>Writes the table in hand if another is next.</summary>
    private async ValueTask StoreTablesAsync(long next)
    {
        if (next == _tableIndex)
        {
            return;
        }
        if (!ZeroDetection.IsZero(_table))
        {
            await PutAsync(VmdkFooter.Marker(_table.Length / VmdkHeader.SectorSize, VmdkFooter.GrainTable)).ConfigureAwait(false);
            LittleEndian.U32(_directory, (int)_tableIndex * sizeof(uint), Sector(_position));
            await PutAsync(_table).ConfigureAwait(false);
            Array.Clear(_table);
        }
        _tableIndex = next;
    }

    private async ValueTask FinishAsync()
    {
        await StorePendingAsync().ConfigureAwait(false);
        await StoreTablesAsync(-1).ConfigureAwait(false);
        await PutAsync(VmdkFooter.EndOf(_header, _directory, _position, Name)).ConfigureAwait(false);
    }

    private uint Sector(long place) => VmdkFooter.Sector(place, Name);

    private async ValueTask PutAsync(ReadOnlyMemory<byte> bytes)
    {
        await _file.WriteAsync(_position, bytes).ConfigureAwait(false);
        _position += bytes.Length;
    }
}
