using System.Collections.Concurrent;
using System.Security;
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

    /// <summary>
    /// What is written goes to an overlay that is gone when the image is closed; the image itself is opened to be read. A description says
    /// the same with <c>snapshot=on</c>.
    /// </summary>
    public bool TemporaryOverlay { get; init; }

    /// <summary>Open options of the format: text, a dictionary, or null.</summary>
    public object? Options { get; init; }

    /// <summary>Open an image that needs repair for writing, unrepaired, so that it can be repaired.</summary>
    public bool ForRepair { get; init; }

    /// <summary>
    /// Images of the chain that are open already, by the identity of their file: they are used, not opened again, and stay open.
    /// </summary>
    public IReadOnlyDictionary<NodeIdentity, BlockNode> Opened { get; init; } = new Dictionary<NodeIdentity, BlockNode>();

    /// <summary>
    /// What is kept locked since an earlier opening: whichever of it is opened for writing takes the lock over, and gives it up with the
    /// node.
    /// </summary>
    public IReadOnlyList<IKeptLock> Kept { get; init; } = [];

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

    /// <summary>Secrets, by the name or path they are for. Every driver of the graph gets them.</summary>
    public IReadOnlyDictionary<string, SecureString> Secrets { get; init; } = new Dictionary<string, SecureString>(StringComparer.Ordinal);

    /// <summary>Which of a request's images it is, for messages.</summary>
    public ImageRole Role { get; init; }

    /// <summary>How reads and writes go to the medium; null for as the policy has it.</summary>
    public CachePolicy? Cache { get; init; }
}

/// <summary>An open image. Disposing it closes the whole graph.</summary>
/// <param name="Node">The disk.</param>
/// <param name="Format">The format it was opened as.</param>
/// <param name="Path">The full path or locator of the file that holds it.</param>
/// <param name="WasProbed">True if the format was found by probing.</param>
/// <param name="Graph">All that is open.</param>
public sealed record OpenedImage(BlockNode Node, FormatDriver Format, string Path, bool WasProbed, ImageGraph Graph) : IAsyncDisposable
{
    /// <summary>Writes back and closes.</summary>
    public ValueTask DisposeAsync() => Graph.DisposeAsync();
}

/// <summary>From a locator to an open graph: protocol, probe, format, and the chain of references the policy admits.</summary>
/// <param name="registry">The drivers.</param>
/// <param name="policy">The gate.</param>
/// <param name="warn">Told what a user should know about files that are opened; may be called more than once with the same.</param>
public sealed class ImageOpener(DriverRegistry registry, OpenPolicy policy, Action<Wording>? warn = null)
{
    /// <summary>The drivers in use.</summary>
    public DriverRegistry Registry { get; } = registry;

    /// <summary>The gate in use.</summary>
    public OpenPolicy Policy { get; } = policy;

    /// <summary>What nodes share by names in their descriptions; the same for all openers of an operation.</summary>
    public SharedParts Shared { get; init; } = new();

    /// <summary>What was read of files that may be parents, as long as this opener is used: an operation.</summary>
    internal ConcurrentDictionary<string, NearbyStart> Starts { get; } = new(ImagePaths.Comparer);

    /// <summary>What can be said of a new node at a place beside the options of its format. Empty where nothing can be made.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is no place.</exception>
    public OptionSchema StorageOptionsOf(string path)
        => ImageLocator.Parse(path) is { IsFile: false } locator && Registry.Protocol(locator.Scheme) is IStorage storage
            ? storage.CreateOptions
            : OptionSchema.Empty;

    /// <summary>
    /// An opener that also admits what the user named for an image that is to be made or changed: its backing and data file.
    /// </summary>
    /// <param name="options">The record of the image's create options.</param>
    /// <param name="imagePath">Its full path.</param>
    public ImageOpener Naming(object options, string imagePath)
        => options is ICreateOptions given
            ? new(Registry, Policy.Naming(given.BackingFile, imagePath).Naming(given.DataFile, imagePath), warn) { Shared = Shared }
            : this;

    /// <summary>An opener that also admits the name of a backing image that the user gave for an image.</summary>
    /// <param name="reference">The name, as it is to stand in the image.</param>
    /// <param name="imagePath">The image's full path.</param>
    public ImageOpener NamingBacking(string reference, string imagePath)
        => new(Registry, Policy.Naming(reference, imagePath), warn) { Shared = Shared };

    /// <summary>
    /// What is said of an image, joined with where it is: a filter is put over it, and anything else is said of the image itself. What is
    /// said comes first.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: no such driver.</exception>
    public NodeSpec Join(NodeSpec said, NodeSpec image)
    {
        ArgumentNullException.ThrowIfNull(said);
        return said.Driver is { } name && Registry.Driver(name) is FilterDriver filter
            ? said.With(
                filter.Roles[0],
                said.Child(filter.Roles[0]) switch { NodeSpec below => Join(below, image), string node => node, _ => image })
            : said.Over(image);
    }

