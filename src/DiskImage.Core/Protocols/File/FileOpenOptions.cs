using DiskImage.Block;
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
    public ImageLocking Locking { get; init; }
}
