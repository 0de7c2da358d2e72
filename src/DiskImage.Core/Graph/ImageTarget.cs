using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// How a new image comes to be: the file that holds it and those that it names, each where <see cref="TargetMode"/> puts it until all are
/// complete. The files that are named take their places first, the one that names them last; if one cannot, those before it are taken back.
/// Where they replace others, what named those is taken away first: a crash never leaves an old image that leads to new files.
/// </summary>
/// <remarks>
/// Renamed, in place, sent to a stream: these are kinds of <see cref="PendingNode"/>, and nothing here asks how a place is taken.
/// </remarks>
internal sealed class ImageTarget : IAsyncDisposable
{
    private readonly List<PendingNode> _companions = [];
    private readonly Dictionary<string, PendingNode> _byAddress = new(StringComparer.Ordinal);
    private readonly List<DeferredFlushNode> _open = []; // those that the format writes to
    private readonly PendingNode _image;
    private readonly CachePolicy _cache;

    private ImageTarget(PendingNode image, CachePolicy cache)
    {
        (_image, _cache) = (image, cache);
        File = Deferred(image.Node);
    }

    /// <summary>Where the image is to be.</summary>
    public StoragePlace Place => _image.Place;

    /// <summary>One of its files is to take the place of another.</summary>
    public bool Replaces => _companions.Append(_image).Any(Replacing);

    /// <inheritdoc cref="PendingNode.Behind"/>
    public long Behind => _image.Behind;

    /// <summary>The file that is to hold it.</summary>
    public BlockNode File { get; }

    /// <summary>Takes a place for the image's own file.</summary>
    public static async ValueTask<ImageTarget> BeginAsync(
        IStorage storage, StoragePlace place, StorageTraits traits, CachePolicy cache, CancellationToken cancellationToken)
        => new(await storage.BeginAsync(place, traits, cancellationToken).ConfigureAwait(false), cache);

    /// <summary>Takes a place for a file that the image is going to name. Whoever gets the node closes it.</summary>
    /// <param name="storage">Who takes it.</param>
    /// <param name="place">The place.</param>
    /// <param name="traits">What the file is to be like.</param>
    /// <param name="address">Where the image has it, to open it again by.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<BlockNode> AddAsync(
        IStorage storage, StoragePlace place, StorageTraits traits, string address, CancellationToken cancellationToken)
    {
        PendingNode companion = await storage.BeginAsync(place, traits, cancellationToken).ConfigureAwait(false);
        _companions.Add(companion);
        _byAddress[address] = companion;
        return Deferred(companion.Node);
    }

    /// <summary>Opens the image's own file again, after it was closed.</summary>
    public ValueTask<BlockNode> OpenAsync(CancellationToken cancellationToken) => _image.OpenAsync(writable: false, cancellationToken);

    /// <summary>Opens a file again that was added; null if the address is of none.</summary>
    public async ValueTask<BlockNode?> TryOpenAsync(string address, bool writable, CancellationToken cancellationToken)
    {
        if (!_byAddress.TryGetValue(address, out PendingNode? companion))
        {
            return null;
        }
        BlockNode node = await companion.OpenAsync(writable, cancellationToken).ConfigureAwait(false);
        return writable ? Deferred(node) : node;
    }

    /// <summary>From now on what is flushed is durable, and so is what is closed, unless the user wants no flush at all.</summary>
    public void EndDeferral() => _open.ForEach(node => node.IsDeferring = _cache.NoFlush);

    /// <summary>All files take their places. They must be closed.</summary>
    /// <exception cref="DiskImageException">One cannot: then none has.</exception>
    public async ValueTask PublishAsync(bool durable, CancellationToken cancellationToken)
    {
        var published = new Stack<PendingNode>();
        try
        {
            if (_companions.Any(Replacing))
            {
                published.Push(_image);
                _image.SetAside();
            }
            foreach (PendingNode node in _companions.Append(_image))
            {
                published.Push(node);
                await node.PublishAsync(durable, revocable: !ReferenceEquals(node, _image), cancellationToken).ConfigureAwait(false);
            }
        }
        catch
        {
            while (published.TryPop(out PendingNode? node))
            {
                node.Withdraw();
            }
            throw;
        }
    }

    /// <summary>Closes and removes what is not published, all of it.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (PendingNode node in _companions.Append(_image)) // whose folder may go with it
        {
            await node.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static bool Replacing(PendingNode node) => node.Place is { Present: not null, Mode: TargetMode.Replace };

    private DeferredFlushNode Deferred(BlockNode node)
    {
        var deferred = new DeferredFlushNode(node) { IsDeferring = !_cache.WriteThrough };
        _open.Add(deferred);
        return deferred;
    }
}
