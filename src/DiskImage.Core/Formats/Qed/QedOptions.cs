using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qed;

/// <summary>Options when a QED image is made. Names and defaults are QEMU's.</summary>
internal sealed record QedCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_file", "Image whose contents show through where this one holds nothing")]
    public string? BackingFile { get; init; }

    /// <inheritdoc/>
    [DriverOption("backing_fmt", "Format of the backing image: raw is recorded, any other is found by probing")]
    public string? BackingFormat { get; init; }

    /// <summary>Bytes per cluster.</summary>
    [DriverOption(
        "cluster_size",
        "Bytes that are allocated together",
        IsSize = true,
        Minimum = QedHeader.MinClusterSize,
        Maximum = QedHeader.MaxClusterSize,
        PowerOfTwo = true)]
    public long ClusterSize { get; init; } = 65536;

    /// <summary>Clusters per table.</summary>
    [DriverOption(
        "table_size",
        "Clusters of an L1 or L2 table; the larger, the larger the disk can grow",
        Minimum = 1,
        Maximum = QedHeader.MaxTableSize,
        PowerOfTwo = true)]
    public int TableSize { get; init; } = 4;

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>What a QED header says beyond the facts that all formats share.</summary>
public readonly record struct QedInfo()
{
    /// <summary>Clusters of an L1 or L2 table.</summary>
    public required int TableSize { get; init; }

    /// <summary>The image was not closed: it is checked before it is written to.</summary>
    public required bool NeedsCheck { get; init; }

    /// <summary>The backing file is raw, whatever it looks like.</summary>
    public required bool BackingIsRaw { get; init; }

    /// <summary>How large the disk can become.</summary>
    public required long MaximumSize { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"table size {TableSize}";
}
