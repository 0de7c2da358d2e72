using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vmdk;

/// <summary>The kinds of disk that can be made.</summary>
public enum VmdkSubformat
{
    /// <summary>One sparse file, with the descriptor inside.</summary>
    [OptionText("monolithicSparse")]
    MonolithicSparse,

    /// <summary>A descriptor and one file with all the sectors.</summary>
    [OptionText("monolithicFlat")]
    MonolithicFlat,

    /// <summary>A descriptor and sparse files of at most 2 GiB of the disk.</summary>
    [OptionText("twoGbMaxExtentSparse")]
    TwoGbMaxExtentSparse,

    /// <summary>A descriptor and files of at most 2 GiB with all the sectors.</summary>
    [OptionText("twoGbMaxExtentFlat")]
    TwoGbMaxExtentFlat,

    /// <summary>One compressed file, written once from front to back.</summary>
    [OptionText("streamOptimized")]
    StreamOptimized,

    /// <summary>As <see cref="MonolithicFlat"/>, described as ESXi does it.</summary>
    [OptionText("vmfs")]
    Vmfs,
}

/// <summary>The virtual adapters that a descriptor can name.</summary>
public enum VmdkAdapter
{
    /// <summary>IDE.</summary>
    [OptionText("ide")]
    Ide,

    /// <summary>BusLogic SCSI.</summary>
    [OptionText("buslogic")]
    BusLogic,

    /// <summary>LSI Logic SCSI.</summary>
    [OptionText("lsilogic")]
    LsiLogic,

    /// <summary>Not known, of an old ESX server.</summary>
    [OptionText("legacyESX")]
    LegacyEsx,
}

/// <summary>Options when a VMDK is opened.</summary>
public sealed record VmdkOpenOptions
{
    /// <summary>Take a parent whose content identifier is not the recorded one.</summary>
    [DriverOption(ParentMismatch.IgnoreOption, "Take a parent that is not the recorded one, or was changed since")]
    public bool IgnoreIdMismatch { get; init; }
}

/// <summary>Options when a VMDK is made. Names and defaults are QEMU's where it has them.</summary>
public sealed record VmdkCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>The kind of disk.</summary>
    [DriverOption("subformat", "How the disk is kept: sparse or flat, in one file or in files of 2 GiB, or compressed and written once from front to back")]
    public VmdkSubformat Subformat { get; init; }

    /// <summary>The virtual adapter.</summary>
    [DriverOption("adapter_type", "The virtual adapter that the descriptor names; also decides the disk's geometry")]
    public VmdkAdapter AdapterType { get; init; }

    /// <summary>The virtual hardware version.</summary>
    [DriverOption("hwversion", "The virtual hardware version that the descriptor names; 4 if not given, 6 with compat6", Minimum = 1, Maximum = 1000)]
    public int? HardwareVersion { get; init; }

    /// <summary>The version of the guest's tools.</summary>
    [DriverOption("toolsversion", "The version of the guest's tools that the descriptor names", Minimum = 0, Maximum = uint.MaxValue)]
    public long ToolsVersion { get; init; } = int.MaxValue;

    /// <summary>Hardware version 6.
    /// </summary>
    [DriverOption("compat6", "Hardware version 6; not together with hwversion")]
    public bool Compat6 { get; init; }

    /// <summary>Grains can be marked as zero.</summary>
    [DriverOption("zeroed_grain", "Zeroes over a parent take no space: grains are marked as zero (version 2)")]
    public bool ZeroedGrain { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_file", "VMDK whose contents show through where this one holds nothing; for sparse subformats")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing file: only vmdk is possible")]
    public string? BackingFormat { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>Options that can be changed in an existing VMDK; one that is not given stays as it is.</summary>
public sealed record VmdkAmendOptions
{
    /// <summary>The virtual adapter.</summary>
    [DriverOption("adapter_type", "The virtual adapter that the descriptor names")]
    public VmdkAdapter? AdapterType { get; init; }

    /// <summary>The virtual hardware version.</summary>
    [DriverOption("hwversion", "The virtual hardware version that the descriptor names", Minimum = 1, Maximum = 1000)]
    public int? HardwareVersion { get; init; }

    /// <summary>The version of the guest's tools.</summary>
    [DriverOption("toolsversion", "The version of the guest's tools that the descriptor names", Minimum = 0, Maximum = uint.MaxValue)]
    public long? ToolsVersion { get; init; }

    /// <summary>The content identifier.</summary>
    [DriverOption("cid", "The content identifier, which children record: 8 hexadecimal digits, or new for a random one. Children made before refuse it then")]
    public string? Cid { get; init; }

    /// <summary>Where the parent is.</summary>
    [DriverOption("parent_path", "Where a child's parent is, from the disk's folder; the recorded content identifier stays")]
    public string? ParentPath { get; init; }
}

/// <summary>What a VMDK says beyond the facts that all formats share.</summary>
public sealed record VmdkInfo
{
    /// <summary>The kind of disk; null if it does not say.</summary>
    public string? CreateType { get; init; }

    /// <summary>The content identifier, 8 hexadecimal digits.</summary>
    public required string Cid { get; init; }

    /// <summary>The parent's content identifier as recorded, 8 hexadecimal digits; null without a parent.</summary>
    public string? ParentCid { get; init; }

    /// <summary>The long content identifier; null if there is none.</summary>
    public string? LongContentId { get; init; }

    /// <summary>The disk's UUID as it stands there; null if there is none.</summary>
    public string? Uuid { get; init; }

    /// <summary>The virtual adapter; null if it does not say.</summary>
    public string? AdapterType { get; init; }

    /// <summary>The virtual hardware version; null if it does not say.</summary>
    public string? HardwareVersion { get; init; }

    /// <summary>The version of the guest's tools; null if it does not say.</summary>
    public string? ToolsVersion { get; init; }

    /// <summary>The encoding of the descriptor; null if it does not say.</summary>
    public string? Encoding { get; init; }

    /// <summary>The version of the sparse extents; null if there are none.</summary>
    public int? SparseVersion { get; init; }

    /// <summary>The extents, each with its access, size, type and file.</summary>
    public required IReadOnlyList<string> Extents { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{CreateType ?? "sparse extent"}, {Extents.Count} extent{(Extents.Count == 1 ? "" : "s")}";
}
