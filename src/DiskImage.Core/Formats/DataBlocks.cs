using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>How many blocks of a new image the contents of a disk would take, by what the disk says about itself: nothing is read.</summary>
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
                $"How large a differencing disk on '{backingFile}' becomes is known only when it is made. Measure without backing_file for a disk that stands alone.");
        }
    }

    /// <summary>Counts the blocks that hold at least one byte that is not known to be zero.</summary>
    /// <param name="source">The disk.</param>
    /// <param name="blockSize">Bytes of a block: a power of two.</param>
    /// <param name="cancellationToken">Stops the count.</param>
    public static async ValueTask<long> CountAsync(BlockNode source, long blockSize, CancellationToken cancellationToken)
    {
        long blocks = 0;
        for (long offset = 0; offset < source.Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent extent = await source.GetExtentAsync(offset, source.Length - offset, cancellationToken).ConfigureAwait(false);
            long end = extent.End;
            if (extent is { IsZero: false, IsAllocated: true })
            {
                end = Round.Up(end, blockSize);
                blocks += (end - Round.Down(offset, blockSize)) / blockSize;
            }
            offset = end;
        }
        return blocks;
    }
}
