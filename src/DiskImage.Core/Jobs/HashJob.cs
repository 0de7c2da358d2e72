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
        byte[] zeroes = new byte[Chunk];
        using var cursor = new ExtentCursor(node, node.Length, Chunk);
        int depth = ParallelWork.WorkersFor(node) + 1; // whoever reads, decodes or waits, does it beside the hash
        var ahead = new Queue<(Piece Piece, byte[]? Buffer, Task Read)>(depth);
        var free = new Stack<byte[]>(depth);
        try
        {
            for (bool isEnd = false; !isEnd || ahead.Count > 0;)
            {
                while (!isEnd && ahead.Count < depth)
                {
                    if (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is not { } next)
                    {
                        isEnd = true;
                        break;
                    }
                    byte[]? buffer = next.Kind == PieceKind.Zero ? null : free.TryPop(out byte[]? used) ? used : new byte[Chunk];
                    ahead.Enqueue((next, buffer, buffer is null
                        ? Task.CompletedTask
                        : Task.Run(() => ReadAsync(next, buffer), CancellationToken.None)));
                }
                if (ahead.TryDequeue(out (Piece Piece, byte[]? Buffer, Task Read) first))
                {
                    await first.Read.ConfigureAwait(false);
                    Append(first.Piece, first.Buffer ?? zeroes);
                    if (first.Buffer is not null)
                    {
                        free.Push(first.Buffer);
                    }
                }
            }
        }
        finally
        {
            // whatever stopped it: when it returns nothing is read any more
            await Task.WhenAll(ahead.Select(a => a.Read)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        return hash.GetHashAndReset();

        async Task ReadAsync(Piece piece, byte[] buffer)
            => await node.ReadAsync(piece.Offset, buffer.AsMemory(0, (int)piece.Length), cancellationToken).ConfigureAwait(false);

        void Append(Piece piece, byte[] bytes)
        {
            for (long left = piece.Length; left > 0; left -= Chunk)
            {
                cancellationToken.ThrowIfCancellationRequested();
                hash.AppendData(bytes, 0, (int)Math.Min(left, Chunk));
                progress?.Report(new JobProgress("Hash", Math.Min(piece.End, piece.End - left + Chunk), node.Length));
            }
        }
    }
}
