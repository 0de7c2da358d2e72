using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Locking;
using DiskImage.Options;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>
/// Regular files of the host. Pipes and folders are refused; devices have a driver of their own. One writer excludes every other use, by
/// the host's own file sharing and by the byte locks that QEMU heeds.
/// </summary>
internal sealed class FileDriver : ProtocolDriver, IStorage, ITemporaryStorage
{
    private const int Attempts = 16; // at a temporary name; ours: chance makes a second one rare

    public override string Name => "file";

    public override string Description => "A file of this machine";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<FileOpenOptions>();

    public override bool TakesPaths => true;

    public override string NameOf(object options) => FullPath(((FileOpenOptions)options).FileName);

    public override string? OwnerOf(object options) => HostDevices.Current.KindOf(NameOf(options)) switch
    {
        HostDeviceKind.Disk => "host_device",
        HostDeviceKind.CdRom => "host_cdrom",
        _ => null,
    };

    public override NodeIdentity? IdentityOf(object options) => HostNames.Current.Find(NameOf(options))?.Identity;

    public override IReadOnlyList<string> FilesIn(string folder, IReadOnlyList<string> endings, int most)
    {
        try
        {
            return
            [
                .. Directory.EnumerateFiles(folder)
                    .Where(f => endings.Any(e => f.EndsWith(e, StringComparison.OrdinalIgnoreCase)))
                    .Take(most)
                    .Order(StringComparer.Ordinal),
            ];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
    {
        var options = (FileOpenOptions)context.Options;
        string path = FullPath(options.FileName);
        HostFile host = HostFile.Current;
        RequireRegular(path, host.KindOf(path)); // devices and pipes may act on being opened
        Access access = context.Access;
        HostSharing sharing = access.LetsOthersWrite ? HostSharing.Everybody : access.Writes ? HostSharing.Nobody : HostSharing.Readers;
        SafeFileHandle handle;
        try
        {
            handle = Try(path, "open it", () => host.Open(path, access.Writes, sharing));
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound)
        {
            throw new DiskImageException(
                e.Kind,
                TemporaryName.HasLeftovers(path)
                    ? $"{path}: no such file. A run that was to make or replace it was cut short, and files beside it may be the new ones "
                        + $"already. Make it again with {new Remedy(RemedyKind.Force)}."
                    : (Wording)$"{path}: no such file",
                path,
                cause: e);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Locked
            && ImageLock.Names(path, except: null, stands: null) is { Length: > 0 } names)
        {
            throw new DiskImageException(e.Kind, $"{e.Wording}: {names}. Wait for it or stop it.", path, cause: e);
        }
        try
        {
            RequireRegular(path, host.KindOf(handle)); // it may be another by now
        }
        catch
        {
            HostFile.Current.Close(handle);
            throw;
        }
        ImageLocking locking = options.Locking == ImageLocking.Auto ? context.Locking : options.Locking;
        OpenFile file = context.Direct
            ? HostFile.Current.GoRoundCache(path, path, handle, access.Writes, sharing)
            : new OpenFile(handle);
        return new(Claim(path, file, access, locking, context.Warn, context.Kept));
    }

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        string path = FullPath(locator);
        if (HostFile.Current.WhyNoNewFile(locator) is { } objection)
        {
            throw Invalid($"{path}: an image cannot be made there: {objection}");
        }
        if (HostFile.Current.KindOf(path) == HostFileKind.Pipe)
        {
            return new StoragePlace(path, path, TargetMode.Stream, Present: null, OtherNames: 0);
        }
        string address = Try(path, "be made", () => HostNames.Current.Resolve(path));
        HostEntry? present = HostNames.Current.Find(address);
        if (present is null)
        {
            return mode != TargetMode.New || address.Equals(path, StringComparison.Ordinal) || new FileInfo(path).LinkTarget is null
                ? new StoragePlace(path, address, mode, Present: null, OtherNames: 0)
                : throw new DiskImageException(
                    DiskImageErrorKind.AlreadyExists,
                    $"{path}: is a symbolic link to {address}, where nothing is. Make the image there with "
                        + $"{new Remedy(RemedyKind.Force)}, or choose another name.",
                    path);
        }
        if (present.Kind != HostFileKind.Regular)
        {
            string what = present.Kind switch { HostFileKind.Directory => "a folder", HostFileKind.Device => "a device", _ => "a socket" };
            throw Invalid($"{path}: is {what}, so it cannot be replaced by an image. Choose another name.");
        }
        if (mode == TargetMode.New)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists,
                $"{path}: already exists. Replace it with {new Remedy(RemedyKind.Force)}, or choose another name.",
                path);
        }
        if (present.IsProtected)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AccessDenied,
                $"{path}: is marked read-only, so it is not replaced. Take the mark off first, or choose another name.",
                path);
        }
        // Somebody who has it open would go on with the old file, unseen; on Windows the last step would fail.
        await (await OpenAsync(Writing(path), cancellationToken).ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
        return new StoragePlace(path, address, mode, present.Identity, mode == TargetMode.InPlace ? 0 : present.Names - 1);

        DiskImageException Invalid(string message) => new(DiskImageErrorKind.InvalidOption, message, path);
    }

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        if (place.Mode == TargetMode.Stream)
        {
            return new PendingStream(place, await OpenPipeAsync(place, cancellationToken).ConfigureAwait(false), leaveOpen: false);
        }
        if (place is { Mode: TargetMode.InPlace, Present: not null })
        {
            BlockNode file = await OpenAsync(
                Writing(place.Locator) with { Direct = traits.Direct }, cancellationToken).ConfigureAwait(false);
            return new InPlaceFile(place, file, (writable, _) => new(Open(place.Address, place.Locator, writable)));
        }
        string folder = Path.GetDirectoryName(place.Address)!;
        NewFolder? made = traits.InNewFolder ? Try(place.Locator, "make its folder", () => NewFolder.Make(folder)) : null;
        TemporaryName.RemoveLeftovers(folder, Path.GetFileName(place.Address));
        string temporary;
        SafeFileHandle handle;
        try
        {
            (temporary, handle) = Create(place, folder, place.Present is null ? traits.Like : place.Address);
        }
        catch
        {
            made?.Remove();
            throw;
        }
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
            OpenFile file = traits.Direct
                ? HostFile.Current.GoRoundCache(temporary, place.Locator, handle, writable: true, HostSharing.Nobody)
                : new OpenFile(handle);
            handle = file.Handle;
            return new RenamedFile(place, temporary, Claim(place.Locator, file, Access.Writing), made);
        }
        catch
        {
            HostFile.Current.Close(handle);
            HostIO.Delete(temporary);
            made?.Remove();
            throw;
        }
    }

    /// <summary>A file in the host's folder for temporary files (TMPDIR).</summary>
    public BlockNode OpenTemporary(string name) => Try<BlockNode>(name, $"make a temporary file in {Path.GetTempPath()}", () =>
    {
        SafeFileHandle handle = HostFile.Current.OpenTemporary();
        HostFile.Current.AllowHoles(handle);
        HostFile.Current.SurviveFileSizeLimit();
        return new FileNode(name, new OpenFile(handle), isReadOnly: false);
    });

    public ValueTask RemoveAsync(string locator, NodeIdentity identity)
    {
        string path = FullPath(locator);
        _ = Try(path, "remove it", () =>
        {
            if (HostNames.Current.Find(path)?.Identity == identity)
            {
                string address = HostNames.Current.Resolve(path);
                HostIO.Delete(path); // a symbolic link goes with what it leads to
                HostIO.Delete(address);
            }
            return true;
        });
        return default;
    }

    private static async ValueTask<Stream> OpenPipeAsync(StoragePlace place, CancellationToken cancellationToken)
    {
        try
        {
            return await HostFile.Current.OpenPipeAsync(place.Address, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw HostFile.Error(e, place.Locator, "open it");
        }
    }

    /// <summary>A node on an open file, once nobody else uses it in a way that excludes this. The handle is closed if it fails.</summary>
    private static FileNode Claim(
        string path,
        OpenFile file,
        Access access,
        ImageLocking locking = ImageLocking.Auto,
        Action<Wording>? warn = null,
        IReadOnlyList<IKeptLock>? kept = null)
    {
        LockStrength held = LockStrength.None;
        try
        {
            IKeptLock? own = access.Writes && kept is { Count: > 0 } && HostNames.Current.IdentityOf(file.Handle) is { } identity
                ? kept.FirstOrDefault(k => k.Identity == identity)
                : null;
            held = locking == ImageLocking.Off ? LockStrength.None : ImageLock.Take(file.Handle, path, access, own);
            if (held == LockStrength.UntilAnyClose)
            {
                warn?.Invoke($"{path}: this system has no locks that belong to an open file. The image is locked for the process, "
                    + $"and no more as soon as this process closes any opening of it.");
            }
            if (held == LockStrength.None && locking == ImageLocking.On)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{path}: its file system has no locks that programs of QEMU heed, and locking=on asks for them. Use locking=auto.",
                    path);
            }
        }
        catch
        {
            HostFile.Current.Close(file.Handle);
            throw;
        }
        if (access.Writes)
        {
            HostFile.Current.SurviveFileSizeLimit();
        }
        return new FileNode(
            path, file, isReadOnly: !access.Writes, hasFixedLength: access is { Writes: true, Resizes: false },
            isLocked: held == LockStrength.OpenFile && (access.Writes || !access.LetsOthersWrite));
    }

    private static ProtocolOpenContext Writing(string path) => new(new FileOpenOptions { FileName = path }) { Access = Access.Writing };

    private static string FullPath(string path)
    {
        try
        {
            return Path.GetFullPath(path);
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException or PathTooLongException)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{path}' is not a path: {e.Message}", cause: e);
        }
    }

    private static void RequireRegular(string path, HostFileKind kind)
    {
        string? what = kind switch
        {
            HostFileKind.Directory => "a folder, not a disk image. Name a file in it",
            HostFileKind.Pipe or HostFileKind.Other => "a pipe or socket, which cannot be read at offsets. "
                + "Write what comes from it to a file first",
            HostFileKind.Device => "a device, and no disk",
            _ => null, // a file; or nothing that can be seen, and opening it tells why
        };
        if (what is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {what}.", path);
        }
    }

    /// <summary>Opens for reading or writing what bears another name in messages.</summary>
    internal static BlockNode Open(string path, string name, bool writable) => Claim(
        name,
        new OpenFile(
            Try(name, "open it", () => HostFile.Current.Open(path, writable, writable ? HostSharing.Nobody : HostSharing.Readers))),
        writable ? Access.Writing : Access.Reading);

    /// <summary>Makes the file that is to be renamed, under a name that nobody else has.</summary>
    private static (string Path, SafeFileHandle Handle) Create(StoragePlace place, string folder, string? model)
    {
        for (int attempt = 1; ; attempt++)
        {
            string path = Path.Combine(folder, IncompleteName.For(Path.GetFileName(place.Address)));
            try
            {
                return (path, model is null
                    ? HostIO.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None)
                    : HostNames.Current.CreateLike(path, model));
            }
            catch (IOException) when (attempt < Attempts && HostNames.Current.Find(path) is not null)
            {
                // Somebody has that name: another one.
            }
            catch (UnauthorizedAccessException e) when (place.Present is not null)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.AccessDenied,
                    $"{place.Locator}: cannot be replaced in one step: its folder cannot be written to, or a new file there cannot "
                        + $"be given its owner and access rights. "
                    + $"With {new Remedy(RemedyKind.InPlace)} the new image is written into the file itself; then what it holds is lost "
                    + $"at once, also if the work does not succeed.",
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
        catch (Exception e) when (
            e is not DiskImageException and (IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException))
        {
            throw HostFile.Error(e, path, doing);
        }
    }
}
