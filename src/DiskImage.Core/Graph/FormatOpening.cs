using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>The opening of one image on its open file: its format, and what the image names.</summary>
/// <param name="builder">Opens further nodes.</param>
/// <param name="opener">Drivers and gate.</param>
/// <param name="request">How the image at the top was asked for.</param>
/// <param name="spec">The description of this one.</param>
/// <param name="site">Where it is; the last image of its chain is this one.</param>
internal sealed class FormatOpening(GraphBuilder builder, ImageOpener opener, OpenRequest request, NodeSpec spec, GraphSite site)
{
    internal const string BackingChild = "backing";
    private const string DataChild = "data-file";

    // An image may name one file in several ways: what did not open under one is not tried under another, or the work would double with
    // each image of a chain.
    private readonly Dictionary<NodeIdentity, DiskImageException> _failed = [];
    private bool _isDoubtful; // the format was found by probing, and the image's name is one of disks without a format

    private string ImagePath => site.Chain[^1].Path;

    /// <summary>
    /// Opens the image in a format, or in the one that is found by probing if none is named. The file is the caller's if it fails.
    /// </summary>
    public async ValueTask<OpenedDisk> OpenAsync(BlockNode file, string? named, CancellationToken cancellationToken)
    {
        ProbedFile? probed = named is null ? await opener.Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false) : null;
        FormatDriver format = probed?.Format ?? opener.Registry.Format(named!);
        var judgement = new ProbeJudgement(opener.Registry, file.Name, site.Role);
        if (Path.IsPathRooted(file.Name) && probed?.Contents is { } contents // devices are another protocol's: they promise nothing
            && judgement.Judge(contents, site.Writable || (request.BeforeWriting && site.Chain.Count == 1)) is { } warning)
        {
            opener.Warn(warning);
        }
        if (site.SharesWrites && format != opener.Registry.Formats[0])
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{file.Name}: share-rw=on lets other programs write to it meanwhile, and it is a {format.Name} image, whose structures "
                    + $"are kept in memory and would not survive that. It is for raw disks. To read beside a writer there is "
                    + $"{new Remedy(RemedyKind.ForceShare)}.",
                file.Name);
        }
        _isDoubtful = probed is not null && judgement.PromisesRaw;
        bool withBacking = request.WithBacking && !(spec.Has(BackingChild) && spec.Child(BackingChild) is null);
        FormatOpenContext context = Context(file, format, withBacking);
        BlockNode node = probed is null
            ? await OpenNamedAsync(format, context, cancellationToken).ConfigureAwait(false)
            : await format.OpenAsync(context, cancellationToken).ConfigureAwait(false);
        return new OpenedDisk(node, format, WasProbed: probed is not null);
    }

    /// <summary>What the format gets.</summary>
    public FormatOpenContext Context(BlockNode file, FormatDriver format, bool withBacking)
    {
        IEnumerable<KeyValuePair<string, object?>> described = spec.Options(r => format.Roles.Contains(r, StringComparer.Ordinal))
            .Where(o => !o.Key.Equals(NodeSpec.FileNameKey, StringComparison.Ordinal));
        object options = format.Bind(
            opener.Policy.OptionsFor(format.OpenOptions).Concat(OptionSchema.Values(site.Options)).Concat(described));
        return new FormatOpenContext(file, options, withBacking
            ? OpenBackingAsync
            : null, DataOpener(site), request.ForRepair && site.Chain.Count == 1)
        {
            ParentFolders = opener.Policy.ParentFolders,
            Nearby = Path.IsPathRooted(ImagePath)
                ? new NearbyFiles(opener, ImagePath, opener.Starts, DataOpener(site with { Writable = false })) : null,
            Siblings = Path.IsPathRooted(ImagePath)
                ? new SiblingFiles(opener, ImagePath, format is not ICreatable { AllowsSparseFile: false }) : null,
            OpenDataToRead = DataOpener(site with { Writable = false }),
            GivesBacking = withBacking && builder.IsComplete(spec.Child(BackingChild)),
            Access = site.AccessUnder(opener.Policy),
            Secrets = request.Secrets,
            OpenGivenAsync = OpenGivenAsync,
        };
    }

    private async ValueTask<BlockNode?> OpenGivenAsync(string role, CancellationToken cancellationToken)
        => spec.Has(role) ? await builder.OpenBytesAsync(spec.Child(role), site, cancellationToken).ConfigureAwait(false) : null;

    private async ValueTask<BlockNode> OpenBackingAsync(string reference, string? format, CancellationToken cancellationToken)
    {
        if (StackRoom.IsShort)
        {
            await StackRoom.GoOn();
        }
        object? given = spec.Child(BackingChild);
        GraphSite below = site with
        {
            Writable = false, Format = null, Options = null, IsBytes = false, Role = ImageRole.Backing, NamedBy = null,
            SharesWrites = false,
        };
        if (builder.IsComplete(given))
        {
            return (await builder.OpenDiskAsync(
                given,
                below with { Format = (given as NodeSpec)?.Driver is null ? format : null },
                cancellationToken).ConfigureAwait(false)).Node;
        }
        ImageLocator locator = Admit(reference, OpenPolicy.BackingRole);
        NodeIdentity? identity = opener.IdentityOf(locator);
        if (identity is { } known && request.Opened.TryGetValue(known, out BlockNode? opened))
        {
            return new BorrowedNode(opened, isReadOnly: true);
        }
        if (identity is { } tried && _failed.TryGetValue(tried, out DiskImageException? before))
        {
            throw new DiskImageException(before.Kind, before.Wording, before.Path, before.Offset, before);
        }
        try
        {
            return (await OpenNamedByImageAsync(
                reference, locator, given as NodeSpec, below with { Format = format }, cancellationToken).ConfigureAwait(false)).Node;
        }
        catch (DiskImageException e) when (identity is { } failed)
        {
            _failed[failed] = e;
            throw;
        }
    }

    /// <summary>Opens what the image names. What the user says of it beside its place comes first.</summary>
    private async ValueTask<OpenedDisk> OpenNamedByImageAsync(
        string reference, ImageLocator locator, NodeSpec? given, GraphSite below, CancellationToken cancellationToken)
    {
        try
        {
            below = below with { Folder = Path.GetDirectoryName(ImagePath), NamedBy = ImagePath };
            // the image's names are not the user's
            GraphBuilder own = given is null && locator.IsDescription ? builder.For(locator.Spec) : builder;
            bool isFilter = given?.Driver is { } driver && opener.Registry.Driver(driver) is FilterDriver;
            return await own.OpenDiskAsync(
                given is null ? locator.Spec : opener.Join(given, locator.Spec),
                given?.Driver is null || isFilter ? below : below with { Format = null },
                cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound)
        {
            throw new DiskImageException(
                e.Kind, $"{ImagePath}: its backing file '{reference}' cannot be opened: {e.Wording}", ImagePath, cause: e);
        }
    }

    private ReferenceOpener DataOpener(GraphSite place) => (reference, _, token) => OpenDataAsync(reference, place, token);

    private async ValueTask<BlockNode> OpenDataAsync(string reference, GraphSite place, CancellationToken cancellationToken)
    {
        try
        {
            object? given = spec.Child(DataChild);
            if (builder.IsComplete(given))
            {
                return await builder.OpenBytesAsync(given, place with { NamedBy = null }, cancellationToken).ConfigureAwait(false);
            }
            ImageLocator locator = Admit(reference, OpenPolicy.DataRole);
            GraphBuilder own = given is null && locator.IsDescription ? builder.For(locator.Spec) : builder;
            object recorded = own.BytesOf(locator.Spec);
            return await own.OpenBytesAsync(
                given is NodeSpec more && recorded is NodeSpec below ? opener.Join(more, below) : recorded,
                place with { Folder = Path.GetDirectoryName(ImagePath), NamedBy = ImagePath },
                cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (request.ToDescribe || e.Kind == DiskImageErrorKind.NotFound)
        {
            DiskImageException told = e.Kind == DiskImageErrorKind.NotFound
                ? new DiskImageException(
                    e.Kind, $"{ImagePath}: its data file '{reference}' cannot be opened: {e.Wording}", ImagePath, cause: e)
                : e;
            return request.ToDescribe ? new UnopenedNode(reference, told) : throw told;
        }
    }

    /// <summary>The gate, and a word about a guest's disk that begins like an image.</summary>
    private ImageLocator Admit(string reference, string role)
    {
        ImageLocator locator = opener.Policy.Admit(reference, ImagePath, role);
        if (_isDoubtful)
        {
            opener.Warn(
                $"{ImagePath}: has the name of a raw disk, but begins like another image, which names the {role} '{reference}'. "
                + $"If a guest may have written that, give {new Remedy(RemedyKind.Format, "raw", site.Role)}; if "
                + $"not, name the format to silence this.");
        }
        return locator;
    }

    /// <summary>Opens an image in the format that was named. What turns out to be something else is called so.</summary>
    private async ValueTask<BlockNode> OpenNamedAsync(FormatDriver format, FormatOpenContext context, CancellationToken cancellationToken)
    {
        try
        {
            return await format.OpenAsync(context, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.InvalidFormat)
        {
            BlockNode file = context.File;
            ProbedFile found = await opener.Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false);
            if (found.Format == format || found.Contents?.Kind == ContentsKind.Unknown)
            {
                throw; // a damaged one
            }
            string seems = found.Contents?.Description ?? $"a {found.Format.Name} image";
            Wording wayOut = found.Contents is null
                ? (Wording)$" Give {new Remedy(RemedyKind.Format, found.Format.Name, site.Role)}, or leave it out." : "";
            throw new DiskImageException(
                e.Kind, $"{file.Name}: is not a {format.Name} image; it looks like {seems}.{wayOut} ({e.Wording})", file.Name, e.Offset, e);
        }
    }
}
