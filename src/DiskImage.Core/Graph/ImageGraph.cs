using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>
/// The open nodes of one image. The disk at the top owns what it stands on; what has a name that others refer to is the graph's, and
/// whoever stands on it borrows it. Closing closes the disk first, then the named nodes, the last opened first: all of it, whatever fails.
/// </summary>
public sealed class ImageGraph : IAsyncDisposable
{
    private readonly List<(string Name, BlockNode Node)> _named = [];
    private BlockNode? _root;
    private bool _isClosed;

    /// <summary>The disk at the top.</summary>
    public BlockNode Root => _root ?? throw new InvalidOperationException("The graph is not complete.");

    /// <summary>
    /// The nodes that descriptions refer to by name; of those of one name in several descriptions, the one that was opened first.
    /// </summary>
    public IReadOnlyDictionary<string, BlockNode> Named
        => _named.DistinctBy(n => n.Name, StringComparer.Ordinal).ToDictionary(n => n.Name, n => n.Node, StringComparer.Ordinal);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (!_isClosed)
        {
            _isClosed = true;
            await Closing.AllAsync(Enumerable.Reverse(_named).Select(n => n.Node).Prepend(_root).OfType<BlockNode>().Select(
                node => (Func<ValueTask>)node.DisposeAsync))
                .ConfigureAwait(false);
        }
    }

    internal void Complete(BlockNode root) => _root = root;

    internal void Add(string name, BlockNode node) => _named.Add((name, node));
}
