namespace DiskImage.Block;

/// <summary>Where a format lets a write go.</summary>
/// <param name="Offset">First byte of the covered part of the request, in the disk's coordinates.</param>
/// <param name="Length">Bytes covered, at least 1; the rest of the request is asked for again.</param>
/// <param name="Node">The node to write to.</param>
/// <param name="HostOffset">Where <paramref name="Offset"/> lives in it.</param>
/// <param name="IsNew">
/// False: the place already is the disk's own, write and be done. True: nothing refers to it yet. The whole of
/// [<paramref name="CopyStart"/>, <paramref name="CopyEnd"/>) must be written before the mapping is committed.
/// </param>
/// <param name="CopyStart">Where the new place begins, at or before <paramref name="Offset"/>.</param>
/// <param name="CopyEnd">Where the new place ends, possibly past the end of the disk.</param>
/// <param name="HostReadsZero">The new place is known to read as zeroes, so zeroes need not be written to it.</param>
internal readonly record struct WriteMapping(
    long Offset, long Length, BlockNode Node, long HostOffset, bool IsNew, long CopyStart, long CopyEnd, bool HostReadsZero)
{
    /// <summary>A place that already belongs to the disk.</summary>
    public static WriteMapping InPlace(long offset, long length, BlockNode node, long hostOffset)
        => new(offset, length, node, hostOffset, IsNew: false, offset, offset + length, HostReadsZero: false);

    /// <summary>Where <see cref="CopyStart"/> lives in <see cref="Node"/>.</summary>
    public long HostStart => HostOffset - (Offset - CopyStart);
}
