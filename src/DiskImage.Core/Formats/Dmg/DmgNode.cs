using System.Buffers;
using System.Globalization;
using System.Numerics;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;

namespace DiskImage.Formats.Dmg;

/// <summary>What an Apple disk image says beyond the facts that all formats share.</summary>
public sealed record DmgInfo
{
    /// <summary>The partitions in order: name, size, kinds of chunks, checksum.</summary>
    public required IReadOnlyList<string> Partitions { get; init; }

    /// <summary>The kinds of chunks, each with their number.</summary>
    public required IReadOnlyList<string> ChunkKinds { get; init; }

    /// <summary>The checksum of all partitions' checksums (CRC-32); null if there is none of a known kind.</summary>
    public string? Checksum { get; init; }

    /// <summary>Files that the image consists of.</summary>
    public required int Segments { get; init; }

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ", ChunkKinds);
}

/// <summary>An Apple disk image: sorted chunks, each raw, zero or one coding unit. What no chunk covers reads as zeroes.</summary>
internal sealed class DmgNode : ReadOnlyFormatNode, IDescribed, ICheckable
{
    private const int DecodedBytes = 16 << 20; // kept in memory. Ours
    private const int RawPiece = 1 << 20;

    private readonly DmgTrailer _trailer;
    private readonly DmgFork _fork;
    private readonly IReadOnlyList<DmgTable> _tables;
    private readonly DmgChunk[] _chunks;
    private readonly DecodedUnits _decoded;

    /// <summary>A disk over checked chunks, sorted and without overlaps.</summary>
    public DmgNode(DmgTrailer trailer, DmgFork fork, IReadOnlyList<DmgTable> tables, DmgChunk[] chunks)
        : base(
            fork.Segments[0].File,
            [.. fork.Segments.Skip(1).Select((s, i) => (string.Create(CultureInfo.InvariantCulture, $"segment-{i + 2}"), s.File))])
    {
        (_trailer, _fork, _tables, _chunks) = (trailer, fork, tables, chunks);
        _decoded = new DecodedUnits(DecodedBytes, (index, buffer, token) => DecodeAsync(_chunks[index], buffer, token));
        long largest = chunks.Where(c => c.IsEncoded).Select(c => c.Length).DefaultIfEmpty(DmgTrailer.SectorSize).Max();
        AllocationUnit = (int)BitOperations.RoundUpToPowerOf2((uint)largest);
    }

    public override long Length => _trailer.DiskSize;

    protected override int AllocationUnit { get; }

    public ImageDescription Describe() => new()
    {
        Format = DmgDriver.FormatName,
        Compressed = _chunks.Any(c => c.IsEncoded),
        Encrypted = _fork.Segments[0].File is CipherNode,
        FormatSpecific = new DmgInfo
        {
            Partitions = [.. _tables.Select(t => $"{t.Name}: {t.Length:#,0} bytes, "
                + $"{string.Join(", ", KindsOf(t.Chunks))}{(t.Checksum.IsCrc32 ? $", CRC-32 {t.Checksum.Value:X8}" : "")}")],
            ChunkKinds = [.. KindsOf(_chunks)],
            Checksum = _trailer.Checksum.IsCrc32 ? $"{_trailer.Checksum.Value:X8}" : null,
            Segments = _fork.Segments.Count,
        },
    };

