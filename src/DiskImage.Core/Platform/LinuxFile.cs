using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Linux: fallocate(2) for holes and reservations, statx(2) for kinds and sizes.</summary>
internal sealed partial class LinuxFile : UnixFile
{
    private const int KeepSize = 1, PunchHole = 2, ZeroRange = 16; // FALLOC_FL_*
    private const int CurrentFolder = -100, EmptyPath = 0x1000; // AT_FDCWD, AT_EMPTY_PATH
    private const uint ModeAndBlocks = 0x1 | 0x400; // STATX_TYPE | STATX_BLOCKS
    private const nuint GetFlags = 0x80086601, SetFlags = 0x40086602; // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of 64-bit systems
    private const long NoCow = 0x0080_0000; // FS_NOCOW_FL
    private const int NoSpace = 28, QuotaExceeded = 122, TooLarge = 27;

    protected override int SeekData => 3;

    protected override int SeekHole => 4;

    public override HostFileKind KindOf(string path)
        => StatX(CurrentFolder, path, 0, ModeAndBlocks, out StatXBuffer stat) == 0 ? KindOfMode(stat.Mode) : HostFileKind.None;

    public override long? AllocatedLength(SafeFileHandle handle)
        => StatX(handle, "", EmptyPath, ModeAndBlocks, out StatXBuffer stat) == 0 ? (long)stat.Blocks * 512 : null;

    public override bool TryPunchHole(SafeFileHandle handle, long offset, long length)
        => Allocate(handle, PunchHole | KeepSize, offset, length) == 0;

    public override bool TryZeroRange(SafeFileHandle handle, long offset, long length)
        => Allocate(handle, ZeroRange | KeepSize, offset, length) == 0;

    public override bool TryAllocate(SafeFileHandle handle, long offset, long length)
    {
        if (Allocate(handle, 0, offset, length) == 0)
        {
            return true;
        }
        return Marshal.GetLastPInvokeError() is NoSpace or QuotaExceeded or TooLarge ? throw NativeError("fallocate") : false;
    }

    /// <summary>The attribute that chattr(1) calls C; see ioctl_iflags(2).</summary>
    public override void DisableCopyOnWrite(SafeFileHandle handle)
    {
        long flags = 0; // the kernel fills an int, whatever the request number says
        if (Control(handle, GetFlags, ref flags) == 0)
        {
            flags |= NoCow;
            _ = Control(handle, SetFlags, ref flags);
        }
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Control(SafeFileHandle handle, nuint request, ref long argument);

    [LibraryImport("libc", EntryPoint = "fallocate64", SetLastError = true)]
    private static partial int Allocate(SafeFileHandle handle, int mode, long offset, long length);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(int folder, string path, int flags, uint mask, out StatXBuffer buffer);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(SafeFileHandle folder, string path, int flags, uint mask, out StatXBuffer buffer);

    /// <summary>struct statx, the same on every architecture.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatXBuffer
    {
        [FieldOffset(28)]
        public ushort Mode;

        [FieldOffset(48)]
        public ulong Blocks;
    }
}
