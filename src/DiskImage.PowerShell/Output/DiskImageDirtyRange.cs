namespace DiskImage.PowerShell;

/// <summary>A range that was written to, as a dirty bitmap says.</summary>
/// <param name="Path">The image's full path, or its URI.</param>
/// <param name="Name">The bitmap's name.</param>
/// <param name="Offset">The first byte of the virtual disk.</param>
/// <param name="Length">Bytes.</param>
public sealed record DiskImageDirtyRange(string Path, string Name, long Offset, long Length);
