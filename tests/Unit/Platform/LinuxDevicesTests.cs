using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Platform;

/// <summary>What /sys, /proc and ioctl(2) say of disks that this machine need not have.</summary>
public sealed class LinuxDevicesTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_stands_on_a_disk_is_found_through_partitions_and_volumes()
    {
        if (OperatingSystem.IsWindows())
        {
            return; // its names have no colons
        }
        Disk("sda", "8:0", 2000);
        Partition("sda", "sda1", "8:1");
        Partition("sda", "sda2", "8:2");
        Partition("sda", "sda3", "8:3");
        Disk("dm-0", "253:0", 100);
        Write("sys/block/dm-0/dm/name", "vg-root\n");
        Directory.CreateDirectory(_folder["sys/block/sda/sda2/holders"]);
        Directory.CreateSymbolicLink(_folder["sys/block/sda/sda2/holders/dm-0"], _folder["sys/block/dm-0"]);
        Disk("sdb", "8:16", 50, zoned: "host-managed");
        Disk("sr0", "11:0", 0);
        Write("proc/self/mountinfo", """
            1 0 253:0 / / rw - ext4 /dev/mapper/vg-root rw
            2 1 8:1 / /media/my\040stick rw - vfat /dev/sda1 rw
            3 1 0:40 / /pool rw - btrfs /dev/sdb rw
            """);
        Write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda3 partition 1 0 -2\n");
        var devices = new LinuxDevices(_folder.Root, new Recorded(new(StringComparer.Ordinal)
        {
            ["/dev/sda"] = (8, 0), ["/dev/sda1"] = (8, 1), ["/dev/sda3"] = (8, 3), ["/dev/sdb"] = (8, 16), ["/dev/mapper/vg-root"] = (253, 0),
            ["/dev/sr0"] = (11, 0),
        }));
        IReadOnlyList<HostDisk> disks = devices.List();
        Assert.Equal(["/dev/dm-0", "/dev/sda", "/dev/sdb"], disks.Select(d => d.Path).ToArray()); // sr0 has no disc
        HostDisk sda = disks[1];
        Assert.Equal((2000L * 512, "ACME Disk", 4096), (sda.Length, sda.Model, sda.PhysicalSector));
        Assert.Equal(["/dev/sda1", "/dev/sda2", "/dev/sda3"], sda.Partitions);
        Assert.Equal(
            [
                ("mounted at /media/my stick (by way of sda1)", false),
                ("part of vg-root", false),
                ("mounted at / (by way of vg-root)", true),
                ("swap space (by way of sda3)", true),
            ],
            sda.Uses.Select(u => (u.What, u.IsSystem)));
        Assert.Equal("mounted at /media/my stick", Assert.Single(devices.UsesOf("/dev/sda1")).What);
        Assert.Equal("mounted at /pool", Assert.Single(devices.UsesOf("/dev/sdb")).What);
        Assert.Equal("host-managed", disks[2].Zoned);
        Assert.Equal((HostDeviceKind.Disk, HostDeviceKind.CdRom, HostDeviceKind.None), (
            devices.KindOf("/dev/sda"), devices.KindOf("/dev/sr0"), devices.KindOf("/dev/null")));
    }

    /// <summary>The answers of a drive as the kernel gives them: CDROM_DRIVE_STATUS, CDROM_DISC_STATUS of linux/cdrom.h.</summary>
    [Theory]
    [InlineData(1, 0, "no disc")]
    [InlineData(2, 0, "tray")]
    [InlineData(3, 0, "not ready")]
    [InlineData(4, 100, "audio disc")]
    [InlineData(4, 101, null)]
    [InlineData(-25, 0, null)] // no drive for discs
    public void A_drive_without_a_disc_of_data_is_refused_by_name(int drive, int disc, string? why)
    {
        if (OperatingSystem.IsWindows())
        {
            return; // its names have no colons
        }
        Disk("sr0", "11:0", 2000);
        var devices = new LinuxDevices(_folder.Root, new Recorded(new(StringComparer.Ordinal) { ["/dev/sr0"] = (11, 0) }) { Drive = drive, Disc = disc });
        using var handle = new SafeFileHandle();
        if (why is null)
        {
            Assert.Equal(
                new HostDeviceFacts(1024000, 2048, 2048, IsReadOnly: true, MustBeWrittenInOrder: false), devices.FactsOf(handle, "/dev/sr0"));
            return;
        }
        Assert.Contains(why, Assert.Throws<IOException>(() => devices.FactsOf(handle, "/dev/sr0")).Message, StringComparison.Ordinal);
    }

    private void Disk(string name, string number, long sectors, string zoned = "none")
    {
        string folder = $"sys/block/{name}";
        Write($"{folder}/dev", number + "\n");
        Write($"{folder}/size", $"{sectors}\n");
        Write($"{folder}/ro", "0\n");
        Write($"{folder}/removable", "1\n");
        Write($"{folder}/device/vendor", "ACME    \n");
        Write($"{folder}/device/model", "Disk    \n");
        Write($"{folder}/queue/logical_block_size", "512\n");
        Write($"{folder}/queue/physical_block_size", "4096\n");
        Write($"{folder}/queue/zoned", zoned + "\n");
        Link(number, folder);
    }

    private void Partition(string disk, string name, string number)
    {
        Write($"sys/block/{disk}/{name}/dev", number + "\n");
        Write($"sys/block/{disk}/{name}/partition", "1\n");
        Link(number, $"sys/block/{disk}/{name}");
    }

    private void Link(string number, string folder)
    {
        Directory.CreateDirectory(_folder["sys/dev/block"]);
        Directory.CreateSymbolicLink(_folder[$"sys/dev/block/{number}"], _folder[folder]);
    }

    private void Write(string name, string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_folder[name])!);
        File.WriteAllText(_folder[name], text);
    }

    private sealed class Recorded(Dictionary<string, (uint, uint)> numbers) : ILinuxDeviceControl
    {
        public int Drive { get; init; } = -25; // ENOTTY

        public int Disc { get; init; }

        public (uint Major, uint Minor)? NumberOf(string path) => numbers.TryGetValue(path, out (uint, uint) number) ? number : null;

        public int Control(SafeFileHandle handle, nuint request, Span<ulong> argument)
        {
            argument[0] = request switch { 0x8008_1272 => 1024000, 0x1268 or 0x127B => 2048, 0x125E => 1, _ => 0 };
            return 0;
        }

        public int Control(SafeFileHandle handle, nuint request, nint argument) => request == 0x5326 ? Drive : Disc;
    }
}
