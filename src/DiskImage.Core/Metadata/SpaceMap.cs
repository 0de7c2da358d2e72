using System.Numerics;
using DiskImage.Binary;

namespace DiskImage.Metadata;

/// <summary>
/// Which units of a file are taken, for formats that keep no such map themselves: made from their structures and tables before a
/// session's first change, one bit a unit.
/// </summary>
/// <remarks>
/// A range that is no multiple of units takes every unit that it touches. The session's lock guards it.
/// </remarks>
/// <param name="unit">Bytes of a unit: a power of two.</param>
/// <param name="maximum">Bytes of a file at most: the reach of the format.</param>
/// <param name="tooLong">The error for a range beyond that.</param>
internal sealed class SpaceMap(long unit, long maximum, Func<long, Exception> tooLong) : FileSpace
{
    private const int WordBits = 64;

    private ulong[] _used = new ulong[16];
    private long _end, _free; // in units: past the last taken one, and free ones before it
    private long _hint, _failed = long.MaxValue; // where to look next; a length that was looked for in vain

    /// <summary>Bytes of a unit.</summary>
    public long Unit => unit;

    /// <summary>Where the last unit that is taken ends.</summary>
    public long End => _end * unit;

    /// <summary>Takes a range; false if a unit of it was taken already.</summary>
    public bool TryMark(long offset, long length)
    {
        (long start, long end) = Units(offset, length);
        bool isFree = true;
        Require(end);
        for (long at = start; at < end; at++)
        {
            ref ulong word = ref _used[at / WordBits];
            ulong bit = 1UL << (int)(at % WordBits);
            isFree &= (word & bit) == 0;
            _free -= at < _end && (word & bit) == 0 ? 1 : 0;
            word |= bit;
        }
        if (end > _end)
        {
            _free += Math.Max(0, start - _end);
            _end = end;
        }
        return isFree;
    }

    /// <summary>True if any unit of a range is taken.</summary>
    public bool IsUsed(long offset, long length)
    {
        (long start, long end) = Units(offset, length);
        return NextUsed(start) < Math.Min(end, _end);
    }

    /// <summary>Takes space: the first gap that holds it, or the end of the file.</summary>
    public long Allocate(MetadataSession.Held held, long length)
    {
        _ = held; // the proof is all that is wanted
        long at = FindGap(Round.Units(length, unit), _end);
        return Take(at < 0 ? _end : at, length);
    }

    /// <summary>The lowest gap that holds a length and ends at or before a limit; -1 if there is none. Takes it.</summary>
    public long AllocateBelow(MetadataSession.Held held, long length, long limit)
    {
        _ = held;
        _hint = 0;
        long at = FindGap(Round.Units(length, unit), Math.Min(_end, limit / unit));
        return at < 0 ? -1 : Take(at, length);
    }

    public override ValueTask FreeAsync(MetadataSession.Held held, long offset, long length)
    {
        Free(held, offset, length);
        return default;
    }

    /// <summary>Gives space back that nothing in the file, as it is on the disk, refers to.</summary>
    public void Free(MetadataSession.Held held, long offset, long length)
    {
        _ = held;
        (long start, long end) = Units(offset, length);
        for (long at = start; at < Math.Min(end, _end); at++)
        {
            ref ulong word = ref _used[at / WordBits];
            ulong bit = 1UL << (int)(at % WordBits);
            _free += (word & bit) != 0 ? 1 : 0;
            word &= ~bit;
        }
        while (_end > 0 && (_used[(_end - 1) / WordBits] & (1UL << (int)((_end - 1) % WordBits))) == 0)
        {
            _end--;
            _free--;
        }
        (_hint, _failed) = (Math.Min(_hint, start), long.MaxValue);
    }

    /// <summary>The gaps before <see cref="End"/>, in order.</summary>
    public IEnumerable<FileRange> Gaps()
    {
        for (long at = NextUnused(0); at < _end;)
        {
            long end = NextUsed(at);
            yield return new(at * unit, end * unit);
            at = NextUnused(end);
        }
    }

    private long Take(long at, long length)
    {
        _ = TryMark(at * unit, length);
        return at * unit;
    }

    private (long Start, long End) Units(long offset, long length) => (offset / unit, Round.Units(offset + length, unit));

    private long FindGap(long units, long limit)
    {
        if (_free < units || units >= _failed)
        {
            return -1;
        }
        for (long at = NextUnused(_hint); at < limit;)
        {
            long end = Math.Min(NextUsed(at), limit);
            if (end - at >= units)
            {
                _hint = at + units;
                return at;
            }
            at = NextUnused(end);
        }
        if (_hint > 0)
        {
            _hint = 0;
            return FindGap(units, limit);
        }
        _failed = limit == _end ? units : _failed;
        return -1;
    }

    private long NextUnused(long from) => Next(from, inverted: true);

    private long NextUsed(long from) => Next(from, inverted: false);

    /// <summary>The first unit at or after one that is taken (or not, if inverted); the end if there is none.</summary>
    private long Next(long from, bool inverted)
    {
        while (from < _end)
        {
            ulong word = _used[from / WordBits];
            word = (inverted ? ~word : word) >> (int)(from % WordBits);
            if (word != 0)
            {
                return Math.Min(_end, from + BitOperations.TrailingZeroCount(word));
            }
            from = Round.Down(from, WordBits) + WordBits;
        }
        return _end;
    }

    private void Require(long units)
    {
        if (units > maximum / unit)
        {
            throw tooLong(units * unit);
        }
        if (units > (long)_used.Length * WordBits)
        {
            Array.Resize(ref _used, (int)BitOperations.RoundUpToPowerOf2((ulong)((units / WordBits) + 1)));
        }
    }
}
