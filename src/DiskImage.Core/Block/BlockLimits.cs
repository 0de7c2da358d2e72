namespace DiskImage.Block;

/// <summary>What a node likes its callers to respect. None of it is an obligation: ignoring it costs speed, not correctness.</summary>
/// <param name="AllocationUnit">Bytes that are allocated together (a cluster, a block); 1 where there is no such unit.</param>
/// <param name="OptimalTransfer">Bytes per request that move data best.</param>
/// <param name="InFlight">Requests at once that keep it busy, where waiting for one is no work: a server. 0 where the
/// processors decide.</param>
public sealed record BlockLimits(int AllocationUnit = 1, int OptimalTransfer = 1 << 20, int InFlight = 0)
{
    /// <summary>No preferences.</summary>
    public static BlockLimits None { get; } = new();
}

/// <summary>How a request to write zeroes may be carried out.</summary>
public enum ZeroWriteMode
{
    /// <summary>
    /// The layer keeps the space it has, and itself decides the range afterwards: it reads as zeroes whatever backing image the layer is
    /// put on.
    /// </summary>
    KeepAllocated,

    /// <summary>Space may be given back, as long as the range reads as zeroes over the present backing image.</summary>
    MayUnmap,
}

/// <summary>How much of new space is claimed from the host ahead of its use.</summary>
public enum PreallocationMode
{
    /// <summary>Nothing: space is claimed as data arrives.</summary>
    Off,

    /// <summary>The format's own tables are complete; data space is reserved in them but stays a hole in the host file.</summary>
    Metadata,

    /// <summary>Host space is reserved without being written.</summary>
    Falloc,

    /// <summary>Every byte is written.</summary>
    Full,
}
