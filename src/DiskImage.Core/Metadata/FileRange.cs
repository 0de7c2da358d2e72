namespace DiskImage.Metadata;

/// <summary>A range of the image's file.</summary>
/// <param name="Start">Its first byte.</param>
/// <param name="End">The byte behind its last.</param>
/// <param name="What">What lies there, for messages; null where it does not matter.</param>
internal readonly record struct FileRange(long Start, long End, string? What = null)
{
    /// <summary>Bytes.</summary>
    public long Length => End - Start;

    /// <summary>True if it has a byte in common with another range.</summary>
    public bool Meets(long start, long end) => Start < end && start < End;
}
