namespace DiskImage.PowerShell;

/// <summary>What a comparison of two disks found.</summary>
/// <param name="Path">The first image.</param>
/// <param name="DifferencePath">The second image.</param>
/// <param name="Identical">The disks read the same; in strict mode also their sizes and what they store.</param>
/// <param name="FirstDifference">The first byte that differs; null if none does.</param>
/// <param name="SizesDiffer">The virtual sizes differ.</param>
public sealed record DiskImageComparison(string Path, string DifferencePath, bool Identical, long? FirstDifference, bool SizesDiffer);

/// <summary>A range in which two disks differ, byte for byte.</summary>
/// <param name="Path">The first image.</param>
/// <param name="DifferencePath">The second image.</param>
/// <param name="Offset">The first byte that differs.</param>
/// <param name="Length">Bytes.</param>
public sealed record DiskImageDifference(string Path, string DifferencePath, long Offset, long Length);
