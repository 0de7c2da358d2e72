using System.Buffers;

namespace DiskImage.Block;

/// <summary>Requests to a node whose bytes are under a cipher.</summary>
internal static class SectorCipherRequests
{
    /// <summary>Reads bytes, which are zeroes under the cipher past the node's end.</summary>
    /// <param name="cipher">The cipher.</param>
    /// <param name="node">The node.</param>
    /// <param name="host">Where in it they are.</param>
    /// <param name="offset">The offset that the cipher counts sectors from.</param>
    /// <param name="buffer">Gets the plain bytes.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask ReadAsync(
        this ISectorCipher cipher, BlockNode node, long host, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await node.ReadPaddedAsync(host, buffer, cancellationToken).ConfigureAwait(false);
        cipher.Decrypt(buffer.Span, offset);
    }

    /// <summary>Writes bytes. The caller's stay as they are.</summary>
    /// <param name="cipher">The cipher.</param>
    /// <param name="node">The node.</param>
    /// <param name="host">Where in it they go.</param>
    /// <param name="offset">The offset that the cipher counts sectors from.</param>
    /// <param name="data">The plain bytes.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask WriteAsync(
        this ISectorCipher cipher, BlockNode node, long host, long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent(data.Length);
        try
        {
            Memory<byte> encrypted = rented.AsMemory(0, data.Length);
            data.CopyTo(encrypted);
            cipher.Encrypt(encrypted.Span, offset);
            await node.WriteAsync(host, encrypted, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }
}
