using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>What a comparison of two disks found.</summary>
public sealed class DiskImageComparison(
    string path,
    string differencePath,
    bool identical,
    long? firstDifference,
    bool sizesDiffer,
    string? difference,
    string? snapshot,
    string? differenceSnapshot)
{
    /// <summary>The first image.</summary>
    public string Path { get; } = path;

    /// <summary>The second image.</summary>
    public string DifferencePath { get; } = differencePath;

    /// <summary>The disks read the same; in strict mode also their sizes and what they store.</summary>
    public bool Identical { get; } = identical;

    /// <summary>The first byte that differs; null if none does.</summary>
    public long? FirstDifference { get; } = firstDifference;

    /// <summary>The virtual sizes differ.</summary>
    public bool SizesDiffer { get; } = sizesDiffer;

    /// <summary>
    /// In what they differ there: Content; in strict mode also Allocation (they read the same, but not the same is stored) or
    /// Size. Null if in nothing.
    /// </summary>
    public string? Difference { get; } = difference;

    /// <summary>The snapshot of the first image that was compared, as it was named; null for its present state.</summary>
    public string? Snapshot { get; } = snapshot;

    /// <summary>The same of the second image.</summary>
    public string? DifferenceSnapshot { get; } = differenceSnapshot;

    /// <inheritdoc/>
    public override string ToString()
        => Printable.Of($"{Path} and {DifferencePath}: {(Identical ? "identical" : $"{Difference} differs at {FirstDifference:0}")}");
}

/// <summary>A range in which two disks differ.</summary>
public sealed class DiskImageDifference(string path, string differencePath, long offset, long length, string difference)
{
    /// <summary>The first image.</summary>
    public string Path { get; } = path;

    /// <summary>The second image.</summary>
    public string DifferencePath { get; } = differencePath;

    /// <summary>The first byte that differs.</summary>
    public long Offset { get; } = offset;

    /// <summary>Bytes.</summary>
    public long Length { get; } = length;

    /// <summary>
    /// In what they differ there: Content; in strict mode also Allocation (they read the same, but not the same is stored) or Size (only
    /// the longer one has it).
    /// </summary>
    public string Difference { get; } = difference;

    /// <inheritdoc/>
    public override string ToString() => $"{Offset:0}+{Length:0}";
}
