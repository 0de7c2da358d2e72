namespace DiskImage.Block;

/// <summary>A disk that can store units compressed. Compressing needs no state, so it can run in parallel; storing goes in order.</summary>
public interface ICompressedWritable
{
    /// <summary>True if the disk stores everything compressed, so that whoever copies into it compresses without being asked.</summary>
    bool IsAlwaysCompressed => false;

    /// <summary>Bytes that are compressed together; a power of two.</summary>
    int CompressionUnit { get; }

    /// <summary>Bytes that a unit takes compressed at most.</summary>
    int LargestCompressed => CompressionUnit;

    /// <summary>
    /// Compresses a unit (shorter at the end of the disk only) into a buffer of at least <see cref="LargestCompressed"/> bytes; the
    /// bytes written, or null if it does not get smaller and is to be written as it is.
    /// </summary>
    int? Compress(ReadOnlySpan<byte> unit, Span<byte> output);

    /// <summary>Stores what <see cref="Compress"/> made of the unit at <paramref name="offset"/>.</summary>
    ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> packed, CancellationToken cancellationToken);
}
