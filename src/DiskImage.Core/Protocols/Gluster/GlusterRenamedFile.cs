using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Protocols.Gluster;

/// <summary>A file that is made under a temporary name beside the one it is to have, over one connection.</summary>
/// <param name="place">Where it is to be.</param>
/// <param name="at">The same, understood.</param>
/// <param name="temporary">Where it is.</param>
/// <param name="volume">The volume; its connection ends with this, once it has begun.</param>
internal sealed class GlusterRenamedFile(StoragePlace place, GlusterPlace at, string temporary, GlusterVolume volume)
    : PendingNode(place)
{
    private const uint NewMode = 0x180; // rw-------: whoever made it says who else may have it

    private GlusterNode? _node;
    private GlusterStat? _present; // what it is to replace
    private string? _kept; // the name that what it replaced has until then
    private bool _isMade, _isGone;

    public override BlockNode Node => _node!;

    /// <summary>Makes it, owned and protected as what it replaces. Returns false if its name is taken.</summary>
    /// <exception cref="DiskImageException">What the library says.</exception>
    public async ValueTask<bool> TryBeginAsync(CancellationToken cancellationToken)
    {
        _present = await GlusterFile.StatAsync(volume, at.Path, cancellationToken).ConfigureAwait(false);
        GlusterFile? file = await GlusterFile.TryCreateAsync(volume, temporary, NewMode, cancellationToken).ConfigureAwait(false);
        if (file is null)
        {
            return false;
        }
        try
        {
            GlusterStat own = await file.StatAsync(cancellationToken).ConfigureAwait(false);
            if (_present is { } model)
            {
                if ((own.Owner, own.Group) != (model.Owner, model.Group))
                {
                    await RequireAsync(file, (l, f) => l.SetOwner(f, model.Owner, model.Group), "have it owned as what it replaces")
                        .ConfigureAwait(false);
                }
                await RequireAsync(file, (l, f) => l.SetMode(f, model.Mode & 0xFFF), "protect it as what it replaces")
                    .ConfigureAwait(false);
            }
            _node = new GlusterNode(Place.Locator, volume, file, own, at.Identity, writable: true, ownsVolume: false);
            return true;
        }
        catch
        {
            _ = await file.CloseAsync().ConfigureAwait(false);
            await TryRemoveAsync(temporary).ConfigureAwait(false);
            throw;
        }
    }

    public override async ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
    {
        (GlusterFile file, GlusterStat stat) = await GlusterFile.OpenAsync(
            volume, _isGone ? at.Path : temporary, writable, cancellationToken).ConfigureAwait(false);
        return new GlusterNode(Place.Locator, volume, file, stat, at.Identity, writable, ownsVolume: false);
    }

    /// <summary>Waits, for as long as the volume does not answer.</summary>
    public override void SetAside()
    {
        if (_present is not null && Place.Mode == TargetMode.Replace)
        {
            KeepAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    /// <summary>A second name is given where nothing may be replaced: that fails if something is there, which a rename does not.</summary>
    public override async ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
    {
        GlusterStat? now = await GlusterFile.StatAsync(volume, at.Path, cancellationToken, follows: false).ConfigureAwait(false);
        if (now is { } there && there.Inode != _present?.Inode)
        {
            throw Taken();
        }
        if (now is not null && revocable)
        {
            await KeepAsync().ConfigureAwait(false);
            now = null;
        }
        GlusterResult named = await volume.CallAsync(
            fs => now is null ? volume.Library.Link(fs, temporary, at.Path) : volume.Library.Rename(fs, temporary, at.Path),
            CancellationToken.None).ConfigureAwait(false);
        if (!named.IsGood)
        {
            DiskImageException error = volume.Error(named, "put the finished image in its place", DiskImageErrorKind.WriteFailed);
            throw error.Kind == DiskImageErrorKind.AlreadyExists ? Taken() : error;
        }
        _isMade = true;
        if (now is null)
        {
            await TryRemoveAsync(temporary).ConfigureAwait(false);
        }
        _isGone = true;
    }

    /// <summary>Waits, for as long as the volume does not answer.</summary>
    public override void Withdraw()
    {
        if (_isMade)
        {
            _isMade = false;
            TryRemoveAsync(at.Path).AsTask().GetAwaiter().GetResult();
        }
        if (_kept is { } kept)
        {
            _kept = null; // where it cannot be put back, that name is what is left of it
            _ = volume.CallAsync(fs => volume.Library.Rename(fs, kept, at.Path), CancellationToken.None).GetAwaiter().GetResult();
        }
    }

    public override async ValueTask DisposeAsync()
    {
        if (_node is not null)
        {
            try
            {
                await _node.DisposeAsync().ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                // The failure that led here is on its way already.
            }
        }
        foreach (string? left in (string?[])[_isGone ? null : temporary, _kept])
        {
            if (left is not null)
            {
                await TryRemoveAsync(left).ConfigureAwait(false);
            }
        }
        (_isGone, _kept) = (true, null);
        await volume.DisposeAsync().ConfigureAwait(false);
    }

    private async ValueTask KeepAsync()
    {
        int slash = at.Path.LastIndexOf('/');
        string kept = at.Path[..(slash + 1)] + IncompleteName.For(at.Path[(slash + 1)..]);
        GlusterResult moved = await volume.CallAsync(
            fs => volume.Library.Rename(fs, at.Path, kept), CancellationToken.None).ConfigureAwait(false);
        if (!moved.IsGood)
        {
            throw volume.Error(moved, "take what is there aside", DiskImageErrorKind.WriteFailed);
        }
        _kept = kept;
    }

    private async ValueTask TryRemoveAsync(string path)
        => _ = await volume.CallAsync(fs => volume.Library.Remove(fs, path), CancellationToken.None).ConfigureAwait(false);

    private async ValueTask RequireAsync(GlusterFile file, Func<IGlusterLibrary, nint, GlusterResult> call, Wording doing)
    {
        GlusterResult result = await file.CallAsync(call, CancellationToken.None).ConfigureAwait(false);
        if (!result.IsGood)
        {
            throw volume.Error(result, doing, DiskImageErrorKind.AccessDenied);
        }
    }

    private DiskImageException Taken() => new(
        DiskImageErrorKind.AlreadyExists,
        $"{at.Name}: another file took its place while the image was made. That file is kept and the new image is removed. Choose "
            + "another name.",
        at.Name);
}
