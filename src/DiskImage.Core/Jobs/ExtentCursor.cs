using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>What is to be done with a piece of a disk.</summary>
internal enum PieceKind
{
    /// <summary>It must be read.</summary>
    Data,

    /// <summary>It reads as zeroes.</summary>
    Zero,

    /// <summary>None of the layers asked about decides it (only told apart when asked).</summary>
    Below,

    /// <summary>Data that lie somewhere as they are, at blocks of a file system (only told apart when asked).</summary>
    Plain,
}

/// <summary>A piece of a disk, in the order in which pieces were handed out.</summary>
internal readonly record struct Piece(long Number, long Offset, long Length, PieceKind Kind)
{
    public long End => Offset + Length;
}

/// <summary>Hands out a disk in pieces, in order, to any number of workers: runs of zeroes whole, data in chunks.</summary>
/// <param name="node">The disk.</param>
/// <param name="length">Bytes of it to hand out.</param>
/// <param name="chunk">Bytes of data per piece at most; a power of two. Pieces of data end at its multiples.</param>
/// <param name="grain">Pieces begin and end at multiples of this power of two, at most the chunk; what is mixed inside one is data.</param>
/// <param name="layers">So many layers from the top are told from those below; 0 to take the disk as one.</param>
/// <param name="zeroesAreData">True to hand out what reads as zeroes like data.</param>
internal sealed class ExtentCursor(
    BlockNode node, long length, int chunk, int grain = 1, int layers = 0, bool zeroesAreData = false) : IDisposable
{
    private readonly SemaphoreSlim _turn = new(1, 1); // guards the rest
    private long _offset, _number;
    private long _largestPlain;
    private BlockExtent _ahead; // looked up already; begins at _offset if its length is not 0
    private BlockExtent _last; // taken last

    /// <summary>Bytes of a piece of plain data at most; 0 to take it for data like any.</summary>
    public long LargestPlain
    {
        get => Volatile.Read(ref _largestPlain);
        set => Volatile.Write(ref _largestPlain, value);
    }

    /// <summary>
    /// What none of the layers asked about decides, and nothing below them, reads as zeroes and is told so: there one ends before the disk
    /// does, and hides what lies further below. Otherwise it is <see cref="PieceKind.Below"/> like the rest.
    /// </summary>
    public bool UndecidedIsZero { get; init; }

    /// <summary>Pieces of what lies below are handed out in chunks, as data are.</summary>
    public bool PartsBelow { get; init; }

    /// <summary>The next piece; null at the end.</summary>
    public async ValueTask<Piece?> NextAsync(CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_offset >= length)
            {
                return null;
            }
            long start = _offset;
            PieceKind kind = PieceKind.Data;
            long end = start;
            while (end < length)
            {
                BlockExtent next = await TakeAsync(cancellationToken).ConfigureAwait(false);
                PieceKind nextKind = KindOf(next);
                if (end == start)
                {
                    (kind, end) = (nextKind, next.End);
                }
                else if (nextKind == kind)
                {
                    end = next.End;
                }
                else if (kind != PieceKind.Data)
                {
                    GiveBack(next);
                    long whole = Round.Down(end, grain);
                    if (whole > start)
                    {
                        end = whole;
                        break;
                    }
                    kind = PieceKind.Data; // less than a grain of it: goes with what follows
                }
                else
                {
                    long boundary = Round.Up(end, grain);
                    if (next.End < length && next.End < boundary + grain)
                    {
                        end = next.End; // no whole grain of it: goes with the data
                    }
                    else
                    {
                        GiveBack(next);
                        end = Math.Min(boundary, length);
                        break;
                    }
                }
                if (end >= Limit(kind, start))
                {
                    break;
                }
            }
            end = Math.Min(end, Limit(kind, start));
            SeekTo(end);
            return new Piece(_number++, start, end - start, kind);
        }
        finally
        {
            _ = _turn.Release();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _turn.Dispose();

    private long Limit(PieceKind kind, long start) => kind switch
    {
        PieceKind.Data => ChunkEnd(start),
        PieceKind.Below when PartsBelow => ChunkEnd(start),
        PieceKind.Plain => start + Math.Max(LargestPlain, chunk),
        _ => long.MaxValue,
    };

    private long ChunkEnd(long start) => Round.Down(start, chunk) + chunk;

    private PieceKind KindOf(in BlockExtent extent)
        => layers > 0 && (extent.Depth >= layers || !(extent.IsAllocated || UndecidedIsZero)) ? PieceKind.Below
            : extent.IsZero && !zeroesAreData ? PieceKind.Zero
            : LargestPlain > 0 && IsPlain(extent) ? PieceKind.Plain
            : PieceKind.Data;

    private static bool IsPlain(in BlockExtent extent)
        => extent is { IsData: true, IsZero: false, Node: not null, HostOffset: long host }
            && ((host - extent.Offset) & (ISharing.Unit - 1)) == 0;

    private async ValueTask<BlockExtent> TakeAsync(CancellationToken cancellationToken)
    {
        BlockExtent extent = _ahead.Length > 0
            ? _ahead
            : await node.GetExtentAsync(_offset, length - _offset, cancellationToken).ConfigureAwait(false);
        _offset = extent.End;
        _ahead = default;
        _last = extent;
        return extent;
    }

    private void GiveBack(BlockExtent extent) => (_ahead, _offset) = (extent, extent.Offset);

    /// <summary>Goes on at an offset inside what was taken last, or inside what was given back.</summary>
    private void SeekTo(long offset)
    {
        BlockExtent known = _ahead.Length > 0 ? _ahead : _last;
        _ahead = offset > known.Offset && offset < known.End
            ? known with
            {
                Offset = offset, Length = known.End - offset, HostOffset = known.HostOffset + (offset - known.Offset),
            }
            : offset == known.Offset ? known : default;
        _offset = offset;
    }
}
