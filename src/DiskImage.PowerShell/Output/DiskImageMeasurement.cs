namespace DiskImage.PowerShell;

/// <summary>How large an image would become. Sizes are bytes of the file.</summary>
/// <param name="Path">The image whose contents were measured; null for an empty disk.</param>
/// <param name="Format">The format that was measured for.</param>
/// <param name="VirtualSize">The disk's size.</param>
/// <param name="Required">Bytes for the data there is.</param>
/// <param name="FullyAllocated">Bytes if all of the disk were written.</param>
/// <param name="Bitmaps">Bytes for the dirty bitmaps of the source; null if they cannot be kept.</param>
public sealed record DiskImageMeasurement(string? Path, string Format, long VirtualSize, long Required, long FullyAllocated, long? Bitmaps);
