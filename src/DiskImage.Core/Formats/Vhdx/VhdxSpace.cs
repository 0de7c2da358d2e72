using System.Numerics;
using System.Runtime.InteropServices;
using DiskImage.Binary;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Which MiB of the file are in use. The format has no such map: it is made from the regions and the BAT before a session's first
/// allocation, one bit per MiB.
/// </summary>
/// <remarks>
/// What the disk gives up is used again only after the flush that makes the giving up durable: until then it waits. Not
/// thread-safe: the image's metadata lock guards it.
/// </remarks>
internal sealed class VhdxSpace(string path)
{
    private const int WordBits = 64;

    private readonly List<(long Offset, long Length)> _waiting = [];
    private ulong[] _used = new ulong[16];
    private long _end, _free; // in MiB: past the last used one, and unused ones before it
    private long _hint, _failed = long.MaxValue; // where to look next; a length that was looked for in vain

    /// <summary>Where the last used MiB ends.</summary>
    public long End => _end * VhdxLayout.MiB;

    /// <summary>Bytes that wait for a flush.</summary>
    public long Waiting { get; private set; }

    /// <summary>Takes a range that is in use; false if a part of it is already.</summary>
    public bool TryMark(long offset, long length)
    {
        (long start, long end) = Units(offset, length);
        bool isFree = true;
        Require(end);
        for (long unit = start; unit < end; unit++)
        {
            ref ulong word = ref _used[unit / WordBits];
            ulong bit = 1UL << (int)(unit % WordBits);
            isFree &= (word & bit) == 0;
            _free -= unit < _end && (word & bit) == 0 ? 1 : 0;
            word |= bit;
        }
        if (end > _end)
        {
            _free += Math.Max(0, start - _end);
            _end = end;
        }
        return isFree;
    }

    /// <summary>True if any MiB of a range is in use.</summary>
    public bool IsUsed(long offset, long length)
    {
        (long start, long end) = Units(offset, length);
        for (long unit = start; unit < Math.Min(end, _end); unit++)
        {
            if ((_used[unit / WordBits] & (1UL << (int)(unit % WordBits))) != 0)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>Takes space for a block: a gap, or the end of the file.</summary>
    public long Allocate(long length)
    {
        long units = length / VhdxLayout.MiB;
        long at = FindGap(units, _end);
        at = at < 0 ? _end : at;
        _ = TryMark(at * VhdxLayout.MiB, length);
        return at * VhdxLayout.MiB;
    }

    /// <summary>The lowest gap that holds a length and ends at or before <paramref name="limit"/>; -1 if there is none. Takes it.</summary>
    public long AllocateBelow(long length, long limit)
    {
        _hint = 0;
        long at = FindGap(length / VhdxLayout.MiB, Math.Min(_end, limit / VhdxLayout.MiB));
        if (at < 0)
        {
            return -1;
        }
        _ = TryMark(at * VhdxLayout.MiB, length);
        return at * VhdxLayout.MiB;
    }

    /// <summary>Gives space back that nothing in the file refers to.</summary>
    public void Free(long offset, long length)
    {
        (long start, long end) = Units(offset, length);
        for (long unit = start; unit < Math.Min(end, _end); unit++)
        {
            ref ulong word = ref _used[unit / WordBits];
            ulong bit = 1UL << (int)(unit % WordBits);
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

    /// <summary>Gives space back once the file no longer refers to it.</summary>
    public void FreeAfterFlush(long offset, long length)
    {
        if (_waiting.Count > 0 && _waiting[^1] is (long before, long bytes) && before + bytes == offset)
        {
            _waiting[^1] = (before, bytes + length);
        }
        else
        {
            _waiting.Add((offset, length));
        }
        Waiting += length;
    }

    /// <summary>What was given up is durable: frees it, and tells what it is.</summary>
    public IReadOnlyList<(long Offset, long Length)> Release()
    {
        if (_waiting.Count == 0)
        {
            return [];
        }
        (long Offset, long Length)[] freed = [.. _waiting];
        _waiting.Clear();
        Waiting = 0;
        foreach ((long offset, long length) in freed)
        {
            Free(offset, length);
        }
        return freed;
    }

    /// <summary>The gaps before <see cref="End"/>, in order.</summary>
    public IEnumerable<(long Offset, long Length)> Gaps()
    {
        for (long at = NextUnused(0); at < _end;)
        {
            long end = NextUsed(at);
            yield return (at * VhdxLayout.MiB, (end - at) * VhdxLayout.MiB);
            at = NextUnused(end);
        }
    }

    /// <summary>Marks the MiB that a part of the BAT's bytes refer to, entry by entry. Returns the first entry that is wrong, and why.</summary>
    /// <param name="entries">A part of the BAT.</param>
    /// <param name="firstIndex">BAT index of its first entry.</param>
    /// <param name="geometry">The disk's.</param>
    /// <param name="fileLength">Bytes of the file.</param>
    /// <param name="isStrict">False to let pass what is already in use.</param>
    public (long Index, string Why)? MarkEntries(ReadOnlySpan<byte> entries, long firstIndex, VhdxGeometry geometry, long fileLength, bool isStrict)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(entries);
        for (int i = 0; i < words.Length; i++)
        {
            if (words[i] == 0)
            {
                int next = words[i..].IndexOfAnyExcept(0UL);
                if (next < 0)
                {
                    break;
                }
                i += next;
            }
            var entry = new BatEntry(LittleEndian.U64(entries, i * VhdxGeometry.EntryBytes));
            if (entry.FileOffset == 0 || entry.State is BlockState.Zero or BlockState.NotPresent)
            {
                continue;
            }
            bool isBitmap = geometry.IsBitmapIndex(firstIndex + i);
            if (!isBitmap && geometry.BlockAt(firstIndex + i) >= geometry.Blocks)
            {
                continue; // stale: behind the last block of a differencing disk's last chunk
            }
            if (entry.FileOffset < VhdxLayout.MiB)
            {
                return (firstIndex + i, $"names offset {entry.FileOffset:#,0}");
            }
            long length = isBitmap ? VhdxLayout.BitmapBlockSize : geometry.BlockSize;
            if (entry.FileOffset >= fileLength || (isBitmap && entry.FileOffset > fileLength - length))
            {
                return (firstIndex + i, $"names offset {entry.FileOffset:#,0}, past the end of the file's {fileLength:#,0} bytes");
            }
            if (!TryMark(entry.FileOffset, length) && isStrict)
            {
                return (firstIndex + i, $"names offset {entry.FileOffset:#,0}, where something else lies");
            }
        }
        return null;
    }

    private static (long Start, long End) Units(long offset, long length)
        => (offset / VhdxLayout.MiB, Round.Units(offset + length, VhdxLayout.MiB));

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

    /// <summary>The first unit at or after one that is used (or not, if inverted); the end if there is none.</summary>
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
        if (units > VhdxLayout.MaxFileSize / VhdxLayout.MiB)
        {
            throw VhdxLayout.Corrupt(path, $"a block reaches offset {units * (decimal)VhdxLayout.MiB:#,0}; allowed: at most {VhdxLayout.MaxFileSize:#,0}");
        }
        if (units > (long)_used.Length * WordBits)
        {
            Array.Resize(ref _used, (int)BitOperations.RoundUpToPowerOf2((ulong)((units / WordBits) + 1)));
        }
    }
}
