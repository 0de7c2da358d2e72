using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Cloop;

/// <summary>A cloop disk: block number → offsets of its zlib stream. Every block is one coding unit.</summary>
/// <remarks>The table of offsets is read as it is needed, so memory does not follow the number of blocks.</remarks>
internal sealed class CloopNode : ReadOnlyFormatNode, IDescribed, ICheckable
{
    private const int TablePiece = 4096, TableBytes = 4 << 20, DecodedBytes = 16 << 20; // kept in memory. Ours
    private const long FirstTablePiece = CloopHeader.TableAt; // pieces hold whole entries

    private readonly MetadataSession _session;
    private readonly CloopHeader _header;
    private readonly MetadataCache _table;
    private readonly DecodedUnits _decoded;
    private long _end;

    private CloopNode(BlockNode file, CloopHeader header)
        : base(file)
    {
        _header = header;
        _session = new MetadataSession(file);
        _table = new MetadataCache(_session.Order, TablePiece, TableBytes);
        _decoded = new DecodedUnits(DecodedBytes, DecodeAsync);
    }

    public override long Length => _header.DiskSize;

    protected override int AllocationUnit => _header.BlockSize;

    /// <summary>Opens an image whose header is checked. The file is the node's on success.</summary>
    public static async ValueTask<CloopNode> OpenAsync(BlockNode file, CloopHeader header, CancellationToken cancellationToken)
    {
        var node = new CloopNode(file, header);
        node._end = (long)Math.Min(await node.OffsetAsync(header.Blocks, cancellationToken).ConfigureAwait(false), long.MaxValue);
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = CloopDriver.FormatName,
        ClusterSize = _header.BlockSize,
        Compressed = true,
        FormatSpecific = new CloopInfo
        {
            BlockSize = _header.BlockSize,
            Blocks = _header.Blocks,
            StoredBytes = Math.Max(0, _end - _header.TableEnd),
        },
    };

    /// <summary>Every block must be in the file, behind its predecessor, and inflate to its size.</summary>
    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        long done = 0;
        await Parallel.ForAsync(0, _header.Blocks, cancellationToken, async (block, token) =>
        {
            byte[] buffer = ArrayPool<byte>.Shared.Rent(_header.BlockSize);
            try
            {
                await DecodeAsync(block, buffer.AsMemory(0, _header.BlockSize), token).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                lock (findings)
                {
                    findings.Corruption("BadBlock", e.Message, null, block * _header.BlockSize, _header.BlockSize, e.Offset);
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
            bytes?.Report(Math.Min(Length, Interlocked.Increment(ref done) * _header.BlockSize));
        }).ConfigureAwait(false);
        return new CheckReport
        {
            Findings = [.. findings.List.OrderBy(f => f.GuestOffset)],
            Corruptions = findings.Corruptions,
            TotalClusters = _header.Blocks,
            AllocatedClusters = _header.Blocks,
            FragmentedClusters = 0,
            CompressedClusters = _header.Blocks,
            ImageEndOffset = Math.Min(_end, File.Length),
        };
    }

    protected override ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(
            offset, _header.BlockSize - (offset % _header.BlockSize), BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed));

    protected override ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => _decoded.ReadAsync(offset / _header.BlockSize, _header.BlockSize, (int)(offset % _header.BlockSize), buffer, cancellationToken);

    protected override ValueTask CloseCoreAsync()
    {
        _session.Dispose();
        return default;
    }

    private async ValueTask DecodeAsync(long block, Memory<byte> output, CancellationToken cancellationToken)
    {
        ulong start = await OffsetAsync(block, cancellationToken).ConfigureAwait(false);
        ulong end = await OffsetAsync(block + 1, cancellationToken).ConfigureAwait(false);
        if (start < (ulong)_header.TableEnd || end <= start || end - start > (ulong)_header.MaxStored || end > (ulong)File.Length)
        {
            throw Corrupt(
                block,
                CloopHeader.TableAt + (block * sizeof(ulong)),
                $"is said to lie from offset {start:#,0} to {end:#,0}; allowed: behind the table, which ends at {_header.TableEnd:#,0}, "
                    + $"in the file of {File.Length:#,0} bytes,"
                    + $" up to {_header.MaxStored:#,0} bytes");
        }
        int length = (int)(end - start);
        byte[] stored = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await File.ReadAsync((long)start, stored.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            if (!ZlibCodec.Instance.TryDecompress(stored.AsSpan(0, length), output.Span))
            {
                throw Corrupt(
                    block, (long)start, $"at offset {start:#,0} does not inflate to {_header.BlockSize:#,0} bytes with the right checksum");
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
        }
    }

    /// <summary>Where a block begins; for the number of blocks, where the last one ends.</summary>
    private async ValueTask<ulong> OffsetAsync(long block, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long at = block * sizeof(ulong);
        CachedPiece piece = await _table.GetAsync(FirstTablePiece + Round.Down(at, TablePiece), cancellationToken).ConfigureAwait(false);
        return BigEndian.U64(piece.Bytes, (int)(at % TablePiece));
    }

    private DiskImageException Corrupt(long block, long offset, string what)
        => new(
            DiskImageErrorKind.Corrupt, $"{Name}: block {block:#,0} (guest offset {block * _header.BlockSize:#,0}) {what}", Name, offset);
}