    /// <summary>Every chunk must decode to its size, and the checksums of tables, data fork and image must be right.</summary>
    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        foreach (DmgTable table in _tables)
        {
            await CheckTableAsync(table, findings, bytes, cancellationToken).ConfigureAwait(false);
        }
        await CheckForkAsync(findings, cancellationToken).ConfigureAwait(false);
        if (_trailer.Checksum.IsCrc32 && _tables.All(t => t.Checksum.IsCrc32))
        {
            uint crc = 0;
            byte[] value = new byte[sizeof(uint)];
            foreach (DmgTable table in _tables)
            {
                BigEndian.U32(value, 0, table.Checksum.Value);
                crc = Crc32.Append(crc, value);
            }
            Compare("ImageChecksum", "the checksum of the tables' checksums", crc, _trailer.Checksum.Value, findings);
        }
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            CheckErrors = findings.Errors,
            TotalClusters = _chunks.Length,
            AllocatedClusters = _chunks.Count(c => c.IsEncoded || c.Kind == DmgKind.Raw),
            FragmentedClusters = 0,
            CompressedClusters = _chunks.Count(c => c.IsEncoded),
            ImageEndOffset = File.Length,
        };
    }

    protected override ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        int index = IndexOf(offset);
        if (index < 0 || offset >= _chunks[index].End)
        {
            long next = index + 1 < _chunks.Length ? _chunks[index + 1].Offset : Length;
            return new(new BlockExtent(offset, next - offset, BlockStatus.None));
        }
        DmgChunk chunk = _chunks[index];
        long within = offset - chunk.Offset, rest = chunk.Length - within;
        if (chunk.IsEncoded)
        {
            return new(new BlockExtent(offset, rest, BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed));
        }
        if (chunk.Kind != DmgKind.Raw)
        {
            return new(new BlockExtent(offset, rest, BlockStatus.Allocated | BlockStatus.Zero));
        }
        (BlockNode file, long host, long count) = _fork.At(chunk.Fork + within);
        return new(new BlockExtent(offset, Math.Min(rest, count), BlockStatus.Allocated | BlockStatus.Data, file, host));
    }

    protected override ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int index = IndexOf(offset);
        return _decoded.ReadAsync(index, (int)_chunks[index].Length, (int)(offset - _chunks[index].Offset), buffer, cancellationToken);
    }

    private static IBlockDecompressor DecoderOf(DmgKind kind) => kind switch
    {
        DmgKind.Adc => AdcDecoder.Instance,
        DmgKind.Zlib => ZlibCodec.Instance,
        DmgKind.Bzip2 => Bzip2Decoder.Instance,
        DmgKind.Lzfse => LzfseDecoder.Instance,
        _ => XzDecoder.Instance,
    };

    private static IEnumerable<string> KindsOf(DmgChunk[] chunks)
        => chunks.GroupBy(c => c.Kind).OrderBy(g => g.Key).Select(g => $"{g.Count():#,0} {g.Key.ToString().ToLowerInvariant()}");

    private static void Compare(
        string kind, string what, uint found, uint recorded, CheckFindings findings, long? guest = null, long? guestLength = null)
    {
        if (found != recorded)
        {
            findings.Corruption(kind, $"{what} is {found:X8}; recorded: {recorded:X8}", null, guest, guestLength);
        }
    }

    /// <summary>The last chunk that begins at or before an offset; -1 for none.</summary>
    private int IndexOf(long offset)
    {
        int low = 0, high = _chunks.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            (low, high) = _chunks[middle].Offset <= offset ? (middle + 1, high) : (low, middle);
        }
        return low - 1;
    }

    private async ValueTask DecodeAsync(DmgChunk chunk, Memory<byte> output, CancellationToken cancellationToken)
    {
        int length = (int)chunk.Stored;
        byte[] stored = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await _fork.ReadAsync(chunk.Fork, stored.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            if (!DecoderOf(chunk.Kind).TryDecompress(stored.AsSpan(0, length), output.Span))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{Name}: the chunk at guest offset {chunk.Offset:#,0}, {length:#,0} bytes at offset "
                        + $"{chunk.Fork:#,0} of the data fork, is damaged:"
                        + $" it does not decode to {chunk.Length:#,0} bytes ({chunk.Kind})",
                    Name,
                    _fork.At(chunk.Fork).Offset);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
        }
    }

    /// <summary>
    /// Decodes a table's chunks on all cores, a few at a time, and sums them up in their order. Whether space that no file uses counts, is
    /// handled in both ways: either sum is right.
    /// </summary>
    private async ValueTask CheckTableAsync(
        DmgTable table, CheckFindings findings, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        uint all = 0, used = 0;
        bool isWhole = true;
        var ahead = new Queue<(DmgChunk Chunk, Task<uint?> Sum, byte[]? Bytes)>();
        int next = 0;
        while (next < table.Chunks.Length || ahead.Count > 0)
        {
            while (next < table.Chunks.Length && ahead.Count < Environment.ProcessorCount)
            {
                DmgChunk chunk = table.Chunks[next++];
                byte[]? buffer = chunk.IsEncoded ? ArrayPool<byte>.Shared.Rent((int)chunk.Length) : null;
                ahead.Enqueue((
                    chunk,
                    buffer is null ? Task.FromResult<uint?>(0)
                        : Task.Run(() => TryDecodeAsync(chunk, buffer, findings, cancellationToken), cancellationToken),
                    buffer));
            }
            (DmgChunk done, Task<uint?> sum, byte[]? decoded) = ahead.Dequeue();
            isWhole &= await sum.ConfigureAwait(false) is not null;
            if (decoded is not null)
            {
                all = Crc32.Append(all, decoded.AsSpan(0, (int)done.Length));
                used = Crc32.Append(used, decoded.AsSpan(0, (int)done.Length));
                ArrayPool<byte>.Shared.Return(decoded);
            }
            else if (done.Kind == DmgKind.Raw)
            {
                all = await RawAsync(done.Fork, done.Length, all, cancellationToken).ConfigureAwait(false);
                used = table.Chunks.Any(c => c.Kind == DmgKind.Ignore)
                    ? await RawAsync(done.Fork, done.Length, used, cancellationToken).ConfigureAwait(false) : all;
            }
            else
            {
                all = Crc32.AppendZeroes(all, done.Length);
                used = done.Kind == DmgKind.Zero ? Crc32.AppendZeroes(used, done.Length) : used;
            }
            bytes?.Report(done.End);
        }
        if (isWhole && table.Checksum.IsCrc32 && used != table.Checksum.Value)
        {
            Compare(
                "TableChecksum",
                $"the checksum of the partition '{table.Name}'",
                all,
                table.Checksum.Value,
                findings,
                table.Offset,
                table.Length);
        }
    }

    private async Task<uint?> TryDecodeAsync(DmgChunk chunk, byte[] buffer, CheckFindings findings, CancellationToken cancellationToken)
    {
        try
        {
            await DecodeAsync(chunk, buffer.AsMemory(0, (int)chunk.Length), cancellationToken).ConfigureAwait(false);
            return 0;
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            lock (findings)
            {
                findings.Corruption("BadChunk", e.Message, null, chunk.Offset, chunk.Length, e.Offset);
            }
            return null;
        }
    }

    /// <summary>The data fork of an image in one file; what a checksum in one of several files covers is not known.</summary>
    private async ValueTask CheckForkAsync(CheckFindings findings, CancellationToken cancellationToken)
    {
        if (_trailer.DataChecksum.IsCrc32 && _fork.Segments.Count == 1)
        {
            uint crc = await RawAsync(0, _fork.Length, 0, cancellationToken).ConfigureAwait(false);
            Compare("DataChecksum", "the checksum of the data fork", crc, _trailer.DataChecksum.Value, findings);
        }
    }

    private async ValueTask<uint> RawAsync(long fork, long length, uint crc, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(RawPiece);
        try
        {
            for (long end = fork + length; fork < end;)
            {
                int count = (int)Math.Min(RawPiece, end - fork);
                await _fork.ReadAsync(fork, buffer.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                crc = Crc32.Append(crc, buffer.AsSpan(0, count));
                fork += count;
            }
            return crc;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
