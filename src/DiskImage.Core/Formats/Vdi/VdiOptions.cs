using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vdi;

/// <summary>Options when a VDI is made. Names and defaults are QEMU's.</summary>
public sealed record VdiCreateOptions : ICreateOptions
{
    /// <summary>The only block size that VirtualBox and QEMU make.</summary>
    internal const int BlockSize = 1 << 20;

    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Every block has its place from the start.</summary>
    [DriverOption("static", "Every block has its place in the file from the start")]
    public bool Static { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>What a VDI says beyond the facts that all formats share.</summary>
public readonly record struct VdiInfo()
{
    /// <summary>Dynamic or static.</summary>
    public required string ImageType { get; init; }

    /// <inheritdoc/>
    public override string ToString() => ImageType;

    /// <summary>Blocks that are in the file.</summary>
    public required int AllocatedBlocks { get; init; }

    /// <summary>The image's identity.</summary>
    public required Guid ImageId { get; init; }

    /// <summary>Changes with each snapshot of the machine that the disk belongs to.</summary>
    public required Guid LastSnapshotId { get; init; }

    /// <summary>The remark of whoever made it.</summary>
    public required string Comment { get; init; }
}
