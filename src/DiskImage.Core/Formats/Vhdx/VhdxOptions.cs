using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vhdx;

/// <summary>What a discard request does.</summary>
internal enum VhdxDiscardMode
{
    /// <summary>Blocks become free in the image; the host file keeps its space.</summary>
    Ignore,

    /// <summary>Blocks become free, and the host gets the space back where it can.</summary>
    Unmap,
}

/// <summary>How a VHDX keeps its blocks.</summary>
internal enum VhdxSubformat
{
    /// <summary>Blocks are added as they are written.</summary>
    Dynamic,

    /// <summary>Every block has its place from the start.</summary>
    Fixed,

    /// <summary>Only what differs from a parent image is stored. Made by naming a backing file.</summary>
    Differencing,
}

/// <summary>Options when a VHDX image is opened.</summary>
internal sealed record VhdxOpenOptions
{
    /// <summary>Opens on a parent that is not the one the disk was made on.</summary>
    [DriverOption(ParentMismatch.IgnoreOption, "Use the parent even if its identity is not the recorded one")]
    public bool IgnoreIdMismatch { get; init; }

    /// <summary>Opens an image whose log cannot be replayed.</summary>
    [DriverOption("discard_log", "Open as if the log were empty if it cannot be replayed: the updates in it are lost")]
    public bool DiscardLog { get; init; }

    /// <summary>What a discard request does.</summary>
    [DriverOption("discard", "What discarding does to the host file: ignore keeps its space, unmap gives it back")]
    public VhdxDiscardMode Discard { get; init; } = VhdxDiscardMode.Unmap;

    /// <summary>Memory for the BAT and the sector bitmaps.</summary>
    [DriverOption("metadata-cache-size", "Most bytes of the BAT and the sector bitmaps kept in memory", IsSize = true, Minimum = 0)]
    public long MetadataCacheSize { get; init; } = 16 << 20;
}

/// <summary>Options that can be changed in an existing VHDX image; one that is not given stays as it is.</summary>
internal sealed record VhdxAmendOptions
{
    internal const string VirtualDiskIdName = "virtual_disk_id";

    /// <summary>Sector size that the disk says it has inside.</summary>
    [DriverOption(
        "physical_sector_size",
        "Sector size that the disk says it has inside: 512 or 4096. Children made before refuse the disk then",
        IsSize = true,
        Minimum = 512,
        Maximum = 4096)]
    public long? PhysicalSectorSize { get; init; }

    /// <summary>The disk's identity.</summary>
    [DriverOption(
        VirtualDiskIdName,
        "The disk's identity (SCSI page 83): a GUID, or new for a random one. Children made before refuse the disk then")]
    public string? VirtualDiskId { get; init; }

    /// <summary>Where the parent is.</summary>
    [DriverOption(
        "parent_path",
        "Where a differencing disk's parent is, from the disk's folder: the parent locator is written anew, its recorded identity stays")]
    public string? ParentPath { get; init; }
}

/// <summary>Options when a VHDX image is made. Names and defaults are QEMU's where QEMU has them.</summary>
internal sealed record VhdxCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes, at most 64T; rounded up to a logical sector", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>How blocks are kept.</summary>
    [DriverOption(
        "subformat", "dynamic grows with what is written, fixed has every block from the start; differencing follows from a backing file")]
    public VhdxSubformat Subformat { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_file", "Parent image (VHDX) whose contents show through where this one holds nothing")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the parent image: vhdx")]
    public string? BackingFormat { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }

    /// <summary>Bytes per payload block.</summary>
    [DriverOption(
        "block_size",
        "Bytes that are allocated together, a power of two from 1M to 256M; 0 chooses by the virtual size",
        IsSize = true,
        Minimum = 0,
        Maximum = VhdxLayout.MaxBlockSize)]
    public long BlockSize { get; init; }

    /// <summary>Bytes of the log.</summary>
    [DriverOption("log_size", "Bytes of the metadata log; rounded up to 1M", IsSize = true, Minimum = VhdxLayout.MiB, Maximum = 1L << 30)]
    public long LogSize { get; init; } = VhdxLayout.MiB;

    /// <summary>How new blocks say that they read as zeroes.</summary>
    [DriverOption(
        "block_state_zero",
        "New blocks are marked as zeroes; off leaves them not present, whose contents other programs may take for undefined")]
    public bool BlockStateZero { get; init; } = true;

    /// <summary>Sector size that the disk shows.</summary>
    [DriverOption(
        "logical_sector_size",
        "Sector size that the disk shows: 512 or 4096; a child's is its parent's",
        IsSize = true,
        Minimum = 512,
        Maximum = 4096)]
    public long? LogicalSectorSize { get; init; }

    /// <summary>The disk's identity.</summary>
    [DriverOption(
        VhdxAmendOptions.VirtualDiskIdName, "The disk's identity (SCSI page 83): a GUID; random if not given. A child's is its parent's")]
    public string? VirtualDiskId { get; init; }

    /// <summary>Sector size that the disk says it has inside.</summary>
    [DriverOption(
        "physical_sector_size", "Sector size that the disk says it has inside: 512 or 4096", IsSize = true, Minimum = 512, Maximum = 4096)]
    public long? PhysicalSectorSize { get; init; }
}
