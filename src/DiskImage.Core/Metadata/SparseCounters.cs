using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Counts references to units of a file: a byte per unit in pages that exist only where something is counted, and a table for the
/// rare counts that a byte does not hold. Memory follows what is referenced, not what offsets claim.
/// </summary>
internal sealed class SparseCounters(string path)
{
    private const int PageBits = 8, PageSize = 1 << PageBits;
    private const int MaxPages = 4 << 20; // ours: a gigabyte of counters
    private const byte InTable = byte.MaxValue;

    private readonly Dictionary<long, byte[]> _pages = [];
    private readonly Dictionary<long, ulong> _large = [];
    private long _lastIndex = -1;
    private byte[]? _last;

    /// <summary>How often a unit was counted.</summary>
    public ulong this[long unit]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get
        {
            byte[]? page = unit >> PageBits == _lastIndex ? _last : Page(unit, create: false);
            byte count = page is null ? (byte)0 : page[unit & (PageSize - 1)];
            return count == InTable ? _large[unit] : count;
        }
    }

    /// <summary>The units of the pages that exist lie in these ranges, in order.</summary>
    public IEnumerable<(long First, long Count)> Ranges => _pages.Keys.Order().Select(p => (p << PageBits, (long)PageSize));

    /// <summary>One past the highest unit that was counted; 0 if none was.</summary>
    public long End
    {
        get
        {
            if (_pages.Count == 0)
            {
                return 0;
            }
            long last = _pages.Keys.Max();
            return (last << PageBits) + _pages[last].AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        }
    }

    /// <summary>Counts one more reference, or several; returns the new count.</summary>
    public ulong Add(long unit, ulong times = 1)
    {
        byte[] page = (unit >> PageBits == _lastIndex ? _last : null) ?? Page(unit, create: true)!;
        ref byte count = ref page[unit & (PageSize - 1)];
        if (times < (ulong)(InTable - count))
        {
            return count += (byte)times;
        }
        ulong sum = times + (count == InTable ? _large[unit] : count);
        _large[unit] = sum;
        count = InTable;
        return sum;
    }

    /// <summary>Counts one more reference to each of several units that follow each other.</summary>
    public void AddRun(long first, int count)
    {
        while (count > 0)
        {
            int within = (int)(first & (PageSize - 1)), part = Math.Min(count, PageSize - within);
            Span<byte> counters = Page(first, create: true).AsSpan(within, part);
            if (counters.IndexOfAnyInRange((byte)(InTable - 1), InTable) >= 0)
            {
                for (int i = 0; i < part; i++)
                {
                    _ = Add(first + i);
                }
            }
            else
            {
                Span<Vector<byte>> vectors = MemoryMarshal.Cast<byte, Vector<byte>>(counters);
                for (int i = 0; i < vectors.Length; i++)
                {
                    vectors[i] += Vector<byte>.One;
                }
                foreach (ref byte counter in counters[(vectors.Length * Vector<byte>.Count)..])
                {
                    counter++;
                }
            }
            (first, count) = (first + part, count - part);
        }
    }

    /// <summary>True if each of several units that follow each other was counted so often.</summary>
    /// <param name="first">The first unit.</param>
    /// <param name="count">How many.</param>
    /// <param name="times">0 to 254.</param>
    public bool AreAll(long first, int count, byte times)
    {
        while (count > 0)
        {
            int within = (int)(first & (PageSize - 1)), part = Math.Min(count, PageSize - within);
            byte[]? page = first >> PageBits == _lastIndex ? _last : Page(first, create: false);
            if (page is null ? times != 0 : page.AsSpan(within, part).ContainsAnyExcept(times))
            {
                return false;
            }
            (first, count) = (first + part, count - part);
        }
        return true;
    }

    private byte[]? Page(long unit, bool create)
    {
        long index = unit >> PageBits;
        if (!_pages.TryGetValue(index, out byte[]? page))
        {
            if (!create)
            {
                (_lastIndex, _last) = (index, null); // also that there is none is worth knowing
                return null;
            }
            if (_pages.Count == MaxPages)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{path}: its tables refer to places scattered over more than "
                        + $"{(long)MaxPages * PageSize:#,0} clusters, too many to check",
                    path);
            }
            page = new byte[PageSize];
            _pages.Add(index, page);
        }
        (_lastIndex, _last) = (index, page);
        return page;
    }
}
