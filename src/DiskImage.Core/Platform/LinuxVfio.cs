using System.Globalization;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>
/// PCI functions of Linux that are bound to vfio-pci, by a container of their own with an IOMMU of type 1. Sources: linux/vfio.h, and
/// driver-api/vfio and sysfs-bus-pci of the kernel's documentation.
/// </summary>
/// <param name="root">The folder that has sys and dev in it: "/" but in tests.</param>
internal sealed class LinuxVfio(string root) : IPciHost
{
    private const int NoEntry = 2, NoAccess = 13, NotPermitted = 1, Busy = 16, NoDevice = 19; // ENOENT, EACCES, EPERM, EBUSY, ENODEV
    private const ulong FirstAddress = 16UL << 20; // where functions see our memory, if nothing is there. Ours
    private const ulong LastAddress = 1UL << 31; // every IOMMU reaches so far. Ours
    private const ulong AddressStep = 1 << 20;

    public IPciFunction Open(string name, string address, string kind, string what)
    {
        string folder = Path.Combine(root, "sys/bus/pci/devices", address);
        if (!Directory.Exists(folder))
        {
            throw Error(DiskImageErrorKind.NotFound, name, $"this machine has no PCI device {address}, by /sys/bus/pci/devices.");
        }
        if (Text(Path.Combine(folder, "class")) is not { } found || !found.Equals(kind, StringComparison.OrdinalIgnoreCase))
        {
            throw Error(
                DiskImageErrorKind.InvalidOption,
                name,
                $"{address} is no {what}: its class is {Text(Path.Combine(folder, "class")) ?? "not told"}, and that of one is {kind}.");
        }
        string? driver = LinkOf(folder, "driver");
        if (driver is not "vfio-pci")
        {
            throw Error(DiskImageErrorKind.Unsupported, name, NotBound(address, driver));
        }
        string group = LinkOf(folder, "iommu_group") ?? throw Error(
            DiskImageErrorKind.Unsupported,
            name,
            "this system has no IOMMU in use, without which a device could reach all memory. Turn it on in the firmware (VT-d, AMD-Vi), "
                + "and for Intel's give the kernel the parameter intel_iommu=on.");
        SafeFileHandle container = OpenFile(name, "dev/vfio/vfio");
        SafeFileHandle? handle = null;
        try
        {
            handle = OpenFile(name, $"dev/vfio/{group}");
            SafeFileHandle device = Take(name, address, container, handle, group);
            return new LinuxVfioFunction(name, container, handle, device, FreeAddress(group));
        }
        catch
        {
            handle?.Dispose();
            container.Dispose();
            throw;
        }
    }

