namespace DiskImage.PowerShell;

/// <summary>The hash of a disk's contents, in the manner of Get-FileHash.</summary>
/// <param name="Algorithm">The algorithm's name.</param>
/// <param name="Hash">Upper-case hexadecimal digits.</param>
/// <param name="Path">The image's full path, or its URI.</param>
public sealed record DiskImageHash(string Algorithm, string Hash, string Path);
