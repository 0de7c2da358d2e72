using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>What to open, and how.</summary>
/// <param name="Locator">Path, URI or json: text.</param>
public sealed record OpenRequest(string Locator)
{
    /// <summary>The format; null to probe.</summary>
    public string? Format { get; init; }

    /// <summary>Open the top image for writing. Everything below it stays read-only.</summary>
    public bool Writable { get; init; }

    /// <summary>Open options of the format: text, a dictionary, or null.</summary>
    public object? Options { get; init; }

    /// <summary>Open an image that needs repair for writing, unrepaired, so that it can be repaired.</summary>
    public bool ForRepair { get; init; }

    /// <summary>Images of the chain that are open already, by the identity of their file: they are used, not opened again, and stay open.</summary>
    public IReadOnlyDictionary<NodeIdentity, BlockNode> Opened { get; init; } = new Dictionary<NodeIdentity, BlockNode>();

    /// <summary>False to open this layer alone: where it defers to a backing image it reads as zeroes.</summary>
    public bool WithBacking { get; init; } = true;

    /// <summary>Where a relative path is taken from; null for the process's current folder.</summary>
    public string? Folder { get; init; }

    /// <summary>What is opened to be read now is to be written to next: what speaks against that is said now.</summary>
    public bool BeforeWriting { get; init; }

    /// <summary>
    /// Open the image for what it says about itself: a data file that cannot be opened is no obstacle, and reading from it throws why.
    /// </summary>
    public bool ToDescribe { get; init; }

    /// <summary>The parameter by which the user names this image's format, for messages.</summary>
    public string FormatParameter { get; init; } = "Format";
}

/// <summary>An open image. Disposing it closes the whole graph.</summary>
/// <param name="Node">The disk.</param>
/// <param name="Format">The format it was opened as.</param>
/// <param name="Path">The full path or locator of the file that holds it.</param>
/// <param name="WasProbed">True if the format was found by probing.</param>
public sealed record OpenedImage(BlockNode Node, FormatDriver Format, string Path, bool WasProbed) : IAsyncDisposable
{
    /// <summary>Writes back and closes.</summary>
    public ValueTask DisposeAsync() => Node.DisposeAsync();
}

/// <summary>An image of a chain that is being opened, which nothing below it may lead back to.</summary>
/// <param name="Path">Its full path or locator.</param>
/// <param name="Identity">Its file; null if it is not there (yet), or cannot be told from others.</param>
internal readonly record struct ChainLink(string Path, NodeIdentity? Identity)
{
    /// <summary>True if both are one image.</summary>
    public bool IsSameAs(ChainLink other) => Identity is not null && other.Identity is not null
        ? Identity == other.Identity
        : Path.Equals(other.Path, StringComparison.Ordinal);
}

/// <summary>From a locator to an open graph: protocol, probe, format, and the chain of references the policy admits.</summary>
/// <param name="registry">The drivers.</param>
/// <param name="policy">The gate.</param>
/// <param name="warn">Told what a user should know about files that are opened; may be called more than once with the same.</param>
public sealed class ImageOpener(DriverRegistry registry, OpenPolicy policy, Action<string>? warn = null)
{
    /// <summary>The drivers in use.</summary>
    public DriverRegistry Registry { get; } = registry;

    /// <summary>The gate in use.</summary>
    public OpenPolicy Policy { get; } = policy;

    /// <summary>An opener that also admits what the user named for an image that is to be made or changed: its backing and data file.</summary>
    /// <param name="options">The record of the image's create options.</param>
    /// <param name="imagePath">Its full path.</param>
    public ImageOpener Naming(object options, string imagePath)
        => options is ICreateOptions given
            ? new(Registry, Policy.Naming(given.BackingFile, imagePath).Naming(given.DataFile, imagePath), warn)
            : this;

    /// <summary>An opener that also admits the name of a backing image that the user gave for an image.</summary>
    /// <param name="reference">The name, as it is to stand in the image.</param>
    /// <param name="imagePath">The image's full path.</param>
    public ImageOpener NamingBacking(string reference, string imagePath) => new(Registry, Policy.Naming(reference, imagePath), warn);

