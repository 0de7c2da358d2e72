using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>
/// How many blocks of a new image the contents of a disk would take, by what the disk says about itself: nothing is read.
/// </summary>
internal static class DataBlocks
{
    /// <summary>Refuses to measure a differencing disk: what it leaves to its parent is not known ahead.</summary>
    /// <param name="backingFile">The backing file that is asked for; null for none.</param>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static void RequireNoParent(string? backingFile)
    {
        if (backingFile is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"How large a differencing disk on '{backingFile}' becomes is known only when it is made. Measure without "
                    + $"backing_file for a disk that stands alone.");
        }
    }

    /// <summary>The same with the tables that lead to the blocks.</summary>
    /// <param name="source">The disk; null for an empty one.</param>
    /// <param name="blockSize">Bytes of a block.</param>
    /// <param name="span">Bytes of the disk that one table covers: a multiple of <paramref name="blockSize"/>.</param>
    /// <param name="cancellationToken">Stops the count.</param>
    public static async ValueTask<(long Blocks, long Tables)> CountAsync(
        BlockNode? source, long blockSize, long span, CancellationToken cancellationToken)
    {
        long blocks = 0, tables = 0, lastTable = -1;
        for (long offset = 0; source is not null && offset < source.Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent extent = await source.GetExtentAsync(offset, source.Length - offset, cancellationToken).ConfigureAwait(false);
            long end = extent.End;
            if (extent is { IsZero: false, IsAllocated: true })
            {
                end = checked(end + (blockSize - 1)) / blockSize * blockSize;
                blocks += (end / blockSize) - (offset / blockSize);
                long first = Math.Max(lastTable + 1, offset / span);
                lastTable = (end - 1) / span;
                tables += Math.Max(0, lastTable - first + 1);
            }
            offset = end;
        }
        return (blocks, tables);
    }

    /// <summary>Counts the blocks that hold at least one byte that is not known to be zero.</summary>
    /// <param name="source">The disk.</param>
    /// <param name="blockSize">Bytes of a block.</param>
    /// <param name="cancellationToken">Stops the count.</param>
    public static async ValueTask<long> CountAsync(BlockNode source, long blockSize, CancellationToken cancellationToken)
        => (await CountAsync(source, blockSize, blockSize, cancellationToken).ConfigureAwait(false)).Blocks;
}
