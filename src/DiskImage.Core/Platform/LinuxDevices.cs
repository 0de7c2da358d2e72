using System.Globalization;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>
/// Block devices of Linux: lengths and sectors by ioctl(2), partitions and what stands on them by /sys, mounts and swap by /proc.
/// Sources: linux/fs.h and linux/cdrom.h for numbers, sysfs-block of the kernel's documentation, proc(5).
/// </summary>
/// <param name="root">The folder that has sys, proc and dev in it: "/" but in tests.</param>
/// <param name="control">The calls.</param>
internal sealed class LinuxDevices(string root, ILinuxDeviceControl control) : HostDevices
{
    private const nuint GetLength = 0x8008_1272, GetReadOnly = 0x125E; // BLKGETSIZE64, BLKROGET
    private const nuint GetSector = 0x1268, GetPhysicalSector = 0x127B; // BLKSSZGET, BLKPBSZGET
    private const nuint ZeroOut = 0x127F, Discard = 0x1277; // BLKZEROOUT, BLKDISCARD
    private const nuint DriveStatus = 0x5326, DiscStatus = 0x5327; // CDROM_DRIVE_STATUS, CDROM_DISC_STATUS
    private const int CurrentSlot = int.MaxValue; // CDSL_CURRENT
    private const int NoDisc = 1, TrayOpen = 2, NotReady = 3, AudioDisc = 100; // CDS_*
    private const int SectorOfSizes = 512; // the unit of sizes in /sys, whatever the device's sectors are
    private const uint CdRomMajor = 11; // SCSI_CDROM_MAJOR
    private const int MostDevices = 4096; // that stand on one. Ours

    private static readonly string[] s_system = ["/", "/usr", "/boot", "/boot/efi", "/etc", "/var"]; // mount points of the running system

    public override HostDeviceKind KindOf(string path) => control.NumberOf(path) switch
    {
        null => HostDeviceKind.None,
        { Major: CdRomMajor } => HostDeviceKind.CdRom,
        _ => HostDeviceKind.Disk,
    };

    public override HostDeviceFacts FactsOf(SafeFileHandle handle, string path)
    {
        RequireMedium(handle);
        long length = (long)Ask(handle, GetLength, "BLKGETSIZE64");
        int sector = (int)(uint)Ask(handle, GetSector, "BLKSSZGET");
        int physical = (int)(uint)Ask(handle, GetPhysicalSector, "BLKPBSZGET");
        bool isReadOnly = (uint)Ask(handle, GetReadOnly, "BLKROGET") != 0;
        bool isOrdered = control.NumberOf(path) is { } number && "host-managed".Equals(
            Text(Path.Combine(QueueOf(FolderOf(number)), "zoned")), StringComparison.Ordinal);
        return new HostDeviceFacts(length, Math.Max(sector, 1), Math.Max(physical, sector), isReadOnly, isOrdered);
    }

    public override bool TryZero(SafeFileHandle handle, long offset, long length) => Range(handle, ZeroOut, offset, length);

    public override bool TryDiscard(SafeFileHandle handle, long offset, long length) => Range(handle, Discard, offset, length);

    public override IReadOnlyList<HostDeviceUse> UsesOf(string path)
        => control.NumberOf(path) is { } number ? UsesIn(FolderOf(number)) : [];

    public override IReadOnlyList<HostDisk> List()
    {
        var disks = new List<HostDisk>();
        foreach (string folder in Folders(Path.Combine(root, "sys/block")))
        {
            long length = Number(folder, "size") * SectorOfSizes;
            string name = Path.GetFileName(folder).Replace('!', '/');
            if (length == 0)
            {
                continue; // no medium, or a loop device without a file
            }
            string queue = Path.Combine(folder, "queue");
            string? zoned = Text(Path.Combine(queue, "zoned"));
            bool isCdRom = Text(Path.Combine(folder, "dev"))?.StartsWith($"{CdRomMajor}:", StringComparison.Ordinal) ?? false;
            disks.Add(new HostDisk($"/dev/{name}", isCdRom ? HostDeviceKind.CdRom : HostDeviceKind.Disk, length)
            {
                Model = ModelOf(folder),
                Serial = Text(Path.Combine(folder, "serial")) ?? Text(Path.Combine(folder, "device/serial")),
                LogicalSector = (int)Number(queue, "logical_block_size"),
                PhysicalSector = (int)Number(queue, "physical_block_size"),
                IsReadOnly = Number(folder, "ro") != 0,
                IsRemovable = Number(folder, "removable") != 0,
                Zoned = zoned is null or "none" ? null : zoned,
                Partitions = [.. PartitionsOf(folder).Select(p => $"/dev/{Path.GetFileName(p).Replace('!', '/')}")],
                Uses = UsesIn(folder),
            });
        }
        return disks;
    }

