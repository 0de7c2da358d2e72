using System.Runtime.CompilerServices;
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
