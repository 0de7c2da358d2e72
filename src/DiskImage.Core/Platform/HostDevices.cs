using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>What kind of device a path leads to.</summary>
internal enum HostDeviceKind
{
    /// <summary>None that holds a disk.</summary>
    None,

    /// <summary>A disk, a partition or volume, a floppy.</summary>
    Disk,

    /// <summary>A drive for CDs.</summary>
    CdRom,
}

/// <summary>What an open device says of itself.</summary>
/// <param name="Length">Bytes.</param>
/// <param name="LogicalSector">Bytes of the sectors that it is addressed by.</param>
/// <param name="PhysicalSector">Bytes of the sectors that it has inside.</param>
/// <param name="IsReadOnly">It takes no writes.</param>
/// <param name="MustBeWrittenInOrder">Its zones are written from front to back only (host-managed).</param>
internal sealed record HostDeviceFacts(
    long Length, int LogicalSector, int PhysicalSector, bool IsReadOnly, bool MustBeWrittenInOrder);

/// <summary>What uses a disk besides us.</summary>
/// <param name="What">In words: "mounted at /home", "swap space", "part of dm-0".</param>
/// <param name="IsSystem">The running system stands on it.</param>
internal sealed record HostDeviceUse(string What, bool IsSystem);

/// <summary>A disk of this machine that may be named.</summary>
internal sealed record HostDisk(string Path, HostDeviceKind Kind, long Length)
{
    /// <summary>Maker and model, as the disk has them; null if it does not tell.</summary>
    public string? Model { get; init; }

    /// <summary>Serial number; null likewise.</summary>
    public string? Serial { get; init; }

    /// <summary>Bytes of the sectors that it is addressed by.</summary>
    public int LogicalSector { get; init; } = 512;

    /// <summary>Bytes of the sectors that it has inside.</summary>
    public int PhysicalSector { get; init; } = 512;

    /// <summary>It takes no writes.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Its medium can be taken out.</summary>
    public bool IsRemovable { get; init; }

    /// <summary>How it is zoned: host-managed, host-aware; null if it is not.</summary>
    public string? Zoned { get; init; }

    /// <summary>Names of its partitions.</summary>
    public IReadOnlyList<string> Partitions { get; init; } = [];

    /// <summary>What uses it.</summary>
    public IReadOnlyList<HostDeviceUse> Uses { get; init; } = [];
}

/// <summary>The disks of this machine and what can be asked of them. One implementation per operating system.</summary>
internal abstract class HostDevices
{
    /// <summary>The implementation for this machine.</summary>
    public static HostDevices Current { get; } =
        OperatingSystem.IsLinux() ? new LinuxDevices("/", LinuxDeviceControl.Instance) : new NoDevices();

    /// <summary>What kind of device a path leads to, without opening it.</summary>
    public abstract HostDeviceKind KindOf(string path);

    /// <summary>What an open device says of itself. What is in the way of using it at all is thrown.</summary>
    /// <exception cref="IOException">No medium, an open tray, an audio disc; or the host's error.</exception>
    public abstract HostDeviceFacts FactsOf(SafeFileHandle handle, string path);

    /// <summary>What uses a device, or anything on it.</summary>
    public abstract IReadOnlyList<HostDeviceUse> UsesOf(string path);

    /// <summary>Makes a range of whole sectors read as zeroes. False if that is not to be had here.</summary>
    public abstract bool TryZero(SafeFileHandle handle, long offset, long length);

    /// <summary>Tells the device that a range of whole sectors holds nothing. False if it takes no such hint.</summary>
    public abstract bool TryDiscard(SafeFileHandle handle, long offset, long length);

    /// <summary>The disks that there are.</summary>
    public abstract IReadOnlyList<HostDisk> List();

    /// <summary>A host whose devices are not opened here.</summary>
    private sealed class NoDevices : HostDevices
    {
        public override HostDeviceKind KindOf(string path) => HostDeviceKind.None;

        public override HostDeviceFacts FactsOf(SafeFileHandle handle, string path) => throw new NotSupportedException();

        public override IReadOnlyList<HostDeviceUse> UsesOf(string path) => [];

        public override bool TryZero(SafeFileHandle handle, long offset, long length) => false;

        public override bool TryDiscard(SafeFileHandle handle, long offset, long length) => false;

        public override IReadOnlyList<HostDisk> List() => [];
    }
}
