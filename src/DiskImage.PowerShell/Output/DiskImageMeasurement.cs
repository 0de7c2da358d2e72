namespace DiskImage.PowerShell;

/// <summary>How large an image would become. Sizes are bytes of the file.</summary>
public sealed class DiskImageMeasurement(string? path, string format, long virtualSize, long required, long fullyAllocated, long? bitmaps)
{
    /// <summary>The image whose contents were measured; null for an empty disk.</summary>
    public string? Path { get; } = path;

    /// <summary>The format that was measured for.</summary>
    public string Format { get; } = format;

    /// <summary>The disk's size.</summary>
    public long VirtualSize { get; } = virtualSize;

    /// <summary>Bytes for the data there is.</summary>
    public long Required { get; } = required;

    /// <summary>Bytes if all of the disk were written.</summary>
    public long FullyAllocated { get; } = fullyAllocated;

    /// <summary>Bytes for the dirty bitmaps of the source; null if they cannot be kept.</summary>
    public long? Bitmaps { get; } = bitmaps;

    /// <inheritdoc/>
    public override string ToString() => $"{ReadableSize.Of(Required)} as {Format}";
}
