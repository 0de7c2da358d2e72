using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>
/// Regular files of the host. Pipes and folders are refused; devices have a driver of their own. One writer excludes every other
/// use, by the runtime's own file sharing; locks that QEMU sees are the Locking folder's matter.
/// </summary>
internal sealed class FileDriver : ProtocolDriver, IStorage
{
    public override string Name => "file";

    public override string Description => "A file of this machine";

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        string path = Path.GetFullPath(context.Locator);
        switch (HostFile.Current.KindOf(path)) // looked at before it is opened: opening a pipe would wait for its other end
        {
            case HostFileKind.None:
                throw new DiskImageException(DiskImageErrorKind.NotFound, $"{path}: no such file", path);
            case HostFileKind.Directory:
                throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: a folder, not a disk image", path);
            case HostFileKind.Other:
                throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: a pipe or socket, which cannot be read at offsets", path);
            case HostFileKind.Device:
                throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{path}: a device; the file protocol opens regular files only", path);
        }
        SafeFileHandle handle = Try(path, "open it", () => HostIO.OpenHandle(
            path, FileMode.Open, context.Writable ? FileAccess.ReadWrite : FileAccess.Read, context.Writable ? FileShare.None : FileShare.Read));
        return new(new FileNode(path, handle, !context.Writable));
    }

    public ValueTask<BlockNode> CreateAsync(string locator, StorageTraits traits, CancellationToken cancellationToken)
    {
        string path = Path.GetFullPath(locator);
        SafeFileHandle handle = Try(path, "create it", () => HostIO.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None));
        if (traits.AllowsHoles)
        {
            HostFile.Current.AllowHoles(handle);
        }
        else
        {
            SafeFileHandle made = handle;
            try
            {
                handle = Try(path, "take the marks of its folder off it", () => HostFile.Current.WithoutMarks(path, made));
            }
            catch (DiskImageException)
            {
                made.Dispose();
                HostIO.Delete(path);
                throw;
            }
        }
        if (traits.NoCow)
        {
            HostFile.Current.DisableCopyOnWrite(handle);
        }
        return new(new FileNode(path, handle, isReadOnly: false));
    }

    public bool IsReplaceable(string locator) => HostFile.Current.KindOf(Path.GetFullPath(locator)) == HostFileKind.Regular;

    public bool Exists(string locator) => HostFile.Current.KindOf(Path.GetFullPath(locator)) != HostFileKind.None;

    public void Replace(string locator, string newLocator)
        => Try(newLocator, "put the finished image in its place", () =>
        {
            HostIO.Move(locator, newLocator, overwrite: true);
            return true;
        });

    public void Remove(string locator)
        => Try(locator, "remove it", () =>
        {
            HostIO.Delete(locator);
            return true;
        });

    private static T Try<T>(string path, string doing, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw HostFile.Error(e, path, doing);
        }
    }
}
