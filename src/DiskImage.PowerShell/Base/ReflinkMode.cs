namespace DiskImage.PowerShell;

/// <summary>Whether a conversion shares storage with its source, as cp --reflink has it.</summary>
public enum ReflinkMode
{
    /// <summary>Where the file system can have it.</summary>
    Auto,

    /// <summary>All data, or the conversion fails.</summary>
    Always,

    /// <summary>No data: the copies do not depend on the same blocks.</summary>
    Never,
}