    /// <summary>Opens an image with everything below it. A failed open closes all and modifies nothing.</summary>
    public ValueTask<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        ImageLocator locator = ImageLocator.Parse(request.Locator);
        return OpenAsync(request, request.Folder is { } folder ? locator.From(folder) : locator, [], cancellationToken);
    }

    /// <summary>Opens the bytes of a locator without looking at them.</summary>
    /// <param name="locator">What leads to them.</param>
    /// <param name="writable">Open for writing.</param>
    /// <param name="folder">Where relative paths of a description are taken from; null for the process's current folder.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public ValueTask<BlockNode> OpenFileAsync(
        ImageLocator locator, bool writable, string? folder, CancellationToken cancellationToken)
        => OpenFileAsync(locator, writable, folder, Policy.Cache, cancellationToken);

    /// <summary>The same with a cache policy of its own.</summary>
    internal async ValueTask<BlockNode> OpenFileAsync(
        ImageLocator locator, bool writable, string? folder, CachePolicy cache, CancellationToken cancellationToken)
    {
        var graph = new ImageGraph(); // gets no named nodes: the locator is a path or URI
        GraphBuilder builder = Builder(new OpenRequest(locator.Text), locator, graph);
        return await builder.OpenBytesAsync(
            builder.BytesOf(locator.Spec),
            new GraphSite([], folder) { Writable = writable, Cache = cache },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Which bytes a path, URI or description leads to; null if nothing is there.</summary>
    public NodeIdentity? IdentityOf(string locator) => IdentityOf(ImageLocator.Parse(locator));

    /// <summary>Puts an image in a format on top of a file node. The node is the image's on success.</summary>
    /// <param name="file">The node that holds the image.</param>
    /// <param name="image">The image, which nothing below it may be; names in the image are taken from its folder.</param>
    /// <param name="format">The image's format.</param>
    /// <param name="options">Open options.</param>
    /// <param name="data">Opens further files of the image.</param>
    /// <param name="secrets">The image's secrets, by name or path.</param>
    /// <param name="secretsBelow">Those of what it stands on.</param>
    /// <param name="withBacking">Open what it stands on, too.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    internal ValueTask<BlockNode> OpenOnAsync(
        BlockNode file,
        ChainLink image,
        FormatDriver format,
        object? options,
        ReferenceOpener data,
        IReadOnlyDictionary<string, SecureString> secrets,
        IReadOnlyDictionary<string, SecureString> secretsBelow,
        bool withBacking,
        CancellationToken cancellationToken)
    {
        var request = new OpenRequest(image.Path) { Secrets = secretsBelow };
        NodeSpec nothing = NodeSpec.Of(null);
        var opening = new FormatOpening(
            new GraphBuilder(this, request, nothing, new ImageGraph()),
            this,
            request,
            nothing,
            new GraphSite([image], null) { Options = options, Cache = Policy.Cache });
        return format.OpenAsync(
            opening.Context(file, format, withBacking) with { OpenData = data, Siblings = null, Secrets = secrets },
            cancellationToken);
    }

    /// <summary>Opens what an image names, if the policy admits it. <paramref name="chain"/> is what it may not lead back to.</summary>
    internal async ValueTask<OpenedImage> OpenReferenceAsync(
        string imagePath, string reference, string? format, IReadOnlyList<ChainLink> chain, CancellationToken cancellationToken)
    {
        ImageLocator locator = Policy.Admit(reference, imagePath);
        var request = new OpenRequest(locator.Text)
        {
            Format = format,
            Role = ImageRole.Backing,
            Folder = Path.GetDirectoryName(imagePath),
        };
        try
        {
            return await OpenAsync(request, locator, chain, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound && chain.Count > 0)
        {
            throw new DiskImageException(
                e.Kind, $"{imagePath}: its backing file '{reference}' cannot be opened: {e.Wording}", imagePath, cause: e);
        }
    }

    internal NodeIdentity? IdentityOf(ImageLocator locator)
        => Builder(new OpenRequest(locator.Text), locator, new ImageGraph()).LinkOf(locator.Spec, new GraphSite([], null)).Identity;

    internal void Warn(Wording text) => warn?.Invoke(text);

    internal void CheckChain(ChainLink link, IReadOnlyList<ChainLink> chain)
    {
        if (chain.Any(link.IsSameAs))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{chain[0].Path}: its backing chain leads back to {link.Path}, so it has no contents of its own",
                chain[0].Path);
        }
        if (chain.Count >= Policy.MaximumDepth)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{chain[0].Path}: its backing chain is longer than {Policy.MaximumDepth:#,0} images. If that is meant, allow more "
                    + $"with {new Remedy(RemedyKind.ChainDepth)}.",
                chain[0].Path);
        }
    }

    private async ValueTask<OpenedImage> OpenAsync(
        OpenRequest request, ImageLocator locator, IReadOnlyList<ChainLink> chain, CancellationToken cancellationToken)
    {
        var graph = new ImageGraph();
        bool overlaid = request.Writable && (request.TemporaryOverlay || locator.Spec.Switch(NodeSpec.SnapshotKey));
        var site = new GraphSite(chain, request.Folder)
        {
            Writable = request.Writable && !overlaid,
            Format = request.Format,
            Options = request.Options,
            Role = request.Role,
            Cache = request.Cache ?? Policy.Cache,
        };
        try
        {
            OpenedDisk disk = await Builder(
                request, locator, graph).OpenDiskAsync(locator.Spec, site, cancellationToken).ConfigureAwait(false);
            graph.Complete(disk.Node);
            string path = disk.Node.Name;
            if (site.Writable && site.For(locator.Spec).Cache.WriteThrough)
            {
                disk = disk with { Node = new WriteThroughNode(disk.Node) };
                graph.Complete(disk.Node);
            }
            if (overlaid)
            {
                disk = await TemporaryOverlay.OverAsync(Registry, disk, cancellationToken).ConfigureAwait(false);
                graph.Complete(disk.Node);
            }
            return new OpenedImage(disk.Node, disk.Format, path, disk.WasProbed, graph);
        }
        catch
        {
            await graph.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private GraphBuilder Builder(OpenRequest request, ImageLocator locator, ImageGraph graph) => new(this, request, locator.Spec, graph);
}
