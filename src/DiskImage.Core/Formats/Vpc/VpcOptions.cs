using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vpc;

/// <summary>Which of the two sizes in a footer is the disk's.</summary>
internal enum VpcSizeCalculation
{
    /// <summary>The one that the creator application meant.</summary>
    Auto,

    /// <summary>Cylinders × heads × sectors, unless they are at their largest.</summary>
    Chs,

    /// <summary>The current size in bytes.</summary>
    [OptionText("current_size")]
    CurrentSize,
}

/// <summary>The kinds of disk that can be asked for; a backing file makes a dynamic one differencing.</summary>
internal enum VpcSubformat
{
    /// <summary>Blocks are added as they are written to.</summary>
    Dynamic,

    /// <summary>The disk's bytes, then the footer.</summary>
    Fixed,
}

/// <summary>Options when a VHD is opened.</summary>
internal sealed record VpcOpenOptions
{
    internal const string SizeOption = "force_size_calc";

    /// <summary>Which size counts.</summary>
    [DriverOption(SizeOption, "Which of the two sizes in the footer is the disk's: auto goes by the creator application")]
    public VpcSizeCalculation ForceSizeCalculation { get; init; }

    /// <summary>Take a parent whose identity or time stamp is not the recorded one.</summary>
    [DriverOption(ParentMismatch.IgnoreOption, "Take a parent that is not the recorded one, or was changed since")]
    public bool IgnoreIdMismatch { get; init; }
}

/// <summary>Options that can be changed in an existing VHD; one that is not given stays as it is.</summary>
internal sealed record VpcAmendOptions
{
    internal const string UniqueIdName = "unique_id";

    /// <summary>The disk's identity.</summary>
    [DriverOption(
        UniqueIdName,
        "The disk's identity, which its children record: a GUID, or new for a random one. Children made before refuse it then")]
    public string? UniqueId { get; init; }

    /// <summary>Where the parent is.</summary>
    [DriverOption(
        "parent_path",
        "Where a differencing disk's parent is, from the disk's folder: the parent locators are written anew, its recorded identity stays")]
    public string? ParentPath { get; init; }
}

/// <summary>Options when a VHD is made. Names and defaults are QEMU's where it has them.</summary>
internal sealed record VpcCreateOptions : ICreateOptions
{
    internal const string UniqueIdName = VpcAmendOptions.UniqueIdName;

    /// <summary>Blocks that Windows takes.</summary>
    internal const long DefaultBlockSize = 2 << 20;

    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes, a dynamic disk's at most 2040G; rounded up to a sector", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Fixed or dynamic.</summary>
    [DriverOption("subformat", "dynamic grows as it is written to; fixed has all its space from the start")]
    public VpcSubformat Subformat { get; init; }

    /// <summary>Exactly the size that was asked for. QEMU's default is the other way round.</summary>
    [DriverOption("force_size", "Exactly the size given; off rounds it up to a size that a disk geometry can say, as Virtual PC has it")]
    public bool ForceSize { get; init; } = true;

    /// <summary>Bytes per block.</summary>
    [DriverOption(
        "block_size",
        "Bytes that are allocated together in a dynamic disk; Windows takes 512k and 2M",
        IsSize = true,
        Minimum = 4096,
        Maximum = 256 << 20,
        PowerOfTwo = true)]
    public long BlockSize { get; init; } = DefaultBlockSize;

    /// <inheritdoc/>
    [DriverOption("backing_file", "VHD whose contents show through where this one holds nothing; makes a differencing disk")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing file: only vpc is possible")]
    public string? BackingFormat { get; init; }

    /// <summary>The disk's identity.</summary>
    [DriverOption(UniqueIdName, "The disk's identity, which its children record: a GUID; random if not given")]
    public string? UniqueId { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}
