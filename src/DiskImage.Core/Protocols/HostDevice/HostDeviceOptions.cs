using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.HostDevice;

/// <summary>Options when a device is opened.</summary>
internal sealed record HostDeviceOptions
{
    /// <summary>Its path.</summary>
    [DriverOption("filename", "Path of the device")]
    public string FileName { get; init; } = "";

    /// <summary>Whether other programs are told what is done with it, and heeded.</summary>
    [DriverOption("locking", "Whether programs of QEMU are told of the use: auto (where the system can), on, off")]
    public ImageLocking Locking { get; init; }
}
