using System.Runtime.InteropServices;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>macOS: fcntl(2) F_PUNCHHOLE, F_PREALLOCATE, F_FULLFSYNC and open-file-description locks, stat(2) with 64-bit inodes.</summary>
internal sealed partial class MacFile : UnixFile
{
    private const int PunchHole = 99, Preallocate = 42; // F_PUNCHHOLE, F_PREALLOCATE
    private const uint AllocateAll = 4; // F_ALLOCATEALL
    private const int FromEnd = 3; // F_PEOFPOSMODE
    private const int FullFlush = 51, NoCache = 48; // F_FULLFSYNC, F_NOCACHE
    private const int SetLock = 90, GetLock = 92; // F_OFD_SETLK, F_OFD_GETLK
    private const short ReadLock = 1, NoLock = 2, WriteLock = 3; // F_RDLCK, F_UNLCK, F_WRLCK
    private const int NoSpace = 28, QuotaExceeded = 69, NameTooLong = 63, LinkLoop = 62;
    private const int Interrupted = 4, NoSuchDevice = 19, Invalid = 22, NotTerminal = 25, NotSupported = 45;

    protected override int SeekData => 4;

    protected override int SeekHole => 3;

    protected override int OpenFlags => 0x4 | 0x20000 | 0x100_0000;

    protected override int WouldBlock => 35;

    public override HostFileKind KindOf(SafeFileHandle handle)
        => Stat(handle, out StatBuffer stat) == 0 ? KindOfMode(stat.Mode) : HostFileKind.Other;

    public override HostFileKind KindOf(string path)
        => Stat(path, out StatBuffer stat) == 0 ? KindOfMode(stat.Mode) : HostFileKind.None;

    public override long? AllocatedLength(SafeFileHandle handle) => Stat(handle, out StatBuffer stat) == 0 ? stat.Blocks * 512 : null;

    /// <summary>
    /// fsync(2) hands the data to the drive only; file systems that cannot have the drive store it (network ones) get that.
    /// </summary>
    public override void Flush(SafeFileHandle handle)
    {
        while (Control(handle, FullFlush, 0) < 0)
        {
            switch (Marshal.GetLastPInvokeError())
            {
                case Interrupted:
                    continue;
                case NotSupported or Invalid or NotTerminal or NoSuchDevice:
                    base.Flush(handle);
                    return;
                default:
                    throw NativeError("fcntl(F_FULLFSYNC)");
            }
        }
    }

    public override ByteLockResult LockByte(SafeFileHandle handle, long offset)
    {
        var request = new LockRequest { Type = ReadLock, Start = offset, Length = 1 };
        return Control(handle, SetLock, ref request) == 0 ? ByteLockResult.Free : WhyNoLock();
    }

    protected override void ReleaseLocks(SafeFileHandle handle)
    {
        var all = new LockRequest { Type = NoLock }; // from the beginning, without end
        _ = Control(handle, SetLock, ref all);
        base.ReleaseLocks(handle);
    }

    public override ByteLockResult ProbeByte(SafeFileHandle handle, long offset)
    {
        var request = new LockRequest { Type = WriteLock, Start = offset, Length = 1 };
        return Control(handle, GetLock, ref request) != 0 ? ByteLockResult.Unsupported
            : request.Type == NoLock ? ByteLockResult.Free
            : ByteLockResult.Taken;
    }

    public override bool TryPunchHole(SafeFileHandle handle, long offset, long length)
    {
        var hole = new PunchHoleRequest { Offset = offset, Length = length };
        return Control(handle, PunchHole, ref hole) == 0; // refused unless offset and length are multiples of the file system's block
    }

    public override bool TryZeroRange(SafeFileHandle handle, long offset, long length) => false;

    public override bool TryAllocate(SafeFileHandle handle, long offset, long length)
    {
        long end = checked(offset + length), current = RandomAccess.GetLength(handle);
        if (end <= current)
        {
            return false; // F_PREALLOCATE only reserves past the end
        }
        var request = new AllocateRequest { Flags = AllocateAll, Position = FromEnd, Length = end - current };
        if (Control(handle, Preallocate, ref request) != 0)
        {
            return Marshal.GetLastPInvokeError() is NoSpace or QuotaExceeded ? throw NativeError("fcntl(F_PREALLOCATE)") : false;
        }
        SetLength(handle, end);
        return true;
    }

    // On Intel the plain names are the old 32-bit inode variants; arm64 has only the new ones.
    private static int Stat(string path, out StatBuffer buffer)
        => RuntimeInformation.ProcessArchitecture == Architecture.X64 ? StatIntel(path, out buffer) : StatArm(path, out buffer);

    private static int Stat(SafeFileHandle handle, out StatBuffer buffer)
        => RuntimeInformation.ProcessArchitecture == Architecture.X64 ? StatIntel(handle, out buffer) : StatArm(handle, out buffer);

    [LibraryImport("libc", EntryPoint = "stat$INODE64", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatIntel(string path, out StatBuffer buffer);

    [LibraryImport("libc", EntryPoint = "fstat$INODE64", SetLastError = true)]
    private static partial int StatIntel(SafeFileHandle handle, out StatBuffer buffer);

    [LibraryImport("libc", EntryPoint = "stat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatArm(string path, out StatBuffer buffer);

    [LibraryImport("libc", EntryPoint = "fstat", SetLastError = true)]
    private static partial int StatArm(SafeFileHandle handle, out StatBuffer buffer);

    // fcntl is variadic. Apple's arm64 passes variadic arguments on the stack; six unused register arguments put this one there.
    // No request has to be aligned: what is not goes by way of the cache.
    protected override OpenFile? BypassCache(string path, SafeFileHandle handle, bool writable, HostSharing sharing)
        => Control(handle, NoCache, 1) < 0 ? null : new OpenFile(handle);

    protected override int Control(SafeFileHandle handle, int command, nint argument)
        => RuntimeInformation.ProcessArchitecture == Architecture.X64
            ? ControlIntel(handle, command, argument)
            : ControlArm(handle, command, 0, 0, 0, 0, 0, 0, argument);

    private unsafe int Control<T>(SafeFileHandle handle, int command, ref T argument)
        where T : unmanaged
    {
        fixed (T* pointer = &argument)
        {
            return Control(handle, command, (nint)pointer);
        }
    }

    protected override (DiskImageErrorKind Kind, string What)? Meaning(int code) => code switch
    {
        NameTooLong => (DiskImageErrorKind.InvalidOption, TooLong),
        LinkLoop => (DiskImageErrorKind.NotFound, "its symbolic links lead to nowhere"),
        QuotaExceeded => (DiskImageErrorKind.NoSpace, OverQuota),
        _ => base.Meaning(code),
    };

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int ControlIntel(SafeFileHandle handle, int command, nint argument);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int ControlArm(
        SafeFileHandle handle, int command, nint x2, nint x3, nint x4, nint x5, nint x6, nint x7, nint argument);

    /// <summary>struct stat with 64-bit inodes.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 144)]
    private struct StatBuffer
    {
        [FieldOffset(4)]
        public ushort Mode;

        [FieldOffset(104)]
        public long Blocks;
    }

    /// <summary>struct flock.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct LockRequest
    {
        public long Start, Length;
        public int Process;
        public short Type, Whence;
    }

    /// <summary>fpunchhole_t.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PunchHoleRequest
    {
        public uint Flags, Reserved;
        public long Offset, Length;
    }

    /// <summary>fstore_t.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AllocateRequest
    {
        public uint Flags;
        public int Position;
        public long Offset, Length, Allocated;
    }
}
