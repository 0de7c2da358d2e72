using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>A file that is made under a temporary name beside the one it is to have.</summary>
/// <remarks>
/// While it is written it is locked by its node, from then until it has its name by a guard: nobody takes it for a leftover.
/// </remarks>
/// <param name="place">Where it is to be.</param>
/// <param name="temporary">Where it is.</param>
/// <param name="node">It, open.</param>
/// <param name="folder">Its folder, if that was made for it.</param>
internal sealed class RenamedFile(StoragePlace place, string temporary, FileNode node, NewFolder? folder = null) : PendingNode(place)
{
    private SafeFileHandle? _guard;
    private NodeIdentity? _made; // once it has its name
    private string? _kept; // the name that what it replaced has until then
    private bool _isGone, _isAside;

    public override BlockNode Node => node;

    public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
    {
        _guard?.Dispose();
        _guard = null;
        BlockNode opened = FileDriver.Open(temporary, Place.Locator, writable);
        if (!writable)
        {
            Guard();
        }
        return new(opened);
    }

    public override void SetAside()
    {
        if (Place is not { Present: { } present, Mode: TargetMode.Replace })
        {
            return;
        }
        string inFolder = Path.GetDirectoryName(Place.Address)!;
        string aside = Path.Combine(inFolder, IncompleteName.For(Path.GetFileName(Place.Address)));
        _ = FileDriver.Try(Place.Locator, "take what is there aside", () =>
        {
            _isAside = HostNames.Current.Find(Place.Address)?.Identity == present && HostNames.Current.TryRename(Place.Address, aside);
            HostNames.Current.FlushFolder(inFolder);
            return true;
        });
        _kept = _isAside ? aside : null;
    }

    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
    {
        Guard();
        _ = FileDriver.Try(Place.Locator, "put the finished image in its place", () =>
        {
            Rename(revocable);
            return true;
        });
        _made = HostNames.Current.Find(Place.Address)?.Identity;
        _isGone = true;
        _guard?.Dispose();
        if (durable)
        {
            _ = FileDriver.Try(Place.Locator, "make its name durable", () =>
            {
                HostNames.Current.FlushFolder(Path.GetDirectoryName(Place.Address)!);
                if (folder is not null)
                {
                    HostNames.Current.FlushFolder(folder.Parent);
                }
                return true;
            });
        }
        return default;
    }

    public override void Withdraw()
    {
        if (_isAside && _made is null && _kept is { } aside)
        {
            _kept = null; // where somebody has its name by now, this one is what is left of it
            if (HostNames.Current.Find(Place.Address) is null)
            {
                PutBack(aside, Place.Address);
            }
            return;
        }
        if (_made is not { } made || HostNames.Current.Find(Place.Address)?.Identity != made)
        {
            return;
        }
        if (Place.Present is null)
        {
            Remove(Place.Address);
        }
        else if (_kept is { } kept)
        {
            _kept = null; // where it cannot be put back, that name is what is left of it
            PutBack(kept, Place.Address);
        }
    }

    public override async ValueTask DisposeAsync()
    {
        try
        {
            await node.DisposeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // What could not be written is about to be removed.
        }
        _guard?.Dispose();
        if (!_isGone)
        {
            _isGone = true;
            Remove(temporary);
            folder?.Remove();
        }
        if (_kept is { } kept)
        {
            _kept = null;
            Remove(kept);
        }
    }

    private void Rename(bool revocable)
    {
        NodeIdentity? present = HostNames.Current.Find(Place.Address)?.Identity;
        if (present is not null && present == Place.Present)
        {
            Replace(revocable);
        }
        else if (!HostNames.Current.TryRename(temporary, Place.Address))
        {
            throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists,
                $"{Place.Locator}: another file took its place while the image was made. That file is kept and the new "
                    + $"image is removed. Choose another name.",
                Place.Locator);
        }
    }

    /// <summary>Takes the place of the file that is there, which keeps another name if it may have to be put back.</summary>
    private void Replace(bool revocable)
    {
        string? kept = !revocable ? null
            : Path.Combine(Path.GetDirectoryName(Place.Address)!, IncompleteName.For(Path.GetFileName(Place.Address)));
        if (kept is not null)
        {
            HostNames.Current.Keep(Place.Address, kept);
        }
        try
        {
            HostNames.Replace(temporary, Place.Address);
            _kept = kept;
        }
        catch when (kept is not null)
        {
            PutBack(kept, Place.Address);
            throw;
        }
    }

    private static void PutBack(string kept, string path)
    {
        try
        {
            HostNames.Replace(kept, path);
            Remove(kept); // renaming a file onto another name of itself does nothing
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The failure that led here is on its way already.
        }
    }

    /// <summary>A shared lock; the file can be read and renamed.</summary>
    private void Guard()
        => _guard ??= FileDriver.Try(
            Place.Locator,
            "open it",
            () => HostIO.OpenHandle(temporary, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete));

    private static void Remove(string path)
    {
        try
        {
            HostIO.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It has a name by which the next run removes it.
        }
    }
}
