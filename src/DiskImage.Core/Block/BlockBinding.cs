namespace DiskImage.Block;

/// <summary>
/// What the requests that reach a node must keep to: a disk that is read around the host's cache, a device, a server. The public members
/// of <see cref="BlockNode"/> see to it, so callers need not know: they split, align, bounce, and read what a partial unit also holds.
/// </summary>
/// <param name="RequestAlignment">
/// Offset and length of a request are multiples of it; a power of two, 0 and 1 mean any. A node whose length is no multiple lets requests
/// reach past its end to the next one: reads give zeroes there, and what is written there is dropped.
/// </param>
/// <param name="MemoryAlignment">The address of a request's first byte is a multiple of it; a power of two, 0 and 1 mean any.</param>
/// <param name="MaximumTransfer">Bytes that one read or write moves at most, at least
/// <paramref name="RequestAlignment"/>; 0 means any.</param>
/// <param name="MaximumZeroes">Bytes that one request to zero or discard covers at most; 0 means any.</param>
public readonly record struct BlockBinding(
    int RequestAlignment = 0, int MemoryAlignment = 0, int MaximumTransfer = 0, long MaximumZeroes = 0)
{
    /// <summary>Bytes of the longest request that keeps to it.</summary>
    public int LargestTransfer
    {
        get
        {
            int unit = Math.Max(1, RequestAlignment);
            return MaximumTransfer == 0 ? int.MaxValue / unit * unit : Math.Max(unit, MaximumTransfer / unit * unit);
        }
    }

    /// <summary>True if any request will do.</summary>
    public bool IsFree => this is { RequestAlignment: <= 1, MemoryAlignment: <= 1, MaximumTransfer: 0, MaximumZeroes: 0 };
}
