using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Linux's calls to devices, so that answers of devices that a machine lacks can be given to the code that reads them.</summary>
internal interface ILinuxDeviceControl
{
    /// <summary>The numbers of a block device (st_rdev); null for anything else.</summary>
    (uint Major, uint Minor)? NumberOf(string path);

    /// <summary>ioctl(2) that fills or takes an array of numbers; less than 0 with the error number if it fails.</summary>
    int Control(SafeFileHandle handle, nuint request, Span<ulong> argument);

    /// <summary>ioctl(2) with a number; the answer, or less than 0.</summary>
    int Control(SafeFileHandle handle, nuint request, nint argument);
}

/// <inheritdoc cref="ILinuxDeviceControl"/>
internal sealed unsafe partial class LinuxDeviceControl : ILinuxDeviceControl
{
    private const int CurrentFolder = -100; // AT_FDCWD
    private const uint Basic = 0x7ff; // STATX_BASIC_STATS
    private const int StatBytes = 256, ModeAt = 28, DeviceMajorAt = 128, DeviceMinorAt = 132; // struct statx

    public static LinuxDeviceControl Instance { get; } = new();

    public (uint Major, uint Minor)? NumberOf(string path)
    {
        byte* stat = stackalloc byte[StatBytes];
        return StatX(CurrentFolder, path, 0, Basic, stat) == 0 && (*(ushort*)(stat + ModeAt) & 0xF000) == 0x6000
            ? (*(uint*)(stat + DeviceMajorAt), *(uint*)(stat + DeviceMinorAt))
            : null;
    }

    public int Control(SafeFileHandle handle, nuint request, Span<ulong> argument)
    {
        fixed (ulong* first = argument)
        {
            int result = ControlAt(handle, request, (nint)first);
            return result < 0 ? -Marshal.GetLastPInvokeError() : result;
        }
    }

    public int Control(SafeFileHandle handle, nuint request, nint argument)
    {
        int result = ControlAt(handle, request, argument);
        return result < 0 ? -Marshal.GetLastPInvokeError() : result;
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int ControlAt(SafeFileHandle handle, nuint request, nint argument);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(int folder, string path, int flags, uint mask, byte* buffer);
}
