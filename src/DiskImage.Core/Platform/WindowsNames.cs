using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using System.Security.AccessControl;
using System.Security.Principal;
using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>Windows: file ids, security descriptors, MoveFileEx. NTFS keeps renames in its journal, so folders need no flush.</summary>
[SupportedOSPlatform("windows")]
internal sealed partial class WindowsNames : HostNames
{
    private const int FileIdInfo = 18;
    private const uint ShareAll = 7, OpenExisting = 3, BackupSemantics = 0x0200_0000, ReadOnly = 1;
    private const int AlreadyExists = unchecked((int)0x800700B7), FileExists = unchecked((int)0x80070050);
    private const int ShortPath = 248; // longer ones need the prefix that lifts the limit

    public override HostEntry? Find(string path)
    {
        HostFileKind kind = HostFile.Current.KindOf(path);
        if (kind is HostFileKind.None or HostFileKind.Device or HostFileKind.Pipe or HostFileKind.Other)
        {
            return kind == HostFileKind.None
                ? null
                : new HostEntry(kind, new NodeIdentity($"device:{path.ToUpperInvariant()}"), 1, IsProtected: false);
        }
        using SafeFileHandle handle = Open(path);
        return handle.IsInvalid || IdentityOf(handle) is not { } identity || !GetInformation(handle, out FileInformation info)
            ? new HostEntry(kind, new NodeIdentity($"file:{path.ToUpperInvariant()}"), 1, IsProtected: false)
            : new HostEntry(kind, identity, (int)info.Links, (info.Attributes & ReadOnly) != 0);
    }

    public override NodeIdentity? IdentityOf(SafeFileHandle handle)
    {
        if (GetInformation(handle, FileIdInfo, out FileId id, (uint)Marshal.SizeOf<FileId>()))
        {
            return new NodeIdentity($"file:{id.Volume:x}:{id.High:x16}{id.Low:x16}");
        }
        return GetInformation(handle, out FileInformation info) // FAT and old servers know only the short id
            ? new NodeIdentity($"file:{info.Volume:x}:{info.IndexHigh:x8}{info.IndexLow:x8}")
            : null;
    }

    public override string Resolve(string path)
        => new FileInfo(path).LinkTarget is null ? path : File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;

    public override SafeFileHandle CreateLike(string path, string model)
    {
        FileSecurity security = new FileInfo(model).GetAccessControl(AccessControlSections.Access | AccessControlSections.Owner);
        var given = new FileSecurity();
        given.SetSecurityDescriptorBinaryForm(security.GetSecurityDescriptorBinaryForm(), AccessControlSections.Access);
        // Only a stream can be made with a security descriptor. Its handle goes on without it: that is closed by disposing the
        // stream, not by forgetting it.
        FileStream stream = new FileInfo(path).Create(
            FileMode.CreateNew,
            FileSystemRights.Read | FileSystemRights.Write | FileSystemRights.Synchronize,
            FileShare.None,
            1,
            FileOptions.None,
            given);
        TakeOwner(path, security);
        return stream.SafeFileHandle;
    }

    public override bool TryRename(string path, string newPath)
    {
        try
        {
            File.Move(path, newPath, overwrite: false);
            return true;
        }
        catch (IOException e) when (e.HResult is AlreadyExists or FileExists)
        {
            return false;
        }
    }

    public override bool TryLink(string path, string otherName) => CreateHardLink(otherName, path, 0);

    /// <summary>Only a privileged user may make somebody else the owner; the access rights, which decide, are kept in any case.</summary>
    private static void TakeOwner(string path, FileSecurity model)
    {
        var file = new FileInfo(path);
        FileSecurity made = file.GetAccessControl(AccessControlSections.Owner);
        IdentityReference? owner = model.GetOwner(typeof(SecurityIdentifier));
        if (owner is null || owner.Equals(made.GetOwner(typeof(SecurityIdentifier))))
        {
            return;
        }
        try
        {
            made.SetOwner(owner);
            file.SetAccessControl(made);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or InvalidOperationException or PrivilegeNotHeldException or IOException)
        {
            // Stays the property of who made it.
        }
    }

    private static SafeFileHandle Open(string path)
    {
        string full = Path.GetFullPath(path);
        return CreateFile(full.Length < ShortPath || full.StartsWith(@"\\", StringComparison.Ordinal)
            ? full
            : @"\\?\" + full, 0, ShareAll, 0, OpenExisting, BackupSemantics, 0);
    }

    [LibraryImport("kernel32", EntryPoint = "CreateFileW", SetLastError = true, StringMarshalling = StringMarshalling.Utf16)]
    private static partial SafeFileHandle CreateFile(
        string path, uint access, uint share, nint security, uint disposition, uint flags, nint template);

    [LibraryImport("kernel32", EntryPoint = "CreateHardLinkW", SetLastError = true, StringMarshalling = StringMarshalling.Utf16)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool CreateHardLink(string newName, string path, nint security);

    [LibraryImport("kernel32", EntryPoint = "GetFileInformationByHandleEx", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool GetInformation(SafeFileHandle handle, int kind, out FileId info, uint size);

    [LibraryImport("kernel32", EntryPoint = "GetFileInformationByHandle", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool GetInformation(SafeFileHandle handle, out FileInformation info);

    /// <summary>FILE_ID_INFO.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FileId
    {
        public ulong Volume, Low, High;
    }

    /// <summary>BY_HANDLE_FILE_INFORMATION.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 52)]
    private struct FileInformation
    {
        [FieldOffset(0)]
        public uint Attributes;

        [FieldOffset(28)]
        public uint Volume;

        [FieldOffset(40)]
        public uint Links;

        [FieldOffset(44)]
        public uint IndexHigh;

        [FieldOffset(48)]
        public uint IndexLow;
    }
}