    private void RequireMedium(SafeFileHandle handle)
    {
        int status = control.Control(handle, DriveStatus, CurrentSlot);
        string? obstacle = status switch
        {
            NoDisc => "there is no disc in the drive",
            TrayOpen => "the tray of the drive is open",
            NotReady => "the drive is not ready yet",
            > 0 when control.Control(handle, DiscStatus, 0) == AudioDisc => "an audio disc has no sectors of data; it is no disk",
            _ => null, // no drive for discs, or one with a disc
        };
        if (obstacle is not null)
        {
            throw new IOException(obstacle);
        }
    }

    private ulong Ask(SafeFileHandle handle, nuint request, string name)
    {
        Span<ulong> answer = stackalloc ulong[1];
        answer[0] = 0;
        int result = control.Control(handle, request, answer);
        return result >= 0 ? answer[0] : throw new IOException($"{name} fails with error {-result}", -result);
    }

    private bool Range(SafeFileHandle handle, nuint request, long offset, long length)
        => control.Control(handle, request, [(ulong)offset, (ulong)length]) >= 0;

    private HostDeviceUse[] UsesIn(string folder)
    {
        var uses = new List<HostDeviceUse>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        (string Number, string Where)[] mounts = [.. Mounts()];
        string[] swaps = [.. Swaps()];
        void Look(string device, string? through)
        {
            if (Text(Path.Combine(device, "dev")) is not { } number || seen.Count > MostDevices || !seen.Add(number))
            {
                return;
            }
            string by = through is null ? "" : $" (by way of {through})";
            uses.AddRange(mounts.Where(m => m.Number.Equals(number, StringComparison.Ordinal)).Select(m => new HostDeviceUse(
                $"mounted at {m.Where}{by}", s_system.Contains(m.Where, StringComparer.Ordinal))));
            if (swaps.Contains(number, StringComparer.Ordinal))
            {
                uses.Add(new HostDeviceUse($"swap space{by}", IsSystem: true));
            }
            foreach (string holder in Folders(Path.Combine(device, "holders")))
            {
                string name = Text(Path.Combine(holder, "dm/name")) ?? Path.GetFileName(holder);
                uses.Add(new HostDeviceUse($"part of {name}", IsSystem: false));
                Look(holder, name);
            }
            foreach (string partition in PartitionsOf(device))
            {
                Look(partition, Path.GetFileName(partition));
            }
        }
        Look(folder, through: null);
        return [.. uses.Distinct()];
    }

    private IEnumerable<(string Number, string Where)> Mounts()
    {
        foreach (string line in Lines(Path.Combine(root, "proc/self/mountinfo")))
        {
            string[] fields = line.Split(' ');
            int dash = Array.IndexOf(fields, "-");
            if (fields.Length < 7 || dash < 0 || dash + 2 >= fields.Length)
            {
                continue;
            }
            yield return (fields[2], Unescaped(fields[4]));
            if (NumberText(Unescaped(fields[dash + 2])) is { } source) // file systems that span disks have a number of their own
            {
                yield return (source, Unescaped(fields[4]));
            }
        }
    }

    private IEnumerable<string> Swaps()
        => Lines(Path.Combine(root, "proc/swaps")).Skip(1)
            .Select(l => NumberText(Unescaped(l.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).FirstOrDefault() ?? "")))
            .OfType<string>();

    private string? NumberText(string path)
        => path.StartsWith('/') && control.NumberOf(path) is var (major, minor) ? $"{major}:{minor}" : null;

    /// <summary>Spaces and their like stand as octal numbers there.</summary>
    private static string Unescaped(string text)
        => text.Replace("\\040", " ", StringComparison.Ordinal).Replace("\\011", "\t", StringComparison.Ordinal)
            .Replace("\\012", "\n", StringComparison.Ordinal).Replace("\\134", "\\", StringComparison.Ordinal);

    private string FolderOf((uint Major, uint Minor) number) => Path.Combine(root, $"sys/dev/block/{number.Major}:{number.Minor}");

    /// <summary>A partition has the queue of its disk.</summary>
    private static string QueueOf(string folder)
        => Directory.Exists(Path.Combine(folder, "queue"))
            ? Path.Combine(folder, "queue")
            : Path.Combine(Directory.ResolveLinkTarget(folder, returnFinalTarget: true)?.FullName ?? folder, "../queue");

    private static IEnumerable<string> PartitionsOf(string folder)
        => Folders(folder).Where(f => File.Exists(Path.Combine(f, "partition")));

    private static string? ModelOf(string folder)
    {
        string text = $"{Text(Path.Combine(folder, "device/vendor"))} {Text(Path.Combine(folder, "device/model"))}".Trim();
        return text.Length > 0 && !text.StartsWith("0x", StringComparison.Ordinal) ? text
            : Text(Path.Combine(folder, "loop/backing_file")) is { } file ? $"loop device on {file}" : null;
    }

    private static long Number(string folder, string name)
        => long.TryParse(Text(Path.Combine(folder, name)), NumberStyles.None, CultureInfo.InvariantCulture, out long value)
            && value <= long.MaxValue / SectorOfSizes ? value : 0;

    private static string? Text(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim() is { Length: > 0 } text ? text : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static string[] Lines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private static string[] Folders(string path)
    {
        try
        {
            return [.. Directory.GetDirectories(path).Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
