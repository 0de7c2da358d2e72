using DiskImage.Block;

namespace DiskImage.Formats.Dmg;

/// <summary>One file of an image, and where its part of the data fork is.</summary>
/// <param name="File">The file.</param>
/// <param name="Start">Where its part begins in the data fork of all.</param>
/// <param name="Offset">Where it begins in the file.</param>
/// <param name="Length">Bytes of it.</param>
internal readonly record struct DmgSegment(BlockNode File, long Start, long Offset, long Length)
{
    /// <summary>Where its part ends in the data fork of all.</summary>
    public long End => Start + Length;
}

/// <summary>The data fork of all segments, which lie behind each other in it.</summary>
internal sealed class DmgFork(IReadOnlyList<DmgSegment> segments)
{
    /// <summary>The segments, in order.</summary>
    public IReadOnlyList<DmgSegment> Segments => segments;

    /// <summary>Bytes of it.</summary>
    public long Length => segments[^1].End;

    /// <summary>The file that holds a byte, where in it, and how many bytes follow there.</summary>
    public (BlockNode File, long Offset, long Length) At(long offset)
    {
        DmgSegment segment = segments.First(s => offset < s.End);
        return (segment.File, segment.Offset + (offset - segment.Start), segment.End - offset);
    }

    /// <summary>Reads a range, which is inside.</summary>
    public async ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            (BlockNode file, long at, long length) = At(offset);
            int count = (int)Math.Min(length, buffer.Length);
            await file.ReadAsync(at, buffer[..count], cancellationToken).ConfigureAwait(false);
            (buffer, offset) = (buffer[count..], offset + count);
        }
    }
}