    /// <summary>
    /// The first address from 16 MiB on at which nothing is reserved for <paramref name="length"/> bytes, by the lines of a group's
    /// <c>reserved_regions</c>: first and last byte, and what they are for.
    /// </summary>
    internal static ulong FreeAddress(IEnumerable<string> reserved, ulong length)
    {
        var taken = new List<(ulong First, ulong Last)>();
        foreach (string line in reserved)
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length >= 2 && Hex(words[0]) is { } first && Hex(words[1]) is { } last)
            {
                taken.Add((first, last));
            }
        }
        ulong address = FirstAddress;
        while (address < LastAddress && taken.Exists(t => t.First < address + length && t.Last >= address))
        {
            address += AddressStep;
        }
        return address;
    }

    private static ulong? Hex(string text)
        => text.StartsWith("0x", StringComparison.Ordinal)
            && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong value) ? value : null;

    private static string NotBound(string address, string? driver)
        => $"{(driver is null ? "no driver has it" : $"the driver {driver} has it")}, not vfio-pci, which gives devices to programs. "
            + $"{(driver is null ? "" : "While it is given away, this system does not see its disks: unmount them first. ")}"
            + $"As root: modprobe vfio-pci; echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override; "
            + $"{(driver is null ? "" : $"echo {address} > /sys/bus/pci/devices/{address}/driver/unbind; ")}"
            + $"echo {address} > /sys/bus/pci/drivers_probe. To give it back: echo > /sys/bus/pci/devices/{address}/driver_override, "
            + "then the same unbind and drivers_probe.";

    private ulong FreeAddress(string group)
    {
        string path = Path.Combine(root, "sys/kernel/iommu_groups", group, "reserved_regions");
        try
        {
            return FreeAddress(File.ReadLines(path), LinuxVfioFunction.MostMemory);
        }
        catch (IOException)
        {
            return FirstAddress; // an older kernel does not tell; what is reserved lies higher
        }
        catch (UnauthorizedAccessException)
        {
            return FirstAddress;
        }
    }

    private SafeFileHandle Take(string name, string address, SafeFileHandle container, SafeFileHandle handle, string group)
    {
        if (VfioCalls.Control(container, VfioCalls.GetApiVersion, 0) != 0
            || VfioCalls.Control(container, VfioCalls.CheckExtension, VfioCalls.Type1) != 1)
        {
            throw Error(DiskImageErrorKind.Unsupported, name, "this kernel's vfio has no IOMMU of type 1: modprobe vfio_iommu_type1.");
        }
        Span<uint> status = [2 * sizeof(uint), 0];
        _ = Require(VfioCalls.Control(handle, VfioCalls.GroupGetStatus, status), name, "ask for the state of its group");
        if ((status[1] & 1) == 0) // VFIO_GROUP_FLAGS_VIABLE
        {
            string folder = Path.Combine(root, "sys/kernel/iommu_groups", group, "devices");
            string[] others =
            [
                .. Directory.EnumerateFileSystemEntries(folder).Where(d => LinkOf(d, "driver") is { } by and not ("vfio-pci" or "pcieport"))
                    .Select(d => $"{Path.GetFileName(d)} ({LinkOf(d, "driver")})").Order(StringComparer.Ordinal),
            ];
            throw Error(
                DiskImageErrorKind.Unsupported,
                name,
                $"devices of its IOMMU group {group} have other drivers: {string.Join(", ", others)}. It cannot tell them apart, so "
                    + "all of them must be bound to vfio-pci, or to no driver.");
        }
        using var borrowed = new BorrowedDescriptor(container);
        Span<uint> number = [(uint)borrowed.Number];
        _ = Require(VfioCalls.Control(handle, VfioCalls.GroupSetContainer, number), name, "put its group into a container");
        _ = Require(VfioCalls.Control(container, VfioCalls.SetIommu, VfioCalls.Type1), name, "have its IOMMU");
        return new SafeFileHandle(
            Require(VfioCalls.GetDevice(handle, address), name, "have it from vfio-pci"), ownsHandle: true);
    }

    private SafeFileHandle OpenFile(string name, string path)
    {
        int descriptor = VfioCalls.Open(Path.Combine(root, path));
        return descriptor >= 0 ? new SafeFileHandle(descriptor, ownsHandle: true) : throw (-descriptor switch
        {
            NoAccess or NotPermitted => Error(
                DiskImageErrorKind.AccessDenied,
                name,
                $"driving a device takes rights that this session does not have. Run it as root, or have /{path} given to your user."),
            NoEntry or NoDevice => Error(DiskImageErrorKind.Unsupported, name, $"/{path} is not there. As root: modprobe vfio-pci."),
            Busy => Error(
                DiskImageErrorKind.Locked,
                name,
                $"another program drives it, or another device of its IOMMU group: /{path} is opened by one at a time."),
            int other => Error(DiskImageErrorKind.Io, name, $"cannot open /{path}: error {other}"),
        });
    }

    internal static int Require(int result, string name, string doing) => result >= 0 ? result : throw Error(
        -result == Busy ? DiskImageErrorKind.Locked
            : -result is NotPermitted or NoAccess ? DiskImageErrorKind.AccessDenied
            : DiskImageErrorKind.Io,
        name,
        $"cannot {doing}: {System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(-result)} (error {-result})");

    internal static DiskImageException Error(DiskImageErrorKind kind, string name, Wording what) => new(kind, $"{name}: {what}", name);

    private static string? LinkOf(string folder, string link)
    {
        try
        {
            return Directory.ResolveLinkTarget(Path.Combine(folder, link), returnFinalTarget: false) is { } target
                ? Path.GetFileName(target.FullName)
                : null;
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string? Text(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
