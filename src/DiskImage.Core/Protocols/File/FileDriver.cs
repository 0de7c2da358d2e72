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
    private const int Attempts = 16; // at a temporary name; ours: chance makes a second one rare

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

    public override NodeIdentity? IdentityOf(string locator) => HostNames.Current.Find(Path.GetFullPath(locator))?.Identity;

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        string path = Path.GetFullPath(locator);
        if (HostNames.Current.Objection(path) is { } objection)
        {
            throw Invalid($"{path}: an image cannot be made there: {objection}");
        }
        string address = Try(path, "be made", () => HostNames.Current.Resolve(path));
        HostEntry? present = HostNames.Current.Find(address);
        if (present is null)
        {
            return mode != TargetMode.New || address.Equals(path, StringComparison.Ordinal) || new FileInfo(path).LinkTarget is null
                ? new StoragePlace(path, address, mode, Present: null, OtherNames: 0)
                : throw new DiskImageException(
                    DiskImageErrorKind.AlreadyExists, $"{path}: is a symbolic link to {address}, where nothing is. Make the image there with -Force, or choose another name.", path);
        }
        if (present.Kind != HostFileKind.Regular)
        {
            string what = present.Kind switch { HostFileKind.Directory => "a folder", HostFileKind.Device => "a device", _ => "a pipe or socket" };
            throw Invalid($"{path}: is {what}, so it cannot be replaced by an image. Choose another name.");
        }
        if (mode == TargetMode.New)
        {
            throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{path}: already exists. Replace it with -Force, or choose another name.", path);
        }
        if (present.IsProtected)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AccessDenied, $"{path}: is marked read-only, so it is not replaced. Take the mark off first, or choose another name.", path);
        }
        // Somebody who has it open would go on with the old file, unseen; on Windows the last step would fail.
        await (await OpenAsync(new ProtocolOpenContext(path, Writable: true, Options.Defaults()), cancellationToken).ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
        return new StoragePlace(path, address, mode, present.Identity, mode == TargetMode.InPlace ? 0 : present.Names - 1);

        DiskImageException Invalid(string message) => new(DiskImageErrorKind.InvalidOption, message, path);
    }

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        if (place is { Mode: TargetMode.InPlace, Present: not null })
        {
            BlockNode file = await OpenAsync(new ProtocolOpenContext(place.Locator, Writable: true, Options.Defaults()), cancellationToken).ConfigureAwait(false);
            return new InPlaceFile(place, file);
        }
        string folder = Path.GetDirectoryName(place.Address)!;
        TemporaryName.RemoveLeftovers(folder, Path.GetFileName(place.Address));
        (string temporary, SafeFileHandle handle) = Create(place, folder);
        try
        {
            if (traits.AllowsHoles)
            {
                HostFile.Current.AllowHoles(handle);
            }
            else
            {
                handle = Try(place.Locator, "take the marks of its folder off it", () => HostFile.Current.WithoutMarks(temporary, handle));
            }
            if (traits.NoCow)
            {
                HostFile.Current.DisableCopyOnWrite(handle);
            }
            return new RenamedFile(place, temporary, new FileNode(place.Locator, handle, isReadOnly: false));
        }
        catch
        {
            handle.Dispose();
            HostIO.Delete(temporary);
            throw;
        }
    }

    /// <summary>Opens for reading or writing what bears another name in messages.</summary>
    internal static BlockNode Open(string path, string name, bool writable) => new FileNode(
        name,
        Try(name, "open it", () => HostIO.OpenHandle(
            path, FileMode.Open, writable ? FileAccess.ReadWrite : FileAccess.Read, writable ? FileShare.None : FileShare.Read)),
        !writable);

    /// <summary>Makes the file that is to be renamed, under a name that nobody else has.</summary>
    private static (string Path, SafeFileHandle Handle) Create(StoragePlace place, string folder)
    {
        for (int attempt = 1; ; attempt++)
        {
            string path = Path.Combine(folder, TemporaryName.For(Path.GetFileName(place.Address)));
            try
            {
                return (path, place.Present is null
                    ? HostIO.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None)
                    : HostNames.Current.CreateLike(path, place.Address));
            }
            catch (IOException) when (attempt < Attempts && HostNames.Current.Find(path) is not null)
            {
                // Somebody has that name: another one.
            }
            catch (UnauthorizedAccessException e) when (place.Present is not null)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.AccessDenied,
                    $"{place.Locator}: cannot be replaced in one step: no file of the same owner and access rights can be made in its folder ({e.Message}). "
                    + "With -InPlace the new image is written into the file itself; then what it holds is lost at once, also if the work does not succeed.",
                    place.Locator,
                    cause: e);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                throw HostFile.Error(e, place.Locator, "create it");
            }
        }
    }

    internal static T Try<T>(string path, string doing, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is not DiskImageException and (IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException))
        {
            throw HostFile.Error(e, path, doing);
        }
    }
}
