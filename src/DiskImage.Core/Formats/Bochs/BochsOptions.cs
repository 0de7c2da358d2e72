using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Bochs;

/// <summary>Options when a disk of Bochs is opened.</summary>
internal sealed record BochsOpenOptions
{
    /// <summary>What an undoable or volatile redolog stands on: it does not say so itself.</summary>
    [DriverOption("base", "Image that an undoable or volatile redolog holds the changes to; the redolog does not name it")]
    public string? Base { get; init; }

    /// <summary>Its format.</summary>
    [DriverOption("base-fmt", "Format of the base image")]
    public string? BaseFormat { get; init; }
}

/// <summary>Options when a growing disk of Bochs is made.</summary>
internal sealed record BochsCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>What a redolog says beyond the facts that all formats share.</summary>
public readonly record struct BochsInfo()
{
    /// <summary>Growing, undoable or volatile.</summary>
    public required string Subtype { get; init; }

    /// <summary>Version of the header, 1 or 2.</summary>
    public required int Version { get; init; }

    /// <summary>Extents that the catalog can name.</summary>
    public required int CatalogEntries { get; init; }

    /// <summary>
    /// When the base image of an undoable redolog was changed last, in the time of the machine it was on; null if it does not say.
    /// </summary>
    public DateTime? BaseModified { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Subtype;
}
