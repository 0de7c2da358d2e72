using System.Runtime.InteropServices;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>
/// Linux: fallocate(2) for holes and reservations, statx(2) for kinds and sizes, open-file-description locks of fcntl(2).
/// </summary>
internal sealed partial class LinuxFile(bool hasOpenFileLocks = true) : UnixFile
{
    private const int KeepSize = 1, PunchHole = 2, ZeroRange = 16; // FALLOC_FL_*
    private const int CurrentFolder = -100, EmptyPath = 0x1000; // AT_FDCWD, AT_EMPTY_PATH
    private const uint ModeAndBlocks = 0x1 | 0x400; // STATX_TYPE | STATX_BLOCKS
    private const nuint GetFlags = 0x80086601, SetFlags = 0x40086602; // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of 64-bit systems
    private const long NoCow = 0x0080_0000; // FS_NOCOW_FL
    private const int NoSpace = 28, QuotaExceeded = 122, FileTooLarge = 27, NameTooLong = 36, LinkLoop = 40;
    private const int SetLock = 37, GetLock = 36; // F_OFD_SETLK, F_OFD_GETLK
    private const int SetProcessLock = 6, GetProcessLock = 5; // F_SETLK, F_GETLK
    private const int Invalid = 22; // EINVAL: a kernel, or a program that stands for one, without locks of open files
    private const nuint CloneRange = 0x4020_940D; // FICLONERANGE
    private const int IoError = 5; // EIO
    private const int StatusFlags = 3, SetStatusFlags = 4; // F_GETFL, F_SETFL
    private const uint DirectAlignment = 0x2000; // STATX_DIOALIGN
    private const int UsualAlignment = 4096; // where the kernel does not tell: no sector is larger
    private const short ReadLock = 0, WriteLock = 1, NoLock = 2; // F_RDLCK, F_WRLCK, F_UNLCK
    private const long Cifs = 0xFF53_4D42, Smb2 = 0xFE53_4D42; // f_type in statfs(2)

    /// <summary>f_type of file systems that clone ranges: xfs, btrfs, bcachefs, zfs, ocfs2, and NFS and SMB, whose servers may.</summary>
    private static readonly long[] s_cloning = [0x5846_5342, 0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1, 0x7461_636F, 0x6969, Cifs, Smb2];

    private volatile bool _hasOpenFileLocks = hasOpenFileLocks;

    public override bool LocksEndWithAnyClose => !_hasOpenFileLocks;

    protected override int SeekData => 3;

    protected override int SeekHole => 4;

    protected override int OpenFlags => 0x800 | 0x100 | 0x80000;

    protected override int WouldBlock => 11;

    public override HostFileKind KindOf(SafeFileHandle handle)
        => StatX(handle, "", EmptyPath, ModeAndBlocks, out StatXBuffer stat) == 0 ? KindOfMode(stat.Mode) : HostFileKind.Other;

    public override HostFileKind KindOf(string path)
        => StatX(CurrentFolder, path, 0, ModeAndBlocks, out StatXBuffer stat) == 0 ? KindOfMode(stat.Mode) : HostFileKind.None;

    public override long? AllocatedLength(SafeFileHandle handle)
        => StatX(handle, "", EmptyPath, ModeAndBlocks, out StatXBuffer stat) == 0 ? (long)stat.Blocks * 512 : null;

    public override bool TryPunchHole(SafeFileHandle handle, long offset, long length)
        => CLibrary.Allocate(handle, PunchHole | KeepSize, offset, length) == 0;

    public override bool TryZeroRange(SafeFileHandle handle, long offset, long length)
        => CLibrary.Allocate(handle, ZeroRange | KeepSize, offset, length) == 0;

    // Those that clone ranges; others are not asked, so that a copy to them is cut and laid out as ever.
    public override bool MayShare(SafeFileHandle one, SafeFileHandle other)
        => StatFileSystem(one, out FileSystemBuffer first) == 0 && StatFileSystem(other, out FileSystemBuffer second) == 0
            && first.Type == second.Type
            && s_cloning.Contains(first.Type & 0xFFFF_FFFF);

    public override bool TryShare(SafeFileHandle source, long sourceOffset, SafeFileHandle target, long offset, long length)
    {
        bool isHeld = false;
        source.DangerousAddRef(ref isHeld);
        try
        {
            var range = new CloneRequest { Source = source.DangerousGetHandle(), Start = sourceOffset, Length = length, Target = offset };
            return Control(target, CloneRange, ref range) == 0;
        }
        finally
        {
            source.DangerousRelease();
        }
    }

    public override long Move(SafeFileHandle source, long sourceOffset, SafeFileHandle target, long offset, long length)
    {
        long done = 0;
        while (done < length)
        {
            (long from, long to) = (sourceOffset + done, offset + done);
            nint moved = CopyRange(source, ref from, target, ref to, (nuint)(length - done), 0);
            if (moved > 0)
            {
                done += moved;
            }
            else if (moved == 0 || Marshal.GetLastPInvokeError() is not (NoSpace or QuotaExceeded or FileTooLarge or IoError))
            {
                break; // it ends there, or this cannot be had: whoever asks does it
            }
            else
            {
                throw NativeError("copy_file_range");
            }
        }
        return done;
    }

