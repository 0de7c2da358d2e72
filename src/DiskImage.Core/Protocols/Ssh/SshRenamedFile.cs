using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Protocols.Ssh;

/// <summary>A file that is made under a temporary name beside the one it is to have, over one connection.</summary>
/// <param name="place">Where it is to be.</param>
/// <param name="path">The same as a path on the server.</param>
/// <param name="temporary">Where it is.</param>
/// <param name="server">The server; its connection ends with this.</param>
/// <param name="present">What was there when the work began; null for nothing.</param>
/// <param name="open">Opens it again, for writing or for reading.</param>
internal sealed class SshRenamedFile(
    StoragePlace place,
    string path,
    string temporary,
    SshServer server,
    SftpAttributes? present,
    Func<bool, CancellationToken, ValueTask<SshNode>> open) : PendingNode(place)
{
    private SshNode? _node;
    private string? _kept; // the name that what it replaced has until then
    private bool _isMade, _isGone;

    public override BlockNode Node => _node!;

    /// <summary>Has it owned and protected as what it replaces, and opens the node over it.</summary>
    /// <exception cref="DiskImageException">AccessDenied: it cannot be given the owner or the access rights.</exception>
    public async ValueTask BeginAsync(byte[] handle, NodeIdentity identity, CancellationToken cancellationToken)
    {
        SftpAttributes own = await server.AttributesAsync(handle, cancellationToken).ConfigureAwait(false);
        _node = new SshNode(Place.Locator, server, handle, own, identity, writable: true, ownsServer: false);
        if (present is not { } model)
        {
            return;
        }
        var wanted = new SftpAttributes(Owner: model.Owner == own.Owner ? null : model.Owner, Permissions: model.Rights);
        SftpRequest set = await server.Connection.RunAsync(SftpRequest.Set(handle, wanted), cancellationToken).ConfigureAwait(false);
        if (set.Status != SftpStatus.Ok)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AccessDenied,
                $"{server.Name}: cannot be replaced in one step: a new file there cannot be given its owner and access rights. "
                    + $"With {new Remedy(RemedyKind.InPlace)} the new image is written into the file itself; then what it holds is lost at "
                    + $"once, also if the work does not succeed.",
                server.Name);
        }
    }

    public override async ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => await open(writable, cancellationToken).ConfigureAwait(false);

    /// <summary>Waits, for a bounded time.</summary>
    public override void SetAside()
    {
        if (present is null || Place.Mode != TargetMode.Replace)
        {
            return;
        }
        string aside = Beside();
        if (!Last(SftpRequest.Rename(path, aside)))
        {
            throw new DiskImageException(DiskImageErrorKind.Io, $"{server.Name}: what is there cannot be taken aside", server.Name);
        }
        _kept = aside;
    }

    public override async ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
    {
        SftpAttributes? now = await server.LookAsync(path, cancellationToken).ConfigureAwait(false);
        bool isSame = now is { } there && present is { } was
            && (there.Size, there.Modified, there.Owner, there.Permissions) == (was.Size, was.Modified, was.Owner, was.Permissions);
        if (now is not null && !isSame)
        {
            throw Taken();
        }
        if (now is not null && revocable)
        {
            string kept = Beside();
            await server.RunAsync(SftpRequest.Rename(path, kept), "keep what is there as", cancellationToken).ConfigureAwait(false);
            (_kept, now) = (kept, null);
        }
        SftpRequest renamed = await server.Connection.RunAsync(
            now is null ? SftpRequest.Rename(temporary, path) : SftpRequest.Replace(temporary, path),
            CancellationToken.None).ConfigureAwait(false);
        if (renamed.Status == SftpStatus.Failure && now is null
            && await server.LookAtNameAsync(path, CancellationToken.None).ConfigureAwait(false) is not null)
        {
            throw Taken();
        }
        server.Require(renamed, "put the finished image in its place");
        (_isMade, _isGone) = (true, true);
    }

    /// <summary>Waits, for a bounded time.</summary>
    public override void Withdraw()
    {
        if (_isMade)
        {
            _isMade = false;
            _ = Last(SftpRequest.OfPath(SftpPacket.Remove, path));
        }
        if (_kept is { } kept)
        {
            _kept = null; // where it cannot be put back, that name is what is left of it
            _ = Last(SftpRequest.Rename(kept, path));
        }
    }

    public override async ValueTask DisposeAsync()
    {
        if (_node is not null)
        {
            await _node.DisposeAsync().ConfigureAwait(false);
        }
        foreach (string? left in (string?[])[_isGone ? null : temporary, _kept])
        {
            if (left is not null)
            {
                _ = await server.TryLastAsync(SftpRequest.OfPath(SftpPacket.Remove, left)).ConfigureAwait(false);
            }
        }
        (_isGone, _kept) = (true, null);
        await server.DisposeAsync().ConfigureAwait(false);
    }

    private string Beside()
    {
        int slash = path.LastIndexOf('/');
        return path[..(slash + 1)] + IncompleteName.For(path[(slash + 1)..]);
    }

    private bool Last(SftpRequest request) => server.TryLastAsync(request).AsTask().GetAwaiter().GetResult();

    private DiskImageException Taken() => new(
        DiskImageErrorKind.AlreadyExists,
        $"{server.Name}: another file took its place while the image was made. That file is kept and the new image is removed. Choose "
            + "another name.",
        server.Name);
}
