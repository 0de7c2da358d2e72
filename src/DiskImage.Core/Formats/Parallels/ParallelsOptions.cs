using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Parallels;

/// <summary>Options when a Parallels disk is opened.</summary>
internal sealed record ParallelsOpenOptions
{
    /// <summary>The snapshot of a bundle that is to be read.</summary>
    [DriverOption("snapshot", "Identifier of a snapshot of a bundle (DiskDescriptor.xml) that is to be read instead of the top layer")]
    public string? Snapshot { get; init; }
}

/// <summary>Options when a Parallels disk is made. Names and defaults are QEMU's.</summary>
internal sealed record ParallelsCreateOptions : ICreateOptions
{
    /// <summary>Bytes of a cluster where nothing else is said.</summary>
    public const int UsualClusterSize = 1 << 20;

    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Bytes of a cluster.</summary>
    [DriverOption(
        "cluster_size",
        "Bytes per cluster; rounded up to 512",
        IsSize = true,
        Minimum = 1,
        Maximum = (long)ParallelsHeader.MaximumTracks * ParallelsHeader.SectorSize)]
    public long ClusterSize { get; init; } = UsualClusterSize;

    /// <summary>A bundle instead of one file.</summary>
    [DriverOption("bundle", "A folder with a descriptor and the disk's file in it, as Parallels Desktop and Virtuozzo have it")]
    public bool Bundle { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>What a Parallels disk says beyond the facts that all formats share.</summary>
public readonly record struct ParallelsInfo()
{
    /// <summary>Extended ("WithouFreSpacExt"), Original ("WithoutFreeSpace"); Plain or Split for what is a bundle of others.</summary>
    public required string Variant { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Variant;

    /// <summary>Where the data begin.</summary>
    public required long DataOffset { get; init; }

    /// <summary>Heads of the geometry.</summary>
    public required long Heads { get; init; }

    /// <summary>Cylinders of the geometry.</summary>
    public required long Cylinders { get; init; }

    /// <summary>It says that nothing was written to it yet.</summary>
    public required bool IsEmpty { get; init; }

    /// <summary>It has a format extension.</summary>
    public required bool HasExtension { get; init; }

    /// <summary>The snapshots of a bundle, by their identifiers; the top layer is not one.</summary>
    public required IReadOnlyList<string> Snapshots { get; init; }

    /// <summary>How many parts the disk has, each with files of its own.</summary>
    public required int Storages { get; init; }

    /// <summary>Of what has no header of its own.</summary>
    internal static ParallelsInfo Plain(ParallelsFacts facts) => new()
    {
        Variant = facts.Storages == 1 ? "Plain" : "Split",
        DataOffset = 0,
        Heads = 0,
        Cylinders = 0,
        IsEmpty = false,
        HasExtension = false,
        Snapshots = facts.Snapshots,
        Storages = facts.Storages,
    };
}
