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
public sealed class ImageOpener(DriverRegistry registry, OpenPolicy policy)
{
    /// <summary>The drivers in use.</summary>
    public DriverRegistry Registry { get; } = registry;

    /// <summary>The gate in use.</summary>
    public OpenPolicy Policy { get; } = policy;

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
        ChainLink link = new(locator.IsFile ? Path.GetFullPath(locator.Address) : locator.Text, IdentityOf(locator));
        CheckChain(link, chain); // before it is opened: a file that is open for writing further up would seem to be somebody else's
        BlockNode file = await OpenFileAsync(locator, request.Writable, cancellationToken).ConfigureAwait(false);
        try
        {
            string? formatName = request.Format ?? locator.Format;
            FormatDriver format = formatName is null
                ? await Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false)
                : Registry.Format(formatName);
            IReadOnlyList<ChainLink> chainToHere = [.. chain, link];
            ReferenceOpener backing = async (reference, referenceFormat, token)
                => request.Opened.Count > 0 && IdentityOf(Policy.Admit(reference, file.Name)) is { } named && request.Opened.TryGetValue(named, out BlockNode? opened)
                    ? new BorrowedNode(opened, isReadOnly: true)
                    : (await OpenReferenceAsync(file.Name, reference, referenceFormat, chainToHere, token, request.Opened).ConfigureAwait(false)).Node;
            ReferenceOpener data = (reference, _, token) => OpenFileAsync(Policy.Admit(reference, file.Name), request.Writable, token);
            object options = Bind(format, OptionSchema.Values(request.Options).Concat(locator.Options));
            BlockNode node = await format.OpenAsync(
                new FormatOpenContext(file, options, request.WithBacking && locator.WithBacking ? backing : null, data, request.ForRepair), cancellationToken).ConfigureAwait(false);
            return new OpenedImage(node, format, file.Name, WasProbed: formatName is null);
        }
        catch
        {
            await file.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens what an image names, if the policy admits it. <paramref name="chain"/> is what it may not lead back to.</summary>
    internal async ValueTask<OpenedImage> OpenReferenceAsync(
        string imagePath,
        string reference,
        string? format,
        IReadOnlyList<ChainLink> chain,
        CancellationToken cancellationToken,
        IReadOnlyDictionary<NodeIdentity, BlockNode>? alreadyOpen = null)
    {
        ImageLocator locator = Policy.Admit(reference, imagePath);
        var request = new OpenRequest(locator.Address) { Format = format };
        try
        {
            return await OpenAsync(alreadyOpen is null ? request : request with { Opened = alreadyOpen }, locator, chain, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound && chain.Count > 0)
        {
            throw new DiskImageException(
                e.Kind, $"{imagePath}: its backing file '{reference}' cannot be opened: {e.Message}", imagePath, cause: e);
        }
    }

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
                DiskImageErrorKind.Refused, $"{chain[0].Path}: its backing chain is longer than {Policy.MaximumDepth} images", chain[0].Path);
        }
    }

    private NodeIdentity? IdentityOf(ImageLocator locator) => Registry.Protocol(locator.Scheme).IdentityOf(locator.Address);
}
