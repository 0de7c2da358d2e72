using DiskImage.Block;
using DiskImage.Platform;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nvme;

/// <summary>What is in the way of driving a device is told, over a folder that looks like a Linux machine's /sys.</summary>
public sealed class NvmeHostTests : IDisposable
{
    private const string Address = "0000:44:00.0", Url = "nvme://0000:44:00.0/1", Kind = "0x010802";

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [LinuxFact]
    public void A_device_that_is_not_to_be_had_is_told_with_what_to_do()
    {
        Expect(DiskImageErrorKind.NotFound, "no PCI device 0000:44:00.0");
        string device = _folder[$"sys/bus/pci/devices/{Address}"];
        Directory.CreateDirectory(device);
        File.WriteAllText(Path.Combine(device, "class"), "0x010601\n");
        Expect(DiskImageErrorKind.InvalidOption, "its class is 0x010601");
        File.WriteAllText(Path.Combine(device, "class"), $"{Kind}\n");
        Expect(DiskImageErrorKind.Unsupported, "no driver has it", "modprobe vfio-pci", $"echo {Address} > /sys/bus/pci/drivers_probe");
        Link("driver", "bus/pci/drivers/nvme");
        Expect(
            DiskImageErrorKind.Unsupported,
            "the driver nvme has it",
            $"echo vfio-pci > /sys/bus/pci/devices/{Address}/driver_override",
            $"echo {Address} > /sys/bus/pci/devices/{Address}/driver/unbind");
        Directory.Delete(Path.Combine(device, "driver"));
        Link("driver", "bus/pci/drivers/vfio-pci");
        Expect(DiskImageErrorKind.Unsupported, "no IOMMU in use");
        Link("iommu_group", "kernel/iommu_groups/12");
        Expect(DiskImageErrorKind.Unsupported, "/dev/vfio/vfio is not there", "modprobe vfio-pci");
        Directory.CreateDirectory(_folder["dev/vfio"]);
        File.WriteAllText(_folder["dev/vfio/vfio"], "");
        Expect(DiskImageErrorKind.Unsupported, "/dev/vfio/12 is not there");
        File.WriteAllText(_folder["dev/vfio/12"], "");
        Expect(DiskImageErrorKind.Unsupported, "vfio_iommu_type1"); // files that are no vfio

        void Link(string name, string target)
        {
            Directory.CreateDirectory(_folder[$"sys/{target}"]);
            Directory.CreateSymbolicLink(Path.Combine(device, name), _folder[$"sys/{target}"]);
        }
    }

    [Theory]
    [InlineData(0x100_0000)]
    [InlineData(0x100_0000, "0x0000000000000000 0x0000000000ffffff direct-relaxable", "0x00000000fee00000 0x00000000feefffff msi")]
    [InlineData(0x900_0000, "0x0000000000f00000 0x00000000080fffff reserved", "0x8300000 0x8ffffff msi", "nonsense", "0x 0xg x")]
    public void Memory_is_where_nothing_is_reserved(long address, params string[] reserved)
        => Assert.Equal((ulong)address, LinuxVfio.FreeAddress(reserved, 6 << 20));

    private void Expect(DiskImageErrorKind kind, params string[] words)
    {
        DiskImageException error = Assert.Throws<DiskImageException>(
            () => new LinuxVfio(_folder.Root).Open(Url, Address, Kind, "NVMe controller"));
        Assert.Equal(kind, error.Kind);
        Assert.All(words, w => Assert.Contains(w, error.Message, StringComparison.Ordinal));
    }
}

/// <summary>A fact that needs Linux.</summary>
public sealed class LinuxFactAttribute : FactAttribute
{
    public LinuxFactAttribute() => Skip = OperatingSystem.IsLinux() ? null : "calls of Linux are made";
}
