using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>Looks at bytes of a file, and moves them, with holes left alone.</summary>
internal static class StoredBytes
{
    private const int CopyBytes = 1 << 20;

    /// <summary>True if a range of the file holds nothing but zeroes; holes are not read.</summary>
    public static async ValueTask<bool> IsZeroAsync(BlockNode file, long offset, long length, CancellationToken cancellationToken)
        => await FirstDataAsync(file, offset, length, cancellationToken).ConfigureAwait(false) is null;

    /// <summary>The first byte of a range of the file that is not zero; null if there is none. Holes are not read.</summary>
    public static async ValueTask<long?> FirstDataAsync(BlockNode file, long offset, long length, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(CopyBytes);
        try
        {
            for (long end = Math.Min(offset + length, file.Length); offset < end;)
            {
                BlockExtent extent = await file.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
                long count = extent.Length;
                if (!extent.IsZero)
                {
                    count = Math.Min(count, CopyBytes);
                    await file.ReadAsync(offset, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                    if (!ZeroDetection.IsZero(buffer.AsSpan(0, (int)count)))
                    {
                        return offset + buffer.AsSpan(0, (int)count).IndexOfAnyExcept((byte)0);
                    }
                }
                offset += count;
            }
            return null;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Copies a range of the file; holes stay holes, and what lies past the end is zeroes.</summary>
    public static async ValueTask CopyAsync(BlockNode file, long from, long to, long length, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(CopyBytes);
        try
        {
            for (long done = 0; done < length;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long at = from + done, count = length - done;
                bool isZero = at >= file.Length;
                if (!isZero)
                {
                    BlockExtent extent = await file.GetExtentAsync(
                        at, Math.Min(count, file.Length - at), cancellationToken).ConfigureAwait(false);
                    (count, isZero) = (extent.Length, extent.IsZero);
                }
                if (isZero)
                {
                    await file.WriteZeroesAsync(to + done, count, cancellationToken: cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    count = Math.Min(count, CopyBytes);
                    await file.ReadAsync(at, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                    await file.WriteAsync(to + done, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                }
                done += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
