using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vdi;

/// <summary>Options when a VDI is opened.</summary>
internal sealed record VdiOpenOptions
{
    /// <summary>Take a parent whose identity is not the recorded one.</summary>
    [DriverOption(ParentMismatch.IgnoreOption, "Take a parent that is not the recorded one, or was changed since")]
    public bool IgnoreIdMismatch { get; init; }
}

/// <summary>Options that can be changed in an existing VDI; one that is not given stays as it is.</summary>
internal sealed record VdiAmendOptions
{
    /// <summary>The disk's identity.</summary>
    [DriverOption(
        "uuid", "The disk's identity, which its children record: a GUID, or new for a random one. Children made before refuse it then")]
    public string? Uuid { get; init; }

    /// <summary>The identity of the parent.</summary>
    [DriverOption(
        "parent_uuid",
        "The identity of a differencing disk's parent, which is then found by it; what is recorded of its contents is taken away")]
    public string? ParentUuid { get; init; }

    /// <summary>The remark.</summary>
    [DriverOption("comment", "A remark, up to 255 bytes in UTF-8")]
    public string? Comment { get; init; }
}

/// <summary>Options when a VDI is made. Names and defaults are QEMU's.</summary>
internal sealed record VdiCreateOptions : ICreateOptions
{
    /// <summary>The only block size that VirtualBox and QEMU make.</summary>
    internal const int DefaultBlockSize = 1 << 20;

    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Every block has its place from the start.</summary>
    [DriverOption("static", "Every block has its place in the file from the start")]
    public bool Static { get; init; }

    /// <summary>Bytes per block.</summary>
    [DriverOption(
        "block_size",
        "Bytes that are allocated together; QEMU takes 1M only",
        IsSize = true,
        Minimum = 4096,
        Maximum = 256 << 20,
        PowerOfTwo = true)]
    public long BlockSize { get; init; } = DefaultBlockSize;

    /// <inheritdoc/>
    [DriverOption(
        "backing_file",
        "VDI whose contents show through where this one holds nothing; makes a differencing disk, which records its UUID alone")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing file: only vdi is possible")]
    public string? BackingFormat { get; init; }

    /// <summary>The remark.</summary>
    [DriverOption("comment", "A remark, up to 255 bytes in UTF-8")]
    public string? Comment { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>What a VDI says beyond the facts that all formats share.</summary>
public readonly record struct VdiInfo()
{
    /// <summary>Dynamic, static or differencing.</summary>
    public required string ImageType { get; init; }

    /// <inheritdoc/>
    public override string ToString() => ImageType;

    /// <summary>Blocks that are in the file.</summary>
    public required int AllocatedBlocks { get; init; }

    /// <summary>The image's identity.</summary>
    public required Guid ImageId { get; init; }

    /// <summary>Changes with each snapshot of the machine that the disk belongs to.</summary>
    public required Guid LastSnapshotId { get; init; }

    /// <summary>The identity of a differencing disk's parent; null for none.</summary>
    public Guid? ParentId { get; init; }

    /// <summary>The identity that the parent's contents must have; null where any will do.</summary>
    public Guid? ParentModificationId { get; init; }

    /// <summary>Cylinders of the geometry that the disk was made with; 0 if it says none.</summary>
    public long Cylinders { get; init; }

    /// <summary>Heads of the geometry.</summary>
    public long Heads { get; init; }

    /// <summary>Sectors per track of the geometry.</summary>
    public long SectorsPerTrack { get; init; }

    /// <summary>The remark of whoever made it.</summary>
    public required string Comment { get; init; }
}
