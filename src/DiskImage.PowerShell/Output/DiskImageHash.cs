namespace DiskImage.PowerShell;

/// <summary>The hash of a disk's contents, in the manner of Get-FileHash.</summary>
public sealed class DiskImageHash(string algorithm, string hash, string path, string? snapshot)
{
    /// <summary>The algorithm's name.</summary>
    public string Algorithm { get; } = algorithm;

    /// <summary>Upper-case hexadecimal digits.</summary>
    public string Hash { get; } = hash;

    /// <summary>The image's full path, or its URI.</summary>
    public string Path { get; } = path;

    /// <summary>The snapshot that was hashed, as it was named; null for the present state.</summary>
    public string? Snapshot { get; } = snapshot;

    /// <inheritdoc/>
    public override string ToString() => Hash;
}
