namespace DiskImage.Block;

/// <summary>What a range of a node is made of. The terms are those of <c>qemu-img map</c>.</summary>
[Flags]
public enum BlockStatus
{
    /// <summary>This layer says nothing about the range: it falls through to the backing node, or reads as zeroes.</summary>
    None = 0,

    /// <summary>This layer decides the contents of the range.</summary>
    Allocated = 1,

    /// <summary>The range is known to read as zeroes.</summary>
    Zero = 2,

    /// <summary>The bytes of the range are stored somewhere.</summary>
    Data = 4,

    /// <summary>The range is stored compressed, so it has no plain host offset.</summary>
    Compressed = 8,
}

/// <summary>A run of a node with one status.</summary>
/// <param name="Offset">First byte, in the coordinates of the node that was asked.</param>
/// <param name="Length">Bytes, at least 1.</param>
/// <param name="Status">What the run is made of.</param>
/// <param name="Node">The node that holds the bytes, where they can be read at <paramref name="HostOffset"/>.</param>
/// <param name="HostOffset">
/// Where <paramref name="Node"/> keeps the first byte; absent when encoded or not stored. Of zeroes without data: the space reserved for
/// them, whatever it holds.
/// </param>
/// <param name="Depth">The layer that decides: 0 the node asked, 1 its backing node, and so on.</param>
public readonly record struct BlockExtent(
    long Offset, long Length, BlockStatus Status, BlockNode? Node = null, long? HostOffset = null, int Depth = 0)
{
    /// <summary>The offset just past the run.</summary>
    public long End => Offset + Length;

    /// <summary>The run reads as zeroes.</summary>
    public bool IsZero => (Status & BlockStatus.Zero) != 0;

    /// <summary>The run's bytes are stored.</summary>
    public bool IsData => (Status & BlockStatus.Data) != 0;

    /// <summary>Some layer decides the run's contents.</summary>
    public bool IsAllocated => (Status & BlockStatus.Allocated) != 0;

    /// <summary>The run is stored compressed.</summary>
    public bool IsCompressed => (Status & BlockStatus.Compressed) != 0;

    /// <summary>True if <paramref name="next"/> carries this run on: same status, node and depth, and adjacent on both sides.</summary>
    public bool IsContinuedBy(in BlockExtent next)
        => next.Offset == End && next.Status == Status && next.Depth == Depth && ReferenceEquals(next.Node, Node)
            && (HostOffset is long host ? next.HostOffset == host + Length : next.HostOffset is null);
}
