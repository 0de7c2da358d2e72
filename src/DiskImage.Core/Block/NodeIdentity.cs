namespace DiskImage.Block;

/// <summary>
/// What tells a place of bytes from every other, whatever name led to it: device and inode or file id for files, the canonical address for
/// what is reached otherwise. Two nodes of one identity are the same bytes. It holds while the file exists; later
/// the host may give it again.
/// </summary>
/// <param name="Text">Kind and numbers, for example <c>file:fd00:1a2b</c>. Not for users.</param>
public readonly record struct NodeIdentity(string Text);

/// <summary>Questions about a node and everything it stands on.</summary>
public static class NodeGraph
{
    /// <summary>The node, then everything below it.</summary>
    public static IEnumerable<BlockNode> SelfAndBelow(this BlockNode node)
    {
        ArgumentNullException.ThrowIfNull(node);
        return node.Children.Values.SelectMany(SelfAndBelow).Prepend(node);
    }

    /// <summary>
    /// The first node, from the top, whose bytes are those of an identity; null if there is none, as for a null identity.
    /// </summary>
    public static BlockNode? FindSame(this BlockNode node, NodeIdentity? identity)
        => identity is null ? null : node.SelfAndBelow().FirstOrDefault(n => n.Identity == identity);

    /// <summary>What a disk stands on, filters over either passed by; null if it stands alone.</summary>
    public static BlockNode? BackingNode(this BlockNode disk) => disk.Unfiltered().Child("backing");

    /// <summary>The first node from the top that is no filter.</summary>
    public static BlockNode Unfiltered(this BlockNode node)
    {
        while (node is FilterNode && node.Children.Values.FirstOrDefault() is { } below)
        {
            node = below;
        }
        return node;
    }

    /// <summary>The identity of the file that holds a disk's own layer: not of its data file, nor of what it stands on.</summary>
    public static NodeIdentity? HolderIdentity(this BlockNode disk)
    {
        BlockNode? node = disk;
        while (node is { Identity: null })
        {
            node = node.Child("file");
        }
        return node?.Identity;
    }
}
