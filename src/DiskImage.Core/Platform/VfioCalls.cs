using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Linux's calls for vfio. Each gives a number, or less than 0 with the error number. Source: linux/vfio.h.</summary>
internal static unsafe partial class VfioCalls
{
    /// <summary>VFIO_GET_API_VERSION, VFIO_CHECK_EXTENSION, VFIO_SET_IOMMU: of a container.</summary>
    public const nuint GetApiVersion = 0x3B64, CheckExtension = 0x3B65, SetIommu = 0x3B66;

    /// <summary>VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER: of a group.</summary>
    public const nuint GroupGetStatus = 0x3B67, GroupSetContainer = 0x3B68;

    /// <summary>VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_SET_IRQS: of a device.</summary>
    public const nuint GetRegion = 0x3B6C, GetInterrupt = 0x3B6D, SetInterrupts = 0x3B6E;

    /// <summary>VFIO_IOMMU_MAP_DMA, of a container.</summary>
    public const nuint MapDma = 0x3B71;

    /// <summary>VFIO_TYPE1_IOMMU.</summary>
    public const nint Type1 = 1;

    private const nuint GroupGetDevice = 0x3B6A; // VFIO_GROUP_GET_DEVICE_FD
    private const int ReadWrite = 2, CloseOnExec = 0x80000; // O_RDWR, O_CLOEXEC
    private const int Readable = 1; // POLLIN
    private const int NonBlocking = 0x800; // EFD_NONBLOCK

    /// <summary>open(2), for reading and writing.</summary>
    public static int Open(string path) => Result(OpenAt(path, ReadWrite | CloseOnExec));

    /// <summary>ioctl(2) with a number.</summary>
    public static int Control(SafeFileHandle handle, nuint request, nint argument) => Result(ControlAt(handle, request, argument));

    /// <summary>ioctl(2) that reads or fills a structure of 32-bit numbers.</summary>
    public static int Control(SafeFileHandle handle, nuint request, Span<uint> argument)
    {
        fixed (uint* first = argument)
        {
            return Result(ControlAt(handle, request, (nint)first));
        }
    }

    /// <summary>VFIO_GROUP_GET_DEVICE_FD.</summary>
    public static int GetDevice(SafeFileHandle group, string address)
    {
        nint text = Marshal.StringToCoTaskMemUTF8(address);
        try
        {
            return Result(ControlAt(group, GroupGetDevice, text));
        }
        finally
        {
            Marshal.FreeCoTaskMem(text);
        }
    }

    /// <summary>mmap(2): a file's bytes for reading and writing, or memory that a child process shares instead of copying.</summary>
    /// <returns>Null if it failed.</returns>
    public static byte* Map(SafeFileHandle? file, long length, long offset)
    {
        const int Both = 3, Shared = 1, Anonymous = 0x20; // PROT_READ and PROT_WRITE, MAP_SHARED, MAP_ANONYMOUS
        nint failed = -1;
        nint address;
        if (file is null)
        {
            address = MapAt(0, (nuint)length, Both, Shared | Anonymous, -1, 0);
        }
        else
        {
            using var borrowed = new BorrowedDescriptor(file);
            address = MapAt(0, (nuint)length, Both, Shared, borrowed.Number, offset);
        }
        return address == failed ? null : (byte*)address;
    }

    /// <summary>munmap(2).</summary>
    public static void Unmap(byte* address, long length) => _ = UnmapAt((nint)address, (nuint)length);

    /// <summary>pread(2) and pwrite(2) of two bytes.</summary>
    public static int Read16(SafeFileHandle file, long offset, out ushort value)
    {
        ushort read = 0;
        int result = (int)ReadAt(file, &read, sizeof(ushort), offset);
        value = read;
        return result == sizeof(ushort) ? result : Math.Min(-5, Result(result)); // EIO
    }

    /// <inheritdoc cref="Read16"/>
    public static int Write16(SafeFileHandle file, long offset, ushort value)
    {
        int result = (int)WriteAt(file, &value, sizeof(ushort), offset);
        return result == sizeof(ushort) ? result : Math.Min(-5, Result(result));
    }

    /// <summary>A counter that wakes whoever waits for it (eventfd(2)).</summary>
    public static int NewEvent() => Result(EventAt(0, CloseOnExec | NonBlocking));

    /// <summary>Counts.</summary>
    public static void Signal(SafeFileHandle counter)
    {
        ulong one = 1;
        _ = WriteTo(counter, &one, sizeof(ulong));
    }

    /// <summary>Waits until it was counted, or for so many milliseconds, and sets it back.</summary>
    public static void Wait(SafeFileHandle counter, int milliseconds)
    {
        using var borrowed = new BorrowedDescriptor(counter);
        long wanted = (uint)borrowed.Number | ((long)Readable << 32); // struct pollfd
        if (PollAt(&wanted, 1, milliseconds) > 0)
        {
            ulong count;
            _ = ReadFrom(counter, &count, sizeof(ulong));
        }
    }

    private static int Result(int result) => result < 0 ? -Marshal.GetLastPInvokeError() : result;

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int OpenAt(string path, int flags);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int ControlAt(SafeFileHandle handle, nuint request, nint argument);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial nint MapAt(nint address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int UnmapAt(nint address, nuint length);

    [LibraryImport("libc", EntryPoint = "pread", SetLastError = true)]
    private static partial nint ReadAt(SafeFileHandle file, void* buffer, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "pwrite", SetLastError = true)]
    private static partial nint WriteAt(SafeFileHandle file, void* buffer, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static partial nint ReadFrom(SafeFileHandle file, void* buffer, nuint count);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static partial nint WriteTo(SafeFileHandle file, void* buffer, nuint count);

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    private static partial int EventAt(uint first, int flags);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int PollAt(long* wanted, nuint count, int milliseconds);
}