    /// <summary>Opens an image with everything below it. A failed open closes all and modifies nothing.</summary>
    public ValueTask<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        ImageLocator locator = ImageLocator.Parse(request.Locator);
        return OpenAsync(request, request.Folder is { } folder ? locator.From(folder) : locator, [], cancellationToken);
    }

    /// <summary>Opens the bytes of a locator without looking at them.</summary>
    public ValueTask<BlockNode> OpenFileAsync(ImageLocator locator, bool writable, CancellationToken cancellationToken)
    {
        ProtocolDriver protocol = Registry.Protocol(locator.Scheme);
        return protocol.OpenAsync(new ProtocolOpenContext(locator.Address, writable, protocol.Options.Defaults(), Policy.ForceShare), cancellationToken);
    }

    /// <summary>Which bytes a path, URI or description leads to; null if nothing is there.</summary>
    public NodeIdentity? IdentityOf(string locator) => IdentityOf(ImageLocator.Parse(locator));

    /// <summary>Puts an image in a format on top of a file node. The node is the image's on success.</summary>
    /// <param name="file">The node that holds the image.</param>
    /// <param name="image">The image, which nothing below it may be; names in the image are taken from its folder.</param>
    /// <param name="format">The image's format.</param>
    /// <param name="options">Open options.</param>
    /// <param name="data">Opens further files of the image.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    internal ValueTask<BlockNode> OpenOnAsync(
        BlockNode file, ChainLink image, FormatDriver format, object? options, ReferenceOpener data, CancellationToken cancellationToken)
        => format.OpenAsync(
            new FormatOpenContext(
                file,
                Bind(format, OptionSchema.Values(options)),
                async (reference, referenceFormat, token)
                    => (await OpenReferenceAsync(image.Path, reference, referenceFormat, [image], token).ConfigureAwait(false)).Node,
                data),
            cancellationToken);

    private async ValueTask<OpenedImage> OpenAsync(
        OpenRequest request, ImageLocator locator, IReadOnlyList<ChainLink> chain, CancellationToken cancellationToken)
    {
        ChainLink link = new(locator.IsFile ? locator.FullPath : locator.Text, IdentityOf(locator));
        CheckChain(link, chain); // before it is opened: a file that is open for writing further up would seem to be somebody else's
        BlockNode file = await OpenFileAsync(locator, request.Writable, cancellationToken).ConfigureAwait(false);
        try
        {
            string? named = request.Format ?? locator.Format;
            ProbedFile? probed = named is null ? await Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false) : null;
            FormatDriver format = probed?.Format ?? Registry.Format(named!);
            var judgement = new ProbeJudgement(Registry, file.Name, request.FormatParameter);
            if (locator.IsFile && probed?.Contents is { } contents // devices are another protocol's: they promise nothing
                && judgement.Judge(contents, request.Writable || request.BeforeWriting) is { } warning)
            {
                Warn(warning);
            }
            var references = new ReferenceOpening(this, request, file.Name, [.. chain, link], probed is not null && judgement.PromisesRaw);
            object options = Bind(format, OptionSchema.Values(request.Options).Concat(locator.Options));
            var context = new FormatOpenContext(
                file, options, request.WithBacking && locator.WithBacking ? references.OpenBackingAsync : null, references.OpenDataAsync, request.ForRepair);
            BlockNode node = probed is null
                ? await OpenNamedAsync(format, context, request, cancellationToken).ConfigureAwait(false)
                : await format.OpenAsync(context, cancellationToken).ConfigureAwait(false);
            return new OpenedImage(node, format, file.Name, WasProbed: probed is not null);
        }
        catch
        {
            await file.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens what an image names, if the policy admits it. <paramref name="chain"/> is what it may not lead back to, <paramref name="from"/> how the image was asked for.</summary>
    internal async ValueTask<OpenedImage> OpenReferenceAsync(
        string imagePath,
        string reference,
        string? format,
        IReadOnlyList<ChainLink> chain,
        CancellationToken cancellationToken,
        OpenRequest? from = null)
    {
        ImageLocator locator = Policy.Admit(reference, imagePath);
        var request = new OpenRequest(locator.Address) { Format = format, FormatParameter = "BackingFormat" };
        try
        {
            return await OpenAsync(from is null ? request : request with { Opened = from.Opened, ToDescribe = from.ToDescribe }, locator, chain, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound && chain.Count > 0)
        {
            throw new DiskImageException(
                e.Kind, $"{imagePath}: its backing file '{reference}' cannot be opened: {e.Message}", imagePath, cause: e);
        }
    }

    /// <summary>Opens an image in the format that was named. What turns out to be something else is called so.</summary>
    private async ValueTask<BlockNode> OpenNamedAsync(FormatDriver format, FormatOpenContext context, OpenRequest request, CancellationToken cancellationToken)
    {
        try
        {
            return await format.OpenAsync(context, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.InvalidFormat)
        {
            BlockNode file = context.File;
            ProbedFile found = await Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false);
            if (found.Format == format || found.Contents?.Kind == ContentsKind.Unknown)
            {
                throw; // a damaged one
            }
            string seems = found.Contents?.Description ?? $"a {found.Format.Name} image";
            string wayOut = found.Contents is null ? $" Give -{request.FormatParameter} {found.Format.Name}, or leave it out." : "";
            throw new DiskImageException(e.Kind, $"{file.Name}: is not a {format.Name} image; it looks like {seems}.{wayOut} ({e.Message})", file.Name, e.Offset, e);
        }
    }

    private void Warn(string text) => warn?.Invoke(text);

    private object Bind(FormatDriver format, IEnumerable<KeyValuePair<string, object?>> given)
        => format.OpenOptions.Bind(Policy.OptionsFor(format.OpenOptions).Concat(given));

    private void CheckChain(ChainLink link, IReadOnlyList<ChainLink> chain)
    {
        if (chain.Any(link.IsSameAs))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{chain[0].Path}: its backing chain leads back to {link.Path}, so it has no contents of its own", chain[0].Path);
        }
        if (chain.Count >= Policy.MaximumDepth)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{chain[0].Path}: its backing chain is longer than {Policy.MaximumDepth:#,0} images. If that is meant, allow more with -MaximumChainDepth.",
                chain[0].Path);
        }
    }

    private NodeIdentity? IdentityOf(ImageLocator locator) => Registry.Protocol(locator.Scheme).IdentityOf(locator.Address);

    /// <summary>The opening of what one image names.</summary>
    /// <param name="opener">Opens it.</param>
    /// <param name="request">How the image itself was asked for.</param>
    /// <param name="imagePath">The image.</param>
    /// <param name="chain">The images down to this one.</param>
    /// <param name="isDoubtful">The format was found by probing, and the image's name is one of disks without a format.</param>
    private sealed class ReferenceOpening(ImageOpener opener, OpenRequest request, string imagePath, IReadOnlyList<ChainLink> chain, bool isDoubtful)
    {
        // An image may name one file in several ways: what did not open under one is not tried under another, or the work would double with each image
        // of a chain.
        private readonly Dictionary<NodeIdentity, DiskImageException> _failed = [];

        public async ValueTask<BlockNode> OpenBackingAsync(string reference, string? format, CancellationToken cancellationToken)
        {
            ImageLocator locator = Admit(reference, OpenPolicy.BackingRole);
            NodeIdentity? identity = opener.IdentityOf(locator);
            if (identity is { } known && request.Opened.TryGetValue(known, out BlockNode? opened))
            {
                return new BorrowedNode(opened, isReadOnly: true);
            }
            if (identity is { } tried && _failed.TryGetValue(tried, out DiskImageException? before))
            {
                throw new DiskImageException(before.Kind, before.Message, before.Path, before.Offset, before);
            }
            try
            {
                return (await opener.OpenReferenceAsync(imagePath, reference, format, chain, cancellationToken, request).ConfigureAwait(false)).Node;
            }
            catch (DiskImageException e) when (identity is { } failed)
            {
                _failed[failed] = e;
                throw;
            }
        }

        public async ValueTask<BlockNode> OpenDataAsync(string reference, string? format, CancellationToken cancellationToken)
        {
            try
            {
                return await opener.OpenFileAsync(Admit(reference, OpenPolicy.DataRole), request.Writable, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (request.ToDescribe || e.Kind == DiskImageErrorKind.NotFound)
            {
                DiskImageException told = e.Kind == DiskImageErrorKind.NotFound
                    ? new DiskImageException(e.Kind, $"{imagePath}: its data file '{reference}' cannot be opened: {e.Message}", imagePath, cause: e)
                    : e;
                return request.ToDescribe ? new UnopenedNode(reference, told) : throw told;
            }
        }

        /// <summary>The gate, and a word about a guest's disk that begins like an image.</summary>
        private ImageLocator Admit(string reference, string role)
        {
            ImageLocator locator = opener.Policy.Admit(reference, imagePath, role);
            if (isDoubtful)
            {
                opener.Warn(
                    $"{imagePath}: has the name of a raw disk, but begins like another image, which names the {role} '{reference}'. "
                    + $"If a guest may have written that, give -{request.FormatParameter} raw; if not, name the format to silence this.");
            }
            return locator;
        }
    }
}
