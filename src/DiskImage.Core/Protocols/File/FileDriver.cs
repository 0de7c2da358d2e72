using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Locking;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>
/// Regular files of the host. Pipes and folders are refused; devices have a driver of their own. One writer excludes every other use, by
/// the host's own file sharing and by the byte locks that QEMU heeds.
/// </summary>
internal sealed class FileDriver : ProtocolDriver, IStorage
{
    public override string Name => "file";

    public override string Description => "A file of this machine";

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        string path = Try(context.Locator, "open it", () => Path.GetFullPath(context.Locator));
        HostFile host = HostFile.Current;
        RequireRegular(path, host.KindOf(path)); // devices and pipes may act on being opened
        bool isShared = context.ForceShare && !context.Writable;
        SafeFileHandle handle = Try(path, "open it", () => host.Open(
            path, context.Writable, context.Writable ? HostSharing.Nobody : isShared ? HostSharing.Everybody : HostSharing.Readers));
        try
        {
            RequireRegular(path, host.KindOf(handle)); // it may be another by now
            return new(Claim(path, handle, context.Writable ? ImageClaim.Writing : isShared ? ImageClaim.ReadingAlongWriters : ImageClaim.Reading));
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    public ValueTask<BlockNode> CreateAsync(string locator, StorageTraits traits, CancellationToken cancellationToken)
    {
        string path = FullTarget(locator);
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
        try
        {
            return new(Claim(path, handle, ImageClaim.Writing));
        }
        catch
        {
            handle.Dispose();
            HostIO.Delete(path);
            throw;
        }
    }

    public bool IsReplaceable(string locator) => HostFile.Current.KindOf(FullTarget(locator)) == HostFileKind.Regular;

    public bool Exists(string locator) => HostFile.Current.KindOf(FullTarget(locator)) != HostFileKind.None;

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

    private static FileNode Claim(string path, SafeFileHandle handle, ImageClaim claim)
    {
        ImageLock.Take(handle, path, claim);
        bool isReadOnly = (claim.Uses & ImageUses.Write) == ImageUses.None;
        if (!isReadOnly)
        {
            HostFile.Current.SurviveFileSizeLimit();
        }
        return new FileNode(path, handle, isReadOnly);
    }

    /// <summary>The full path of a file that is to be made or replaced.</summary>
    /// <exception cref="DiskImageException">InvalidOption: no file can bear the name.</exception>
    private static string FullTarget(string locator)
    {
        if (HostFile.Current.WhyNoNewFile(locator) is { } why)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{locator}: cannot be a new image: {why}", locator);
        }
        return Try(locator, "make it", () => Path.GetFullPath(locator));
    }

    private static void RequireRegular(string path, HostFileKind kind)
    {
        string? what = kind switch
        {
            HostFileKind.Directory => "a folder, not a disk image. Name a file in it",
            HostFileKind.Other => "a pipe or socket, which cannot be read at offsets. Write what comes from it to a file first",
            HostFileKind.Device => "a device; only regular files are opened. Copy it to a file first",
            _ => null, // a file; or nothing that can be seen, and opening it tells why
        };
        if (what is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {what}.", path);
        }
    }

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
