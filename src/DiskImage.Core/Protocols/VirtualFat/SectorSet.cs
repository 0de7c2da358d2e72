using System.Numerics;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// Which sectors of a disk something holds for. It takes as much memory as there are sectors in it, not as the disk is long.
/// </summary>
internal sealed class SectorSet
{
    private const int WordBits = 64, PageWords = 64, PageBits = WordBits * PageWords;

    private readonly Dictionary<long, ulong[]> _pages = [];

    /// <summary>True if there is no sector in it.</summary>
    public bool IsEmpty => _pages.Count == 0;

    /// <summary>Takes a run in.</summary>
    public void Add(long first, long count)
    {
        for (long sector = first, end = first + count; sector < end;)
        {
            if (!_pages.TryGetValue(sector / PageBits, out ulong[]? page))
            {
                _pages.Add(sector / PageBits, page = new ulong[PageWords]);
            }
            int at = (int)(sector % PageBits), bit = at % WordBits;
            int bits = (int)Math.Min(end - sector, WordBits - bit);
            page[at / WordBits] |= (bits == WordBits ? ulong.MaxValue : (1UL << bits) - 1) << bit;
            sector += bits;
        }
    }

    /// <summary>Empties it.</summary>
    public void Clear() => _pages.Clear();

    /// <summary>True if one of a run's sectors is in it.</summary>
    public bool HasAny(long first, long count) => Has(first) || Run(first, count) < count;

    /// <summary>True for a sector in it.</summary>
    public bool Has(long sector)
        => _pages.TryGetValue(sector / PageBits, out ulong[]? page)
            && (page[sector % PageBits / WordBits] >> (int)(sector % WordBits) & 1) != 0;

    /// <summary>How many sectors from the first one on are, like it, in the set or not; up to <paramref name="most"/>.</summary>
    public long Run(long first, long most)
    {
        bool isIn = Has(first);
        long sector = first, end = first + most;
        while (sector < end)
        {
            if (!_pages.TryGetValue(sector / PageBits, out ulong[]? page))
            {
                if (isIn)
                {
                    break;
                }
                sector = ((sector / PageBits) + 1) * PageBits;
                continue;
            }
            int bit = (int)(sector % WordBits);
            ulong word = page[sector % PageBits / WordBits] >> bit;
            int same = BitOperations.TrailingZeroCount(isIn ? ~word : word);
            if (same < WordBits - bit)
            {
                sector += same;
                break;
            }
            sector += WordBits - bit;
        }
        return Math.Min(sector, end) - first;
    }
}
