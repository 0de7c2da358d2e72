using DiskImage.Options;

namespace DiskImage.Protocols.File;

/// <summary>Options when a file is opened.</summary>
internal sealed record FileOpenOptions
{
    /// <summary>Its path.</summary>
    [DriverOption("filename", "Path of the file")]
    public string FileName { get; init; } = "";

    /// <summary>Whether other programs are told what is done with it, and heeded.</summary>
    [DriverOption("locking", "Whether programs of QEMU are told of the use: auto (where the file system can), on, off")]
    public FileLocking Locking { get; init; }
}

/// <summary>Whether a file is locked as QEMU locks image files.</summary>
public enum FileLocking
{
    /// <summary>Where the file system has such locks.</summary>
    Auto,

    /// <summary>Or it is not opened.</summary>
    On,

    /// <summary>Not at all: others neither know nor are asked.</summary>
    Off,
}
