using DiskImage.Block;
using DiskImage.Protocols.HostDevice;

namespace DiskImage.PowerShell;

/// <summary>A disk of this machine that may be named as an image. Sizes are bytes.</summary>
public sealed class DiskImageDevice
{
    /// <summary>The name to open it by.</summary>
    public required string Path { get; init; }

    /// <summary>Bytes.</summary>
    public required long Size { get; init; }

    /// <summary>Maker and model; null if the disk does not tell.</summary>
    public string? Model { get; init; }

    /// <summary>Serial number; null likewise.</summary>
    public string? Serial { get; init; }

    /// <summary>Bytes of the sectors that it is addressed by.</summary>
    public int LogicalSectorSize { get; init; }

    /// <summary>Bytes of the sectors that it has inside.</summary>
    public int PhysicalSectorSize { get; init; }

    /// <summary>It takes no writes.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Its medium can be taken out.</summary>
    public bool IsRemovable { get; init; }

    /// <summary>How it is zoned: host-managed, host-aware; null if it is not.</summary>
    public string? Zoned { get; init; }

    /// <summary>Names of its partitions.</summary>
    public ReadableList<string> Partitions { get; init; } = new([]);

    /// <summary>What uses it or a part of it: mount points, swap space, what it is part of.</summary>
    public ReadableList<string> Uses { get; init; } = new([]);

    /// <summary>The running system stands on it: it is never written to.</summary>
    public bool IsSystem { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Path}: {ReadableSize.Of(Size)} {Model}").TrimEnd();

    internal static DiskImageDevice Of(DiskDevice disk) => new()
    {
        Path = disk.Path,
        Size = disk.Length,
        Model = disk.Model,
        Serial = disk.Serial,
        LogicalSectorSize = disk.LogicalSectorSize,
        PhysicalSectorSize = disk.PhysicalSectorSize,
        IsReadOnly = disk.IsReadOnly,
        IsRemovable = disk.IsRemovable,
        Zoned = disk.Zoned,
        Partitions = new(disk.Partitions),
        Uses = new(disk.Uses),
        IsSystem = disk.IsSystem,
    };
}
