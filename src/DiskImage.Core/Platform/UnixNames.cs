using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>What Linux and macOS share: realpath(3), owner and mode, the flush of a folder.</summary>
[UnsupportedOSPlatform("windows")]
internal abstract partial class UnixNames : HostNames
{
    private const int LongestPath = 4096, MaximumLinks = 40; // PATH_MAX; MAXSYMLINKS of Linux
    // the same on both
    private const int Exists = 17, Invalid = 22, PermissionDenied = 13, NotPermitted = 1, NoEntry = 2, ReadOnlySystem = 30;

    /// <summary>O_DIRECTORY | O_CLOEXEC.</summary>
    protected abstract int FolderFlags { get; }

    public override string Resolve(string path)
    {
        for (int links = 0; links < MaximumLinks; links++)
        {
            // The runtime follows links by their text, which goes wrong with .. behind a linked folder. The system does it right.
            string folder = RealPath(Path.GetDirectoryName(path) ?? "/");
            path = Path.Combine(folder, Path.GetFileName(path));
            if (new FileInfo(path).LinkTarget is not { } target)
            {
                return path;
            }
            path = Path.Combine(folder, Path.TrimEndingDirectorySeparator(target));
            if (Path.GetFileName(path) is "" or "." or "..")
            {
                return RealPath(path); // a folder
            }
        }
        throw new IOException($"more than {MaximumLinks} symbolic links follow each other");
    }

    public override SafeFileHandle CreateLike(string path, string model)
    {
        // Only a stream can be made with a mode. Its handle goes on without it: that is closed by disposing the
        // stream, not by forgetting it.
        var stream = new FileStream(path, new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.ReadWrite,
            Share = FileShare.None,
            BufferSize = 0,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        });
        SafeFileHandle handle = stream.SafeFileHandle;
        try
        {
            (uint owner, uint group, int mode) = OwnerAndMode(model);
            SetOwner(handle, path, owner, group);
            CopyExtendedAttributes(model, handle, path);
            Check(ChangeMode(handle, mode), "fchmod");
            return handle;
        }
        catch
        {
            handle.Dispose();
            File.Delete(path);
            throw;
        }
    }

    public override bool TryRename(string path, string newPath)
    {
        if (RenameExclusive(path, newPath) == 0)
        {
            return true;
        }
        if (Marshal.GetLastPInvokeError() == Exists)
        {
            return false;
        }
        // A file system without that call: the name is taken by an empty file of our own, which nobody else can have made.
        try
        {
            File.OpenHandle(newPath, FileMode.CreateNew, FileAccess.Write, FileShare.None).Dispose();
        }
        catch (IOException) when (File.Exists(newPath) || Directory.Exists(newPath) || new FileInfo(newPath).LinkTarget is not null)
        {
            return false;
        }
        try
        {
            Replace(path, newPath);
        }
        catch
        {
            File.Delete(newPath);
            throw;
        }
        return true;
    }

    public override void FlushFolder(string folder)
    {
        int descriptor = Open(folder, FolderFlags);
        Check(descriptor, $"open({folder})");
        using var handle = new SafeFileHandle(descriptor, ownsHandle: true);
        try
        {
            HostFile.Current.Flush(handle);
        }
        catch (IOException e) when (e.HResult == Invalid)
        {
            // A file system that has nothing to flush in folders.
        }
    }

    public override bool TryLink(string path, string otherName) => Link(path, otherName) == 0;

    /// <summary>renameat2(RENAME_NOREPLACE) or renamex_np(RENAME_EXCL): 0, or -1 with the error set.</summary>
    protected abstract int RenameExclusive(string path, string newPath);

    /// <summary>A file's owner, group and the lower 12 bits of st_mode.</summary>
    protected abstract (uint Owner, uint Group, int Mode) OwnerAndMode(string path);

    /// <summary>Gives an open file the extended attributes and access control list of another, and no others.</summary>
    protected abstract void CopyExtendedAttributes(string from, SafeFileHandle to, string toPath);

    /// <summary>Throws if a call returned less than 0.</summary>
    protected static void Check(int result, string call)
    {
        if (result < 0)
        {
            throw Error(call);
        }
    }

    /// <summary>The runtime's exception for the last native error.</summary>
    protected static Exception Error(string call)
    {
        int error = Marshal.GetLastPInvokeError();
        string text = $"{call}: {Marshal.GetPInvokeErrorMessage(error)}";
        return error switch
        {
            PermissionDenied or NotPermitted or ReadOnlySystem => new UnauthorizedAccessException(text),
            NoEntry => new DirectoryNotFoundException(text),
            _ => new IOException(text, error),
        };
    }

    private void SetOwner(SafeFileHandle handle, string path, uint owner, uint group)
    {
        (uint owner, uint group, int) has = OwnerAndMode(path);
        if ((has.owner, has.group) != (owner, group))
        {
            Check(ChangeOwner(handle, has.owner == owner ? uint.MaxValue : owner, has.group == group ? uint.MaxValue : group), "fchown");
        }
    }

    private static string RealPath(string path)
    {
        byte[] resolved = new byte[LongestPath];
        return RealPath(path, resolved) == 0
            ? throw Error($"realpath({path})")
            : Encoding.UTF8.GetString(resolved.AsSpan(0, Array.IndexOf(resolved, (byte)0)));
    }

    [LibraryImport("libc", EntryPoint = "realpath", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint RealPath(string path, [Out] byte[] resolved);

    [LibraryImport("libc", EntryPoint = "link", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Link(string path, string otherName);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fchown", SetLastError = true)]
    private static partial int ChangeOwner(SafeFileHandle handle, uint owner, uint group);

    [LibraryImport("libc", EntryPoint = "fchmod", SetLastError = true)]
    private static partial int ChangeMode(SafeFileHandle handle, int mode);
}
