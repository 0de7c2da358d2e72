using DiskImage.Platform;

namespace DiskImage.Protocols.HostDevice;

/// <summary>A disk of this machine that may be named as an image.</summary>
/// <param name="Path">The name to open it by.</param>
/// <param name="Length">Bytes.</param>
public sealed record DiskDevice(string Path, long Length)
{
    /// <summary>Maker and model, as the disk has them; null if it does not tell.</summary>
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
    public IReadOnlyList<string> Partitions { get; init; } = [];

    /// <summary>What uses it or a part of it, in words.</summary>
    public IReadOnlyList<string> Uses { get; init; } = [];

    /// <summary>The running system stands on it: it is never written to.</summary>
    public bool IsSystem { get; init; }

    /// <summary>The disks of this machine that hold something, in the order of their names.</summary>
    public static IReadOnlyList<DiskDevice> All() => [.. HostDevices.Current.List().Select(Of)];

    internal static DiskDevice Of(HostDisk disk) => new(disk.Path, disk.Length)
    {
        Model = disk.Model,
        Serial = disk.Serial,
        LogicalSectorSize = disk.LogicalSector,
        PhysicalSectorSize = disk.PhysicalSector,
        IsReadOnly = disk.IsReadOnly,
        IsRemovable = disk.IsRemovable,
        Zoned = disk.Zoned,
        Partitions = disk.Partitions,
        Uses = [.. disk.Uses.Select(u => u.What)],
        IsSystem = disk.Uses.Any(u => u.IsSystem),
    };
}
