using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>
/// Hands out a disk in pieces of like extents, in order, to any number of workers: runs of zeroes whole, data in chunks.
/// </summary>
/// <param name="node">The disk.</param>
/// <param name="length">Bytes of it to hand out.</param>
/// <param name="chunk">Bytes of data per piece at most; a power of two. Pieces of data end at its multiples.</param>
/// <param name="byLayer">True to part what the top layer decides from what shows through.</param>
internal sealed class ExtentCursor(BlockNode node, long length, int chunk, bool byLayer = false) : IDisposable
{
    private readonly SemaphoreSlim _turn = new(1, 1); // guards the rest
    private long _offset;
    private BlockExtent _ahead; // looked up already; begins at _offset if its length is not 0

    /// <summary>The next piece: its bytes are alike in being zero or data, and, by layer, in who decides. Null at the end.</summary>
    public async ValueTask<BlockExtent?> NextAsync(CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_offset >= length)
            {
                return null;
            }
            BlockExtent piece = await TakeAsync(cancellationToken).ConfigureAwait(false);
            long room = piece.IsZero ? long.MaxValue : chunk - (piece.Offset & (chunk - 1));
            while (piece.Length < room && piece.End < length)
            {
                BlockExtent next = await TakeAsync(cancellationToken).ConfigureAwait(false);
                if (next.IsZero != piece.IsZero || (byLayer && IsOwn(next) != IsOwn(piece)))
                {
                    GiveBack(next);
                    break;
                }
                piece = piece with { Length = piece.Length + next.Length };
            }
            if (piece.Length > room)
            {
                GiveBack(piece with { Offset = piece.Offset + room, Length = piece.Length - room });
                piece = piece with { Length = room };
            }
            return piece;
        }
        finally
        {
            _ = _turn.Release();
        }
    }

    /// <summary>True if the top layer decides the extent.</summary>
    public static bool IsOwn(in BlockExtent extent) => extent.Depth == 0 && extent.IsAllocated;

    /// <inheritdoc/>
    public void Dispose() => _turn.Dispose();

    private async ValueTask<BlockExtent> TakeAsync(CancellationToken cancellationToken)
    {
        BlockExtent extent = _ahead.Length > 0
            ? _ahead
            : await node.GetExtentAsync(_offset, length - _offset, cancellationToken).ConfigureAwait(false);
        _ahead = default;
        _offset = extent.End;
        return extent;
    }

    private void GiveBack(BlockExtent extent) => (_ahead, _offset) = (extent, extent.Offset);
}
