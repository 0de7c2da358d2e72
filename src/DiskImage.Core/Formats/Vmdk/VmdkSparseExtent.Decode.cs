using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;

namespace DiskImage.Formats.Vmdk;

/// <summary>Reading compressed grains. Spec: Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".</summary>
internal sealed partial class VmdkSparseExtent
{
    /// <summary>Bytes of a compressed grain's marker: its first sector on the disk, and how many bytes follow.</summary>
    public const int MarkerBytes = 12;

    private const int DecodedBytes = 16 << 20; // kept in memory. Ours

    protected override ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        long grain = offset / AllocationUnit;
        int within = (int)(offset - (grain * AllocationUnit));
        return _decoded!.ReadAsync(grain, BytesOf(grain), within, buffer, cancellationToken);
    }

    /// <summary>Bytes of a grain that are the disk's.</summary>
    private int BytesOf(long grain) => (int)Math.Min(AllocationUnit, Header.Length - (grain * AllocationUnit));

    private async ValueTask DecodeAsync(long grain, Memory<byte> output, CancellationToken cancellationToken)
    {
        VmdkEntry entry = await _session.RunAsync(_ => _tables.GetAsync(grain, cancellationToken), cancellationToken).ConfigureAwait(false);
        await DecodeAsync(grain, entry, output, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask DecodeAsync(long grain, VmdkEntry entry, Memory<byte> output, CancellationToken cancellationToken)
    {
        RequirePlace(entry, grain);
        int most = (int)Math.Min(MarkerBytes + (AllocationUnit * 2L), File.Length - entry.Place);
        int first = Math.Min(most, MarkerBytes + AllocationUnit);
        byte[] stored = ArrayPool<byte>.Shared.Rent(most);
        try
        {
            await File.ReadAsync(entry.Place, stored.AsMemory(0, first), cancellationToken).ConfigureAwait(false);
            int start = Header.HasMarkers ? MarkerBytes : 0, length = most;
            if (Header.HasMarkers)
            {
                length = (int)Math.Min(int.MaxValue, LittleEndian.U32(stored, 8)) is var said && said > 0 && said <= most - MarkerBytes
                    ? said
                    : throw Damaged(grain, entry, $"its marker gives it {said:#,0} bytes; allowed: 1 to {most - MarkerBytes:#,0}");
                if (LittleEndian.U64(stored, 0) is var sector && sector != (ulong)(grain * Header.GrainSectors))
                {
                    throw Damaged(grain, entry,
                        $"its marker says that it is sector {sector:#,0}, and its entry sector {grain * Header.GrainSectors:#,0}");
                }
            }
            if (start + length > first)
            {
                await File.ReadAsync(entry.Place + first, stored.AsMemory(first, Math.Min(most, start + length) - first),
                    cancellationToken).ConfigureAwait(false);
            }
            if (!TryDecode(stored.AsSpan(start, Math.Min(length, most - start)), output.Span))
            {
                throw Damaged(grain, entry, $"what is stored does not decode to {output.Length:#,0} bytes");
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
        }
    }

    /// <summary>The last grain of a disk may be stored with what is past the end, or without.</summary>
    private bool TryDecode(ReadOnlySpan<byte> stored, Span<byte> output)
    {
        if (ZlibCodec.Instance.TryDecompress(stored, output))
        {
            return true;
        }
        if (output.Length == AllocationUnit)
        {
            return false;
        }
        byte[] whole = ArrayPool<byte>.Shared.Rent(AllocationUnit);
        try
        {
            bool isWhole = ZlibCodec.Instance.TryDecompress(stored, whole.AsSpan(0, AllocationUnit));
            whole.AsSpan(0, isWhole ? output.Length : 0).CopyTo(output);
            return isWhole;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(whole);
        }
    }

    private DiskImageException Damaged(long grain, VmdkEntry entry, string why) => new(
        DiskImageErrorKind.Corrupt, $"{Name}: grain {grain:#,0} (guest offset {grain * AllocationUnit:#,0}) at offset"
            + $" {entry.Place:#,0} is damaged: {why}", Name, entry.Place);

    /// <summary>Every compressed grain must decode. The session's lock is held, which decoding by number would wait for.</summary>
    private async ValueTask<long> CheckCompressedAsync(CheckFindings findings, CancellationToken cancellationToken)
    {
        var grains = new List<(long Grain, VmdkEntry Entry)>();
        await _layout.WalkAsync((grain, entry) => grains.Add((grain, entry)), cancellationToken).ConfigureAwait(false);
        await Parallel.ForEachAsync(
            grains.Where(g => g.Grain * AllocationUnit < Header.Length),
            cancellationToken,
            async (stored, token) =>
            {
                long grain = stored.Grain;
                byte[] buffer = ArrayPool<byte>.Shared.Rent(AllocationUnit);
                try
                {
                    await DecodeAsync(grain, stored.Entry, buffer.AsMemory(0, BytesOf(grain)), token).ConfigureAwait(false);
                }
                catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
                {
                    lock (findings)
                    {
                        findings.Corruption("BadGrain", e.Message, null, grain * AllocationUnit, BytesOf(grain), e.Offset);
                    }
                }
                finally
                {
                    ArrayPool<byte>.Shared.Return(buffer);
                }
            }).ConfigureAwait(false);
        return grains.Count;
    }
}
