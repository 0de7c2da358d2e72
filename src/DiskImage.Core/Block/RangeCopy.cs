using System.Buffers;

namespace DiskImage.Block;

/// <summary>Copies bytes from one node to another by reading and writing, in bounded memory.</summary>
internal static class RangeCopy
{
    private const int Most = 1 << 20; // bytes at a time. Ours

    public static async ValueTask RunAsync(
        BlockNode source, long sourceOffset, BlockNode target, long offset, long length, CancellationToken cancellationToken)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent((int)Math.Min(length, Most));
        try
        {
            for (long done = 0; done < length;)
            {
                Memory<byte> part = rented.AsMemory(0, (int)Math.Min(Most, length - done));
                await source.ReadAsync(sourceOffset + done, part, cancellationToken).ConfigureAwait(false);
                await target.WriteAsync(offset + done, part, cancellationToken).ConfigureAwait(false);
                done += part.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }
}
