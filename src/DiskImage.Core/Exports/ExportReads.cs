using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>
/// Answers reads of one client. Where answers come in pieces, what is known to be zeroes is told and not sent.
/// </summary>
/// <param name="node">The disk.</param>
/// <param name="session">How answers look.</param>
internal sealed class ExportReads(BlockNode node, NbdServerSession session)
{
    private const int MostPieces = 8; // of one answer; the last has all the rest. Ours
    private const int SmallestHole = 4096; // smaller ones are sent: a piece costs more. Ours
    private const long LookAhead = 64L << 20; // for where data end. Ours

    private DataRun? _data; // found last. What was data may be read as data for ever

    /// <summary>Bytes that the answer to a read has at the most.</summary>
    public static int Longest(int length) => length + (MostPieces * NbdServerSession.LongestHead);

    /// <summary>Reads, and makes the answer.</summary>
    /// <param name="asked">What is read.</param>
    /// <param name="answer">Where the answer goes, <see cref="Longest"/> bytes.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>How many bytes it has.</returns>
    /// <exception cref="DiskImageException">It cannot be read.</exception>
    public async ValueTask<int> AnswerAsync(NbdAsked asked, Memory<byte> answer, CancellationToken cancellationToken)
    {
        long offset = (long)asked.Offset, end = offset + (long)asked.Length;
        bool isWhole = !session.IsStructured || asked.Length < SmallestHole || asked.Flags.HasFlag(NbdCommandFlags.DontFragment);
        int used = 0;
        for (int count = 1; offset < end || used == 0; count++)
        {
            NbdPiece piece = isWhole || count == MostPieces
                ? new NbdPiece(offset, (int)(end - offset), IsHole: false)
                : await NextAsync(offset, end, cancellationToken).ConfigureAwait(false);
            offset += piece.Length;
            int head = session.PieceHead(piece.IsHole);
            session.AnswerPiece(asked, piece, offset == end, answer.Span[used..]);
            used += head;
            if (!piece.IsHole)
            {
                await node.ReadAsync(piece.Offset, answer.Slice(used, piece.Length), cancellationToken).ConfigureAwait(false);
                used += piece.Length;
            }
        }
        return used;
    }

    /// <summary>The run that begins at an offset: a hole, or data up to the next one that is large enough.</summary>
    private async ValueTask<NbdPiece> NextAsync(long offset, long end, CancellationToken cancellationToken)
    {
        long at = offset;
        while (at < end)
        {
            if (Volatile.Read(ref _data) is { } known && known.Start <= at && at < known.End)
            {
                at = Math.Min(end, known.End);
                continue;
            }
            long most = Math.Min(node.Length - at, Math.Max(LookAhead, end - at));
            BlockExtent extent = await node.GetExtentAsync(at, most, cancellationToken).ConfigureAwait(false);
            long stop = Math.Min(end, extent.End);
            if (extent.IsZero && stop - at >= SmallestHole)
            {
                return at == offset
                    ? new NbdPiece(at, (int)(stop - at), IsHole: true)
                    : new NbdPiece(offset, (int)(at - offset), IsHole: false);
            }
            if (!extent.IsZero)
            {
                Volatile.Write(ref _data, new DataRun(at, extent.End));
            }
            at = stop;
        }
        return new NbdPiece(offset, (int)(end - offset), IsHole: false);
    }

    private sealed record DataRun(long Start, long End);
}
