namespace DiskImage.Block;

/// <summary>A disk that can store units compressed. Compressing needs no state, so it can run in parallel; storing goes in order.</summary>
public interface ICompressedWritable
{
    /// <summary>Bytes that are compressed together; a power of two.</summary>
    int CompressionUnit { get; }

    /// <summary>
    /// Compresses a unit (shorter at the end of the disk only) into a buffer of at least <see cref="CompressionUnit"/> bytes; the
    /// bytes written, or null if it does not get smaller.
    /// </summary>
    int? Compress(ReadOnlySpan<byte> unit, Span<byte> output);

    /// <summary>Stores what <see cref="Compress"/> made of the unit at <paramref name="offset"/>.</summary>
    ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken);
}
