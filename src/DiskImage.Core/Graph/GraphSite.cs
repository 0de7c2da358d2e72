using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

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

/// <summary>Where in a graph a node is to be, and what holds there.</summary>
/// <param name="Chain">The images above it.</param>
/// <param name="Folder">Where relative paths of its description are taken from; null for the process's current folder.</param>
internal sealed record GraphSite(IReadOnlyList<ChainLink> Chain, string? Folder)
{
    /// <summary>It is to be written to.</summary>
    public bool Writable { get; init; }

    /// <summary>Others may be writing to it.</summary>
    public bool ForceShare { get; init; }

    /// <summary>Others may be writing to it also while it is written to (share-rw).</summary>
    public bool SharesWrites { get; init; }

    /// <summary>How writes reach the medium, here and below.</summary>
    public CachePolicy Cache { get; init; }

    /// <summary>Bytes are wanted, not a disk: nothing is probed.</summary>
    public bool IsBytes { get; init; }

    /// <summary>The format, if something else than its description names it.</summary>
    public string? Format { get; init; }

    /// <summary>Options of the format beside those of the description.</summary>
    public object? Options { get; init; }

    /// <summary>The image that names it, if it is not the user who does.</summary>
    public string? NamedBy { get; init; }

    /// <summary>Which of a request's images it is, for messages.</summary>
    public ImageRole Role { get; init; }

    /// <summary>What is to be done with it, and what others may do meanwhile.</summary>
    public Access AccessUnder(OpenPolicy policy) => Access.To(Writable, policy.ForceShare || ForceShare, SharesWrites);

    /// <summary>The same where a description has its own word. An image's word on the cache is not taken: flushes are the user's.</summary>
    public GraphSite For(NodeSpec spec) => this with
    {
        Cache = NamedBy is null ? spec.CacheUnder(Cache) : Cache,
        Writable = !spec.Switch(NodeSpec.ReadOnlyKey) && Writable, ForceShare = spec.Switch(NodeSpec.ForceShareKey) || ForceShare,
        SharesWrites = spec.Switch(NodeSpec.ShareWritesKey) || SharesWrites,
    };
}

/// <summary>A disk that was opened somewhere in a graph.</summary>
/// <param name="Node">The disk.</param>
/// <param name="Format">Its format; of a filter, what it filters.</param>
/// <param name="WasProbed">The format was found by probing.</param>
internal readonly record struct OpenedDisk(BlockNode Node, FormatDriver Format, bool WasProbed);
