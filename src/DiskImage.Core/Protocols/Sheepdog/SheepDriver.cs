using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>VDIs of Sheepdog clusters.</summary>
internal sealed class SheepDriver : ProtocolDriver, IStorage
{
    public override string Name => SheepLocator.Schemes[0];

    public override string Description => "A VDI of a Sheepdog cluster: sheepdog://host:port/vdi, #tag for a snapshot";

    public override IReadOnlyList<string> Schemes => SheepLocator.Schemes;

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<SheepOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<SheepCreateOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => SheepLocator.Parse(locator);

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        object options = OpenOptions.Bind(values);
        _ = PlaceOf(options);
        return options;
    }

    public override string NameOf(object options) => PlaceOf(options).Name;

    public override NodeIdentity? IdentityOf(object options) => PlaceOf(options).Identity;

    public override async ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => await OpenAsync(PlaceOf(context.Options), context.Access.Writes, cancellationToken).ConfigureAwait(false);

    public async ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
    {
        SheepPlace place = PlaceOf(locator);
        if (place.Snapshot is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{place.Name}: a snapshot cannot be written to. Name a VDI without one.", place.Name);
        }
        SheepGateway gateway = await ReachAsync(place, cancellationToken).ConfigureAwait(false);
        await using (gateway.ConfigureAwait(false))
        {
            bool isThere = await gateway.FindAsync(place.Vdi, "", 0, cancellationToken).ConfigureAwait(false) is not null;
            return isThere && mode != TargetMode.InPlace
                ? throw new DiskImageException(
                    DiskImageErrorKind.AlreadyExists,
                    $"{place.Name}: a VDI is there already and cannot be replaced in one step, only written to. If that is meant, allow it "
                        + $"with {new Remedy(RemedyKind.InPlace)}.",
                    place.Name)
                : new StoragePlace(place.Name, place.Name, mode, isThere ? place.Identity : null, OtherNames: 0);
        }
    }

    public async ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(place);
        SheepPlace vdi = PlaceOf(place.Address);
        var options = (SheepCreateOptions?)traits.Options ?? new SheepCreateOptions();
        if (place.Present is not null)
        {
            if (options != new SheepCreateOptions())
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{vdi.Name}: is there already, so 'redundancy', 'object_size' and 'backing_file' cannot be chosen any more",
                    vdi.Name);
            }
            return new InPlaceFile(
                place,
                await OpenAsync(vdi, writable: true, cancellationToken).ConfigureAwait(false),
                async (writable, token) => await OpenAsync(vdi, writable, token).ConfigureAwait(false));
        }
        var made = new SheepNewVdi(place, vdi);
        await made.BeginAsync(options, cancellationToken).ConfigureAwait(false);
        return made;
    }

    public async ValueTask RemoveAsync(string locator, NodeIdentity identity)
    {
        SheepPlace place = PlaceOf(locator);
        if (place.Identity == identity && place.Snapshot is null)
        {
            await SheepNewVdi.RemoveAsync(place).ConfigureAwait(false);
        }
    }

    /// <summary>Reaches the gateway of a place.</summary>
    public static async ValueTask<SheepGateway> ReachAsync(SheepPlace place, CancellationToken cancellationToken)
        => new(await SheepConnection.OpenAsync(place.Name, place.Address, cancellationToken).ConfigureAwait(false));

    /// <summary>What a text leads to.</summary>
    public static SheepPlace PlaceOf(string locator)
        => SheepPlace.Of((SheepOptions)OptionSchema.Of<SheepOptions>().Bind(SheepLocator.Parse(locator)));

    /// <summary>Opens a VDI or a snapshot.</summary>
    public static async ValueTask<SheepNode> OpenAsync(SheepPlace place, bool writable, CancellationToken cancellationToken)
    {
        if (writable && place.Snapshot is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{place.Name}: is a snapshot, which cannot be written to. Restore it, or make a new VDI on it.",
                place.Name);
        }
        SheepGateway gateway = await ReachAsync(place, cancellationToken).ConfigureAwait(false);
        uint? locked = null;
        try
        {
            locked = writable ? await gateway.LockAsync(place.Vdi, cancellationToken).ConfigureAwait(false) : null;
            uint vdi = locked ?? await NumberOfAsync(gateway, place, cancellationToken).ConfigureAwait(false);
            SheepInode inode = await gateway.InodeAsync(vdi, cancellationToken).ConfigureAwait(false);
            if (writable && inode.IsSnapshot)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.NotFound, $"{place.Name}: there are snapshots of it, but no VDI any more", place.Name);
            }
            SheepVolume volume = await SheepVolume.OpenAsync(
                gateway, place.Vdi, inode, locked is not null, cancellationToken).ConfigureAwait(false);
            return new SheepNode(place.Name, place.Vdi, place.Identity, volume, writable, ownsGateway: true);
        }
        catch
        {
            if (locked is uint held && gateway.Broken is null)
            {
                await LetGoAsync(gateway, place.Vdi, held).ConfigureAwait(false);
            }
            await gateway.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Lets go of a lock, without making a failure worse.</summary>
    private static async ValueTask LetGoAsync(SheepGateway gateway, string vdi, uint held)
    {
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(5)); // ours
        try
        {
            await gateway.ReleaseAsync(vdi, held, stop.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            // The failure that led here is on its way already.
        }
    }

    private static async ValueTask<uint> NumberOfAsync(SheepGateway gateway, SheepPlace place, CancellationToken cancellationToken)
    {
        bool isNumber = uint.TryParse(
            place.Snapshot, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out uint id);
        return await gateway.FindAsync(
            place.Vdi, isNumber ? "" : place.Snapshot ?? "", isNumber ? id : 0, cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                $"{place.Name}: there is no such {(place.Snapshot is null ? "VDI" : "VDI, or no such snapshot of it")}",
                place.Name);
    }

    private static SheepPlace PlaceOf(object options) => SheepPlace.Of((SheepOptions)options);
}
