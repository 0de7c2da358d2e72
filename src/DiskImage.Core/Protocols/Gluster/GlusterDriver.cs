using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Gluster;

/// <summary>Files of GlusterFS volumes, by the system's libgfapi.</summary>
/// <param name="library">The library; null for the system's, when it is needed.</param>
internal sealed class GlusterDriver(IGlusterLibrary? library = null) : ProtocolDriver, IStorage
{
    private const int Attempts = 4; // at a temporary name; chance makes a second one rare. Ours

    private Action<Wording> _warn = static _ => { };

    public override string Name => GlusterLocator.Schemes[0];

    public override string Description => "A file of a GlusterFS volume: gluster://host:port/volume/path";

    public override IReadOnlyList<string> Schemes => GlusterLocator.Schemes;

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<GlusterOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => GlusterLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        ILookup<bool, KeyValuePair<string, object?>> parts = values.ToLookup(
            v => v.Key.StartsWith(GlusterServer.Prefix, StringComparison.Ordinal));
        GlusterOptions options = (GlusterOptions)OpenOptions.Bind(parts[false]) with { Servers = GlusterServer.Parse(parts[true]) };
        _ = GlusterPlace.Of(options);
        return options;
    }

    public override string NameOf(object options) => PlaceOf(options).Name;

    public override NodeIdentity? IdentityOf(object options) => PlaceOf(options).Identity;

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => await OpenAsync(PlaceOf(context.Options), context.Access.Writes, context.Warn, cancellationToken).ConfigureAwait(false);

    public IStorage ForUser(IReadOnlyDictionary<string, System.Security.SecureString> secrets, Action<Wording> warn)
        => new GlusterDriver(library) { _warn = warn };

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        GlusterPlace place = PlaceOf(locator);
        GlusterVolume volume = await GlusterVolume.OpenAsync(Library, place, _warn, cancellationToken).ConfigureAwait(false);
        await using (volume.ConfigureAwait(false))
        {
            GlusterStat? present = await GlusterFile.StatAsync(
                volume, place.Path, cancellationToken, follows: mode == TargetMode.InPlace).ConfigureAwait(false);
            if (present is { IsRegular: false })
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{place.Name}: is no regular file, so it is not replaced. Choose another name.",
                    place.Name);
            }
            return present is not null && mode == TargetMode.New
                ? throw new DiskImageException(
                    DiskImageErrorKind.AlreadyExists,
                    $"{place.Name}: exists already. To replace it, allow that with {new Remedy(RemedyKind.Force)}.",
                    place.Name)
                : new StoragePlace(place.Name, locator, mode, present is null ? null : place.Identity, OtherNames: 0);
        }
    }

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(place);
        GlusterPlace at = PlaceOf(place.Address);
        if (place is { Mode: TargetMode.InPlace, Present: not null })
        {
            return new InPlaceFile(
                place,
                await OpenAsync(at, writable: true, static _ => { }, cancellationToken).ConfigureAwait(false),
                async (writable, token) => await OpenAsync(at, writable, static _ => { }, token).ConfigureAwait(false));
        }
        GlusterVolume volume = await GlusterVolume.OpenAsync(Library, at, static _ => { }, cancellationToken).ConfigureAwait(false);
        try
        {
            int slash = at.Path.LastIndexOf('/');
            for (int attempt = 1; attempt <= Attempts; attempt++)
            {
                string temporary = at.Path[..(slash + 1)] + IncompleteName.For(at.Path[(slash + 1)..]);
                var made = new GlusterRenamedFile(place, at, temporary, volume);
                if (await made.TryBeginAsync(cancellationToken).ConfigureAwait(false))
                {
                    return made;
                }
            }
            throw new DiskImageException(DiskImageErrorKind.Io, $"{at.Name}: no temporary name is free beside it", at.Name);
        }
        catch
        {
            await volume.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask RemoveAsync(string locator, NodeIdentity identity)
    {
        GlusterPlace place = PlaceOf(locator);
        if (place.Identity == identity)
        {
            GlusterVolume volume = await GlusterVolume.OpenAsync(Library, place, _warn, CancellationToken.None).ConfigureAwait(false);
            await using (volume.ConfigureAwait(false))
            {
                GlusterResult removed = await volume.CallAsync(
                    fs => volume.Library.Remove(fs, place.Path), CancellationToken.None).ConfigureAwait(false);
                if (!removed.IsGood && removed.Error != 2)
                {
                    throw volume.Error(removed, "remove it", DiskImageErrorKind.WriteFailed);
                }
            }
        }
    }

    private IGlusterLibrary Library => library ?? GlusterLibrary.Current;

    private static GlusterPlace PlaceOf(object options) => GlusterPlace.Of((GlusterOptions)options);

    private GlusterPlace PlaceOf(string locator) => PlaceOf(Bind(Parse(locator)));

    private async ValueTask<GlusterNode> OpenAsync(
        GlusterPlace place, bool writable, Action<Wording> warn, CancellationToken cancellationToken)
    {
        GlusterVolume volume = await GlusterVolume.OpenAsync(Library, place, warn, cancellationToken).ConfigureAwait(false);
        try
        {
            (GlusterFile file, GlusterStat stat) = await GlusterFile.OpenAsync(
                volume, place.Path, writable, cancellationToken).ConfigureAwait(false);
            return new GlusterNode(place.Name, volume, file, stat, place.Identity, writable, ownsVolume: true);
        }
        catch
        {
            await volume.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }
}
