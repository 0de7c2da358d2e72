namespace DiskImage.PowerShell;

/// <summary>A range that was written to, as a dirty bitmap says.</summary>
public sealed class DiskImageDirtyRange(string path, string name, long offset, long length)
{
    /// <summary>The image's full path, or its URI.</summary>
    public string Path { get; } = path;

    /// <summary>The bitmap's name.</summary>
    public string Name { get; } = name;

    /// <summary>The first byte of the virtual disk.</summary>
    public long Offset { get; } = offset;

    /// <summary>Bytes.</summary>
    public long Length { get; } = length;

    /// <inheritdoc/>
    public override string ToString() => $"{Offset:0}+{Length:0}";
}
