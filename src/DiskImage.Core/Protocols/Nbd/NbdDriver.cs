using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Nbd;

/// <summary>Exports of NBD servers.</summary>
internal sealed class NbdDriver : ProtocolDriver, IStorage
{
    public override string Name => "nbd";

    public override string Description => "An export of an NBD server: nbd://host/name, nbds://, nbd+unix:///name?socket=PATH";

    public override IReadOnlyList<string> Schemes => ["nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+tcp", "nbds+tcp"];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<NbdOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => NbdLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        // QEMU's own short forms of server.host, server.port, server.path
        string Full(string option) => option is "host" or "port" or "path" ? $"server.{option}" : option;
        var options = (NbdOptions)OpenOptions.Bind(values.Select(v => KeyValuePair.Create(Full(v.Key), v.Value)));
        _ = options.Address();
        return options;
    }

    public override string NameOf(object options) => ((NbdOptions)options).Uri;

    public override NodeIdentity? IdentityOf(object options) => IdentityOf(NameOf(options));

    /// <summary>The identity of an export by its canonical URI.</summary>
    public static NodeIdentity IdentityOf(string uri) => new($"nbd:{uri}");

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => await OpenAsync((NbdOptions)context.Options, context.Access.Writes, cancellationToken).ConfigureAwait(false);

    public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        string name = NameOf(Bind(Parse(locator)));
        return mode == TargetMode.InPlace
            ? new(new StoragePlace(name, name, mode, IdentityOf(name), OtherNames: 0))
            : throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists,
                $"{name}: an export is there already and cannot be replaced, only written to. If that is meant, allow it "
                    + $"with {new Remedy(RemedyKind.InPlace)}.",
                name);
    }

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        var options = (NbdOptions)Bind(Parse(place.Address));
        return OccupiedPlace.BeginAsync(
            place, async (writable, token) => await OpenAsync(options, writable, token).ConfigureAwait(false), cancellationToken);
    }

    /// <summary>The exports that a server has.</summary>
    /// <param name="options">Where it is.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static ValueTask<IReadOnlyList<NbdExportInfo>> ListAsync(NbdOptions options, CancellationToken cancellationToken)
        => NbdConnection.ListAsync(PlaceOf(options), cancellationToken);

    private static async ValueTask<NbdNode> OpenAsync(NbdOptions options, bool writable, CancellationToken cancellationToken)
    {
        NbdPlace place = PlaceOf(options);
        var wishes = new NbdWishes
        {
            Export = options.Export, Tls = options.IsSecure, Contexts = [options.DirtyBitmap ?? NbdWire.AllocationContext],
        };
        NbdConnections connections = await NbdConnections.OpenAsync(place, wishes, options, cancellationToken).ConfigureAwait(false);
        try
        {
            if (writable && connections.Info.Can(NbdExportFlags.ReadOnly))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.ReadOnly,
                    $"{place.Name}: the server gives it for reading only, so it cannot be written to",
                    place.Name);
            }
            if (options.DirtyBitmap is { } bitmap && connections.Info.Contexts.Count == 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.NotFound, $"{place.Name}: the server has no context '{bitmap}' for this export", place.Name);
            }
            return new NbdNode(place.Name, connections, writable, options.DirtyBitmap is not null);
        }
        catch
        {
            await connections.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static NbdPlace PlaceOf(NbdOptions options) => new(options.Uri, options.Address(), TlsOf(options));

    private static INbdTls? TlsOf(NbdOptions options)
        => !options.IsSecure ? null
            : options.TlsCreds is { } folder && Path.Combine(folder, NbdPsk.FileName) is var keys && System.IO.File.Exists(keys)
                ? NbdPsk.Client(keys, options.TlsUsername)
                : new NbdX509(options.TlsCreds, options.CertifiedHost);
}
