using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Compressed clusters: unpacking, packing, storing. Spec: qcow2, "Compressed Clusters Descriptor".</summary>
internal sealed class Qcow2CompressedClusters(Qcow2Disk disk)
{
    private const int Sector = 512;

    private readonly IBlockCompressor _compressor = Qcow2Compression.Compressor(disk.Header.CompressionType);

    public IBlockDecompressor Decompressor { get; } = Qcow2Compression.Decompressor(disk.Header.CompressionType);

    private BlockNode File => disk.File;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>Reads bytes that lie in one compressed cluster.</summary>
    public async ValueTask ReadAsync(GuestOffset offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        L2Entry entry;
        using (await disk.Session.EnterAsync(cancellationToken).ConfigureAwait(false))
        {
            CachedPiece piece = (await disk.Tables.PieceAsync(offset, cancellationToken).ConfigureAwait(false))!;
            entry = disk.Tables.EntryAt(piece, disk.Tables.IndexOf(offset));
        }
        GuestOffset cluster = Geometry.ClusterStart(offset);
        (HostOffset place, int maxLength) = entry.CompressedRange(Geometry.ClusterBits);
        int length = (int)Math.Clamp(File.Length - place.Value, 0, maxLength);
        if (length == 0)
        {
            throw Qcow2Disk.Missing("compressed cluster", cluster, File, place);
        }
        bool whole = buffer.Length == Geometry.ClusterSize;
        byte[] packed = ArrayPool<byte>.Shared.Rent(length);
        byte[]? unpacked = whole ? null : ArrayPool<byte>.Shared.Rent(Geometry.ClusterSize);
        try
        {
            await File.ReadAsync(place.Value, packed.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            Memory<byte> output = whole ? buffer : unpacked.AsMemory(0, Geometry.ClusterSize);
            if (!Decompressor.TryDecompress(packed.AsSpan(0, length), output.Span))
            {
                throw disk.Corrupt(
                    length < maxLength
                        ? (Wording)($"the compressed cluster for guest offset {cluster.Value:#,0} goes on past the end of the file of"
                            + $" {File.Length:#,0} bytes: it was cut off."
                            + $" If this is a copy that was cut short, copy the image again")
                        : (Wording)($"the compressed cluster for guest offset {cluster.Value:#,0} does not decompress to"
                            + $" {Geometry.ClusterSize:#,0} bytes"),
                    place.Value);
            }
            if (!whole)
            {
                output.Slice(Geometry.InCluster(offset), buffer.Length).CopyTo(buffer);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
            if (unpacked is not null)
            {
                ArrayPool<byte>.Shared.Return(unpacked);
            }
        }
    }

    /// <summary>Packs a cluster; null where that is no gain.</summary>
    public int? Compress(ReadOnlySpan<byte> unit, Span<byte> output)
    {
        output = output[..(Geometry.ClusterSize - 1)]; // as large as a plain cluster would be no gain
        if (unit.Length == Geometry.ClusterSize)
        {
            return _compressor.Compress(unit, output);
        }
        byte[] padded = ArrayPool<byte>.Shared.Rent(Geometry.ClusterSize); // the last cluster is compressed whole
        unit.CopyTo(padded);
        padded.AsSpan(unit.Length, Geometry.ClusterSize - unit.Length).Clear();
        int? length = _compressor.Compress(padded.AsSpan(0, Geometry.ClusterSize), output);
        ArrayPool<byte>.Shared.Return(padded);
        return length;
    }

    /// <summary>Stores a packed cluster.</summary>
    public async ValueTask WriteAsync(
        MetadataSession.Held held, GuestOffset offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
    {
        RequirePossible(offset);
        await disk.Bitmaps.RecordAsync(held, offset, Geometry.ClusterSize).ConfigureAwait(false);
        Qcow2Tables tables = disk.Tables;
        int index = tables.IndexOf(offset);
        // before space is taken
        tables.RequireSound(tables.EntryAt(await tables.WritablePieceAsync(held, offset).ConfigureAwait(false), index), offset);
        HostOffset place = await disk.Allocator.AllocateBytesAsync(held, packed.Length).ConfigureAwait(false);
        CachedPiece piece;
        try
        {
            await disk.RequireNotMetadataAsync(held, place, packed.Length).ConfigureAwait(false);
            await disk.TellAsync(DebugEvent.WriteCompressed).ConfigureAwait(false);
            await WritePackedAsync(place, packed, cancellationToken).ConfigureAwait(false);
            await disk.TellAsync(DebugEvent.L2UpdateCompressed).ConfigureAwait(false);
            piece = await tables.WritablePieceAsync(held, offset).ConfigureAwait(false);
        }
        catch
        {
            await disk.Refcounts.AddAsync(held, place, packed.Length, -1).ConfigureAwait(false);
            throw;
        }
        L2Entry old = tables.EntryAt(piece, index);
        tables.Set(held, piece, index, L2Entry.Compressed(place, packed.Length, Geometry.ClusterBits));
        tables.FreeData(held, old);
    }

    /// <summary>
    /// Writes compressed data to the end of its last sector: readers take whole sectors. What follows overwrites the rest.
    /// </summary>
    public async ValueTask WritePackedAsync(HostOffset place, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken)
    {
        int padded = (int)(Round.Up(place.Value + packed.Length, Sector) - place.Value);
        byte[] bytes = ArrayPool<byte>.Shared.Rent(padded);
        try
        {
            packed.CopyTo(bytes);
            bytes.AsSpan(packed.Length, padded - packed.Length).Clear();
            await File.WriteAsync(place.Value, bytes.AsMemory(0, padded), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }

    private void RequirePossible(GuestOffset offset)
    {
        if (disk.IsExternal)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: its data is in an external file, which cannot hold compressed clusters."
                    + $" Leave out either the compression or data_file.",
                disk.Name);
        }
        if (disk.IsReadOnly || Geometry.InCluster(offset) != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: a compressed cluster can only be written to a writable image, at a multiple of {Geometry.ClusterSize:#,0}",
                disk.Name);
        }
    }
}
