using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>macOS: stat(2) with 64-bit inodes, renamex_np(2), fcopyfile(3) for access control lists and extended attributes.</summary>
[UnsupportedOSPlatform("windows")]
internal sealed partial class MacNames : UnixNames
{
    private const uint Exclusive = 4; // RENAME_EXCL
    private const uint AccessList = 1, ExtendedAttributes = 4; // COPYFILE_ACL, COPYFILE_XATTR
    private const uint Unchangeable = 0x2 | 0x4 | 0x20000 | 0x40000; // UF_IMMUTABLE, UF_APPEND, SF_IMMUTABLE, SF_APPEND

    protected override int FolderFlags => 0x100000 | 0x1000000;

    public override HostEntry? Find(string path)
    {
        if (Stat(path, out StatBuffer stat) != 0)
        {
            return null;
        }
        bool isProtected = (stat.Flags & Unchangeable) != 0 || (stat.Mode & 0x92) == 0; // nobody may write
        return new HostEntry(UnixFile.KindOfMode(stat.Mode), IdentityOf(stat), stat.Links, isProtected);
    }

    public override NodeIdentity? IdentityOf(SafeFileHandle handle) => Stat(handle, out StatBuffer stat) == 0 ? IdentityOf(stat) : null;

    protected override (uint Owner, uint Group, int Mode) OwnerAndMode(string path)
    {
        Check(Stat(path, out StatBuffer stat), $"stat({path})");
        return (stat.Owner, stat.Group, stat.Mode & 0xFFF);
    }

    protected override int RenameExclusive(string path, string newPath) => Rename(path, newPath, Exclusive);

    protected override void CopyExtendedAttributes(string from, SafeFileHandle to, string toPath)
    {
        using SafeFileHandle source = File.OpenHandle(from, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        Check(Copy(source, to, 0, AccessList | ExtendedAttributes), "fcopyfile");
    }

    private static NodeIdentity IdentityOf(StatBuffer stat) => (stat.Mode & 0xF000) == 0x6000
        ? new($"device:{stat.DeviceNumber:x}")
        : new($"file:{stat.Device:x}:{stat.Inode:x}");

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

    [LibraryImport("libc", EntryPoint = "renamex_np", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(string path, string newPath, uint flags);

    [LibraryImport("libc", EntryPoint = "fcopyfile", SetLastError = true)]
    private static partial int Copy(SafeFileHandle from, SafeFileHandle to, nint state, uint flags);

    /// <summary>struct stat with 64-bit inodes.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 144)]
    private struct StatBuffer
    {
        [FieldOffset(0)]
        public int Device;

        [FieldOffset(4)]
        public ushort Mode;

        [FieldOffset(6)]
        public ushort Links;

        [FieldOffset(8)]
        public ulong Inode;

        [FieldOffset(16)]
        public uint Owner;

        [FieldOffset(20)]
        public uint Group;

        [FieldOffset(24)]
        public int DeviceNumber;

        [FieldOffset(116)]
        public uint Flags;
    }
}
