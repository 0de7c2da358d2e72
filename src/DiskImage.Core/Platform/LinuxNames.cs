using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using System.Text;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Linux: statx(2) for identities, renameat2(2), xattr(7), which hold POSIX access control lists as well.</summary>
[UnsupportedOSPlatform("windows")]
internal sealed partial class LinuxNames : UnixNames
{
    private const int CurrentFolder = -100, EmptyPath = 0x1000; // AT_FDCWD, AT_EMPTY_PATH
    private const uint Basic = 0x7ff; // STATX_BASIC_STATS
    private const ulong Immutable = 0x10, AppendOnly = 0x20; // STATX_ATTR_*
    private const uint NoReplace = 1; // RENAME_NOREPLACE
    private const int NoSuchCall = 38; // ENOSYS
    private const int LargestAttribute = 65536; // XATTR_SIZE_MAX and XATTR_LIST_MAX

    /// <summary>What the kernel derives from a file's bytes or its own state: not to be carried over.</summary>
    private static readonly HashSet<string> s_derived = new(
        StringComparer.Ordinal) { "security.ima", "security.evm", "security.capability" };

    protected override int FolderFlags => 0x10000 | 0x80000;

    public override HostEntry? Find(string path)
    {
        if (StatX(CurrentFolder, path, 0, Basic, out StatXBuffer stat) != 0)
        {
            return null;
        }
        HostFileKind kind = UnixFile.KindOfMode(stat.Mode);
        // nobody may write
        bool isProtected = (stat.Attributes & stat.AttributesMask & (Immutable | AppendOnly)) != 0 || (stat.Mode & 0x92) == 0;
        return new HostEntry(kind, IdentityOf(stat), (int)Math.Min(stat.Links, int.MaxValue), isProtected);
    }

    public override NodeIdentity? IdentityOf(SafeFileHandle handle)
        => StatX(handle, "", EmptyPath, Basic, out StatXBuffer stat) == 0 ? IdentityOf(stat) : null;

    protected override (uint Owner, uint Group, int Mode) OwnerAndMode(string path)
    {
        Check(StatX(CurrentFolder, path, 0, Basic, out StatXBuffer stat), $"statx({path})");
        return (stat.Owner, stat.Group, stat.Mode & 0xFFF);
    }

    protected override int RenameExclusive(string path, string newPath)
    {
        try
        {
            return Rename(CurrentFolder, path, CurrentFolder, newPath, NoReplace);
        }
        catch (EntryPointNotFoundException) // a C library that does not know the call
        {
            Marshal.SetLastPInvokeError(NoSuchCall);
            return -1;
        }
    }

    protected override void CopyExtendedAttributes(string from, SafeFileHandle to, string toPath)
    {
        byte[] value = new byte[LargestAttribute];
        HashSet<string> wanted = Names(from);
        foreach (string name in wanted)
        {
            nint length = GetAttribute(from, name, value, value.Length);
            Check((int)length, $"getxattr({name})");
            Check(SetAttribute(to, name, value, length, 0), $"fsetxattr({name})");
        }
        foreach (string name in Names(toPath).Except(wanted, StringComparer.Ordinal))
        {
            if (!name.StartsWith("security.", StringComparison.Ordinal)) // a label that every file has
            {
                Check(RemoveAttribute(to, name), $"fremovexattr({name})");
            }
        }
    }

    // A block device is its number, whatever file stands for it.
    private static NodeIdentity IdentityOf(StatXBuffer stat) => (stat.Mode & 0xF000) == 0x6000
        ? new($"device:{stat.DeviceMajor:x}:{stat.DeviceMinor:x}")
        : new($"file:{stat.Major:x}:{stat.Minor:x}:{stat.Inode:x}");

    private static HashSet<string> Names(string path)
    {
        byte[] list = new byte[LargestAttribute];
        int length = (int)ListAttributes(path, list, list.Length);
        return length <= 0 // a file system without extended attributes
            ? []
            : [.. Encoding.UTF8.GetString(list, 0, length).Split(
                '\0', StringSplitOptions.RemoveEmptyEntries).Where(n => !s_derived.Contains(n))];
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(int folder, string path, int flags, uint mask, out StatXBuffer buffer);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(SafeFileHandle folder, string path, int flags, uint mask, out StatXBuffer buffer);

    [LibraryImport("libc", EntryPoint = "renameat2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(int folder, string path, int newFolder, string newPath, uint flags);

    [LibraryImport("libc", EntryPoint = "listxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint ListAttributes(string path, [Out] byte[] list, nint size);

    [LibraryImport("libc", EntryPoint = "getxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint GetAttribute(string path, string name, [Out] byte[] value, nint size);

    [LibraryImport("libc", EntryPoint = "fsetxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetAttribute(SafeFileHandle handle, string name, byte[] value, nint size, int flags);

    [LibraryImport("libc", EntryPoint = "fremovexattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int RemoveAttribute(SafeFileHandle handle, string name);

    /// <summary>struct statx, the same on every architecture.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatXBuffer
    {
        [FieldOffset(8)]
        public ulong Attributes;

        [FieldOffset(16)]
        public uint Links;

        [FieldOffset(20)]
        public uint Owner;

        [FieldOffset(24)]
        public uint Group;

        [FieldOffset(28)]
        public ushort Mode;

        [FieldOffset(32)]
        public ulong Inode;

        [FieldOffset(56)]
        public ulong AttributesMask;

        [FieldOffset(128)]
        public uint DeviceMajor;

        [FieldOffset(132)]
        public uint DeviceMinor;

        [FieldOffset(136)]
        public uint Major;

        [FieldOffset(140)]
        public uint Minor;
    }
}
