using System.Security.Cryptography;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>Hashes what a disk reads as, holes included, so that it equals the hash of the raw image.</summary>
public sealed class HashJob(BlockNode node, HashAlgorithmName algorithm) : BlockJob<byte[]>
{
    private const int Chunk = 1 << 20;

    /// <inheritdoc/>
    public override async Task<byte[]> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        using var hash = IncrementalHash.CreateHash(algorithm);
        byte[] buffer = new byte[Chunk];
        byte[] zeroes = new byte[Chunk];
        using var cursor = new ExtentCursor(node, node.Length, Chunk);
        while (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is { } piece)
        {
            if (piece.Kind == PieceKind.Data)
            {
                await node.ReadAsync(piece.Offset, buffer.AsMemory(0, (int)piece.Length), cancellationToken).ConfigureAwait(false);
            }
            for (long left = piece.Length; left > 0; left -= Chunk)
            {
                cancellationToken.ThrowIfCancellationRequested();
                hash.AppendData(piece.Kind == PieceKind.Zero ? zeroes : buffer, 0, (int)Math.Min(left, Chunk));
                progress?.Report(new JobProgress("Hash", Math.Min(piece.End, piece.End - left + Chunk), node.Length));
            }
        }
        return hash.GetHashAndReset();
    }
}