    public override bool TryAllocate(SafeFileHandle handle, long offset, long length)
    {
        if (CLibrary.Allocate(handle, 0, offset, length) == 0)
        {
            return true;
        }
        return Marshal.GetLastPInvokeError() is NoSpace or QuotaExceeded or FileTooLarge ? throw NativeError("fallocate") : false;
    }

    // Windows servers make byte locks binding: the locked bytes of the image itself could not be written.
    public override ByteLockResult LockByte(SafeFileHandle handle, long offset)
    {
        if (StatFileSystem(handle, out FileSystemBuffer fileSystem) == 0 && (fileSystem.Type & 0xFFFF_FFFF) is Cifs or Smb2)
        {
            return ByteLockResult.Unsupported;
        }
        var request = new LockRequest { Type = ReadLock, Start = offset, Length = 1 };
        return ControlLock(handle, SetLock, SetProcessLock, ref request) == 0 ? ByteLockResult.Free : WhyNoLock();
    }

    protected override void ReleaseLocks(SafeFileHandle handle)
    {
        var all = new LockRequest { Type = NoLock }; // from the beginning, without end
        _ = ControlLock(handle, SetLock, SetProcessLock, ref all);
        base.ReleaseLocks(handle);
    }

    public override ByteLockResult ProbeByte(SafeFileHandle handle, long offset)
    {
        var request = new LockRequest { Type = WriteLock, Start = offset, Length = 1 };
        return ControlLock(handle, GetLock, GetProcessLock, ref request) != 0 ? ByteLockResult.Unsupported
            : request.Type == NoLock ? ByteLockResult.Free
            : ByteLockResult.Taken;
    }

    private int ControlLock(SafeFileHandle handle, int command, int ofProcess, ref LockRequest request)
    {
        if (_hasOpenFileLocks)
        {
            int result = LockControl(handle, command, ref request);
            if (result == 0 || Marshal.GetLastPInvokeError() != Invalid)
            {
                return result;
            }
            _hasOpenFileLocks = false;
        }
        return LockControl(handle, ofProcess, ref request);
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

    protected override OpenFile? BypassCache(string path, SafeFileHandle handle, bool writable, HostSharing sharing)
    {
        int flags = Control(handle, StatusFlags, 0);
        if (flags < 0 || Control(handle, SetStatusFlags, flags | DirectFlag) < 0)
        {
            return null;
        }
        bool tells = StatX(handle, "", EmptyPath, DirectAlignment, out StatXBuffer stat) == 0 && (stat.Mask & DirectAlignment) != 0;
        return tells && stat.DirectOffsetAlignment > 0
            ? new OpenFile(handle, (int)stat.DirectOffsetAlignment, (int)stat.DirectMemoryAlignment)
            : new OpenFile(handle, UsualAlignment, UsualAlignment);
    }

    /// <summary>O_DIRECT: one of the numbers that architectures differ in.</summary>
    private static int DirectFlag => RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.Arm or Architecture.Arm64 or Architecture.Armv6 => 0x10000,
        Architecture.Ppc64le => 0x20000,
        _ => 0x4000,
    };

    protected override int Control(SafeFileHandle handle, int command, nint argument) => FileControl(handle, command, argument);

    protected override (DiskImageErrorKind Kind, string What)? Meaning(int code) => code switch
    {
        NameTooLong => (DiskImageErrorKind.InvalidOption, TooLong),
        LinkLoop => (DiskImageErrorKind.NotFound, "its symbolic links lead to nowhere"),
        QuotaExceeded => (DiskImageErrorKind.NoSpace, OverQuota),
        _ => base.Meaning(code),
    };

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Control(SafeFileHandle handle, nuint request, ref long argument);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Control(SafeFileHandle handle, nuint request, ref CloneRequest argument);

    [LibraryImport("libc", EntryPoint = "copy_file_range", SetLastError = true)]
    private static partial nint CopyRange(
        SafeFileHandle source, ref long from, SafeFileHandle target, ref long to, nuint length, uint flags);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int FileControl(SafeFileHandle handle, int command, nint argument);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int LockControl(SafeFileHandle handle, int command, ref LockRequest request);

    [LibraryImport("libc", EntryPoint = "fstatfs", SetLastError = true)]
    private static partial int StatFileSystem(SafeFileHandle handle, out FileSystemBuffer buffer);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(int folder, string path, int flags, uint mask, out StatXBuffer buffer);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(SafeFileHandle folder, string path, int flags, uint mask, out StatXBuffer buffer);

    /// <summary>struct file_clone_range.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CloneRequest
    {
        public long Source, Start, Length, Target;
    }

    /// <summary>struct flock of 64-bit systems.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 32)]
    private struct LockRequest
    {
        [FieldOffset(0)]
        public short Type;

        [FieldOffset(8)]
        public long Start;

        [FieldOffset(16)]
        public long Length;
    }

    /// <summary>struct statfs: only its beginning is the same on every architecture.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct FileSystemBuffer
    {
        [FieldOffset(0)]
        public long Type;
    }

    /// <summary>struct statx, the same on every architecture.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatXBuffer
    {
        [FieldOffset(0)]
        public uint Mask;

        [FieldOffset(28)]
        public ushort Mode;

        [FieldOffset(48)]
        public ulong Blocks;

        [FieldOffset(152)]
        public uint DirectMemoryAlignment;

        [FieldOffset(156)]
        public uint DirectOffsetAlignment;
    }
}
