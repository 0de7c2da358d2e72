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

    /// <summary>Images of the chain that are open already, by full path: they are used, not opened again, and stay open.</summary>
    public IReadOnlyDictionary<string, BlockNode> Opened { get; init; } = new Dictionary<string, BlockNode>(StringComparer.Ordinal);

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

    /// <summary>Puts an image in a format on top of a file node that is open for writing. The node is the image's on success.</summary>
    /// <param name="file">The node that holds the image.</param>
    /// <param name="path">The image's full path, which no image below it may bear; names in the image are taken from its folder.</param>
    /// <param name="format">The image's format.</param>
    /// <param name="options">Open options.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    internal ValueTask<BlockNode> OpenOnAsync(BlockNode file, string path, FormatDriver format, object? options, CancellationToken cancellationToken)
        => format.OpenAsync(
            new FormatOpenContext(
                file,
                Bind(format, OptionSchema.Values(options)),
                async (reference, referenceFormat, token)
                    => (await OpenReferenceAsync(path, reference, referenceFormat, [path], token).ConfigureAwait(false)).Node,
                (reference, _, token) => OpenFileAsync(Policy.Admit(reference, path), writable: true, token)),
            cancellationToken);

    private async ValueTask<OpenedImage> OpenAsync(
        OpenRequest request, ImageLocator locator, IReadOnlyList<string> chain, CancellationToken cancellationToken)
    {
        string identity = Identity(locator);
        CheckChain(identity, chain); // before it is opened: a file that is open for writing further up would seem to be somebody else's
        BlockNode file = await OpenFileAsync(locator, request.Writable, cancellationToken).ConfigureAwait(false);
        try
        {
            string? named = request.Format ?? locator.Format;
            FormatDriver format = named is null
                ? await Registry.ProbeAsync(file, cancellationToken).ConfigureAwait(false)
                : Registry.Format(named);
            IReadOnlyList<string> chainToHere = [.. chain, identity];
            ReferenceOpener backing = async (reference, referenceFormat, token)
                => request.Opened.TryGetValue(Path.GetFullPath(Policy.Admit(reference, file.Name).Address), out BlockNode? opened)
                    ? new BorrowedNode(opened, isReadOnly: true)
                    : (await OpenReferenceAsync(file.Name, reference, referenceFormat, chainToHere, token, request.Opened).ConfigureAwait(false)).Node;
            ReferenceOpener data = (reference, _, token) => OpenFileAsync(Policy.Admit(reference, file.Name), request.Writable, token);
            object options = Bind(format, OptionSchema.Values(request.Options).Concat(locator.Options));
            BlockNode node = await format.OpenAsync(
                new FormatOpenContext(file, options, request.WithBacking && locator.WithBacking ? backing : null, data, request.ForRepair), cancellationToken).ConfigureAwait(false);
            return new OpenedImage(node, format, file.Name, WasProbed: named is null);
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
        IReadOnlyList<string> chain,
        CancellationToken cancellationToken,
        IReadOnlyDictionary<string, BlockNode>? alreadyOpen = null)
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

    private void CheckChain(string identity, IReadOnlyList<string> chain)
    {
        if (chain.Contains(identity, StringComparer.Ordinal))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{chain[0]}: its backing chain leads back to {identity}, so it has no contents of its own", chain[0]);
        }
        if (chain.Count >= Policy.MaximumDepth)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused, $"{chain[0]}: its backing chain is longer than {Policy.MaximumDepth} images", chain[0]);
        }
    }

    /// <summary>What stands for a file in the search for cycles: its path, symbolic links resolved.</summary>
    private static string Identity(ImageLocator locator)
    {
        if (!locator.IsFile)
        {
            return locator.Text;
        }
        string path = Path.GetFullPath(locator.Address);
        try
        {
            return File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return path; // opening it will tell what is wrong; a loop of links further up is bounded by the depth
        }
    }
}
