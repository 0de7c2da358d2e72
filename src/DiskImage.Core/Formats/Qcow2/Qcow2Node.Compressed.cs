using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Storing compressed clusters. Spec: qcow2, "Compressed Clusters Descriptor".</summary>
internal sealed partial class Qcow2Node
{
    private const int Sector = 512;

    public int CompressionUnit => _geometry.ClusterSize;

    public int? Compress(ReadOnlySpan<byte> unit, Span<byte> output)
    {
        output = output[..(_geometry.ClusterSize - 1)]; // as large as a plain cluster would be no gain
        if (unit.Length == _geometry.ClusterSize)
        {
            return _compressor.Compress(unit, output);
        }
        byte[] padded = ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize); // the last cluster is compressed whole
        unit.CopyTo(padded);
        padded.AsSpan(unit.Length, _geometry.ClusterSize - unit.Length).Clear();
        int? length = _compressor.Compress(padded.AsSpan(0, _geometry.ClusterSize), output);
        ArrayPool<byte>.Shared.Return(padded);
        return length;
    }

    public ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
        => AloneAsync(() => UnderGateAsync(async () =>
        {
            if (!ReferenceEquals(_dataNode, File))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{Name}: its data is in an external file, which cannot hold compressed clusters. Leave out either the compression or data_file.", Name);
            }
            if (IsReadOnly || _geometry.InCluster(offset) != 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{Name}: a compressed cluster can only be written to a writable image, at a multiple of {_geometry.ClusterSize:#,0}", Name);
            }
            await RecordLockedAsync(offset, _geometry.ClusterSize).ConfigureAwait(false);
            RequireSound(EntryAt(await WritableL2PieceAsync(offset).ConfigureAwait(false), PieceIndex(offset)), offset); // before space is taken
            long host = await _refcounts.AllocateBytesAsync(packed.Length).ConfigureAwait(false);
            CachedPiece piece;
            try
            {
                await RequireNotMetadataAsync(host, packed.Length).ConfigureAwait(false);
                await WritePackedAsync(host, packed, cancellationToken).ConfigureAwait(false);
                piece = await WritableL2PieceAsync(offset).ConfigureAwait(false);
            }
            catch
            {
                await _refcounts.AddAsync(host, packed.Length, -1).ConfigureAwait(false);
                throw;
            }
            L2Entry old = EntryAt(piece, PieceIndex(offset));
            SetEntry(piece, PieceIndex(offset), L2Entry.Compressed(host, packed.Length, _geometry.ClusterBits));
            FreeData(old);
        }));

    /// <summary>Writes compressed data to the end of its last sector: readers take whole sectors. What follows overwrites the rest.</summary>
    private async ValueTask WritePackedAsync(long host, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
    {
        int padded = (int)(Round.Up(host + packed.Length, Sector) - host);
        byte[] bytes = ArrayPool<byte>.Shared.Rent(padded);
        try
        {
            packed.CopyTo(bytes);
            bytes.AsSpan(packed.Length, padded - packed.Length).Clear();
            await File.WriteAsync(host, bytes.AsMemory(0, padded), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }
}
