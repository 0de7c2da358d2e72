using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Ssh;

/// <summary>Opens, makes and removes files of SSH servers for one user.</summary>
/// <param name="program">The system's OpenSSH.</param>
/// <param name="secrets">What the user gave, by name.</param>
/// <param name="warn">Told what the user should know.</param>
/// <param name="connections">Those that are not used.</param>
internal sealed class SshStorage(
    SshProgram program, IReadOnlyDictionary<string, SecureString> secrets, Action<Wording> warn, SshConnections connections) : IStorage
{
    private const int Attempts = 4; // at a temporary name; chance makes a second one rare. Ours
    private const uint OwnerOnly = 0x180; // rw-------

    private static readonly OptionSchema s_options = OptionSchema.Of<SshOptions>();

    /// <summary>Which file a place is: the same whatever is asked of the server's key.</summary>
    public static NodeIdentity IdentityOf(SshPlace place) => new($"ssh:{place.Address}");

    /// <summary>Opens a file.</summary>
    /// <exception cref="DiskImageException">What ssh or the server says.</exception>
    public async ValueTask<SshNode> OpenAsync(SshPlace place, bool writable, CancellationToken cancellationToken)
    {
        SshServer server = await LogInAsync(place, cancellationToken).ConfigureAwait(false);
        try
        {
            RequireFlushes(server, writable);
            return await OpenAsync(server, place, place.Path, writable, ownsServer: true, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await server.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        SshPlace place = PlaceOf(locator);
        SshServer server = await LogInAsync(place, cancellationToken).ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            SftpAttributes? present = await server.LookAsync(place.Path, cancellationToken).ConfigureAwait(false);
            if (present is null)
            {
                bool isLink = await server.LookAtNameAsync(place.Path, cancellationToken).ConfigureAwait(false) is not null;
                return !isLink ? new StoragePlace(place.Name, place.Name, mode, Present: null, OtherNames: 0)
                    : throw Error(
                        DiskImageErrorKind.AlreadyExists, $"{place.Address}: is a symbolic link to where nothing is. Choose another name.");
            }
            if (!present.Value.IsRegular)
            {
                throw Error(
                    DiskImageErrorKind.InvalidOption,
                    $"{place.Address}: is {(present.Value.IsFolder ? "a folder" : "no regular file")}, so it cannot be replaced by an "
                        + $"image. Choose another name.");
            }
            if (mode == TargetMode.New)
            {
                throw Error(
                    DiskImageErrorKind.AlreadyExists,
                    $"{place.Address}: already exists. Replace it with {new Remedy(RemedyKind.Force)}, or choose another name.");
            }
            if (mode == TargetMode.Replace && !server.Connection.Has(SftpWire.PosixRename))
            {
                throw Error(
                    DiskImageErrorKind.Unsupported,
                    $"{place.Address}: the server has no way to replace a file in one step. With {new Remedy(RemedyKind.InPlace)} the new "
                        + $"image is written into the file itself; then what it holds is lost at once, also if the work does not succeed.");
            }
            string address = await server.ResolveAsync(place.Path, cancellationToken).ConfigureAwait(false);
            return new StoragePlace(place.Name, (place with { Path = address }).Name, mode, IdentityOf(place), OtherNames: 0);
        }

        DiskImageException Error(DiskImageErrorKind kind, Wording message) => new(kind, message, place.Address);
    }

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        SshPlace at = PlaceOf(place.Address);
        SshServer server = await LogInAsync(PlaceOf(place.Locator), cancellationToken).ConfigureAwait(false);
        try
        {
            RequireFlushes(server, writable: true);
            if (place is { Mode: TargetMode.InPlace, Present: not null })
            {
                SshNode file = await OpenAsync(server, at, at.Path, writable: true, ownsServer: false, cancellationToken)
                    .ConfigureAwait(false);
                return new SshInPlaceFile(
                    new InPlaceFile(place, file, async (writable, token) => await OpenAsync(
                        server, at, at.Path, writable, ownsServer: false, token).ConfigureAwait(false)),
                    server);
            }
            SftpAttributes? present = await server.LookAsync(at.Path, cancellationToken).ConfigureAwait(false);
            (string temporary, byte[] handle) = await CreateAsync(server, at.Path, present, cancellationToken).ConfigureAwait(false);
            var made = new SshRenamedFile(place, at.Path, temporary, server, present, (writable, token) => OpenAsync(
                server, at, temporary, writable, ownsServer: false, token));
            try
            {
                await made.BeginAsync(handle, IdentityOf(at), cancellationToken).ConfigureAwait(false);
                return made;
            }
            catch
            {
                await made.DisposeAsync().ConfigureAwait(false);
                throw;
            }
        }
        catch
        {
            await server.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask RemoveAsync(string locator, NodeIdentity identity)
    {
        SshPlace place = PlaceOf(locator);
        if (IdentityOf(place) == identity)
        {
            SshServer server = await LogInAsync(place, CancellationToken.None).ConfigureAwait(false);
            await using (server.ConfigureAwait(false))
            {
                SftpRequest removed = await server.Connection.RunAsync(
                    SftpRequest.OfPath(SftpPacket.Remove, place.Path), CancellationToken.None).ConfigureAwait(false);
                if (removed.Status != SftpStatus.NoSuchFile)
                {
                    server.Require(removed, "remove it");
                }
            }
        }
    }

    private static SshPlace PlaceOf(string locator) => SshPlace.Of((SshOptions)s_options.Bind(SshLocator.Parse(locator)));

    private ValueTask<SshServer> LogInAsync(SshPlace place, CancellationToken cancellationToken)
        => new SshLogin(program, place, secrets, warn, connections).OpenAsync(cancellationToken);

    private void RequireFlushes(SshServer server, bool writable)
    {
        if (writable && !server.Connection.Has(SftpWire.FileSync))
        {
            warn($"{server.Name}: the server does not support fsync, so flushes cannot be relied on: what is written may be lost if the "
                + $"server loses power. Its OpenSSH would have to be 6.3 or later.");
        }
    }

    private static async ValueTask<SshNode> OpenAsync(
        SshServer server, SshPlace place, string path, bool writable, bool ownsServer, CancellationToken cancellationToken)
    {
        SftpAttributes? there = await server.LookAsync(path, cancellationToken).ConfigureAwait(false);
        if (there is { IsRegular: false } other)
        {
            throw new DiskImageException( // a pipe would hang, a device act on being opened
                DiskImageErrorKind.InvalidOption,
                $"{place.Address}: is {(other.IsFolder ? "a folder" : "no regular file")}, not a disk image.",
                place.Address);
        }
        byte[] handle = await server.OpenAsync(
            path, writable ? SftpOpen.Read | SftpOpen.Write : SftpOpen.Read, default, "open it", cancellationToken).ConfigureAwait(false);
        try
        {
            SftpAttributes attributes = await server.AttributesAsync(handle, cancellationToken).ConfigureAwait(false);
            return attributes.Size is null
                ? throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{place.Address}: the server does not tell its length", place.Address)
                : new SshNode(place.Name, server, handle, attributes, IdentityOf(place), writable, ownsServer);
        }
        catch
        {
            _ = await server.TryLastAsync(SftpRequest.OfHandle(SftpPacket.Close, handle)).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Makes the file that is to be renamed, under a name of its own; never more readable than what it replaces.</summary>
    private static async ValueTask<(string Path, byte[] Handle)> CreateAsync(
        SshServer server, string path, SftpAttributes? present, CancellationToken cancellationToken)
    {
        int slash = path.LastIndexOf('/');
        for (int attempt = 1; ; attempt++)
        {
            string temporary = path[..(slash + 1)] + IncompleteName.For(path[(slash + 1)..]);
            try
            {
                return (temporary, await server.OpenAsync(
                    temporary,
                    SftpOpen.Read | SftpOpen.Write | SftpOpen.Create | SftpOpen.Exclusive,
                    present is null ? default : new SftpAttributes(Permissions: OwnerOnly),
                    "create it",
                    cancellationToken).ConfigureAwait(false));
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Io && attempt < Attempts
                && server.Connection.Broken is null)
            {
                // Somebody may have that name: another one.
            }
        }
    }
}
