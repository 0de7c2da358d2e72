using DiskImage.Block;

namespace DiskImage.Operations;

/// <summary>A run of a disk that could not be read.</summary>
/// <param name="Offset">Its first byte.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Reason">Why its first bytes could not be read.</param>
public sealed record LostRange(long Offset, long Length, Wording Reason)
{
    /// <summary>The first byte behind it.</summary>
    public long End => Offset + Length;
}

/// <summary>
/// What could not be read of a disk that is salvaged: neighbours are one range, and what is told twice counts once. For several threads.
/// </summary>
public sealed class LostRanges
{
    /// <summary>Of more ranges than these, some are told together with what lies between them. Ours: memory is bounded.</summary>
    public const int Most = 65536;

    private readonly SortedSet<LostRange> _ranges = new(Comparer<LostRange>.Create((a, b) => a.Offset.CompareTo(b.Offset)));
    private readonly Lock _change = new(); // guards _ranges

    /// <summary>The ranges, in order.</summary>
    public IReadOnlyList<LostRange> Ranges
    {
        get
        {
            lock (_change)
            {
                return [.. _ranges];
            }
        }
    }

    /// <summary>Adds a run.</summary>
    public void Add(long offset, long length, DiskImageException reason)
    {
        ArgumentNullException.ThrowIfNull(reason);
        lock (_change)
        {
            var added = new LostRange(offset, length, reason.Wording);
            while (Touching(added) is { } other)
            {
                _ = _ranges.Remove(other);
                LostRange first = other.Offset <= added.Offset ? other : added;
                added = first with { Length = Math.Max(other.End, added.End) - first.Offset };
            }
            _ = _ranges.Add(added);
        }
    }

    /// <summary>A range that overlaps or neighbours another, or that it is put together with for want of room.</summary>
    private LostRange? Touching(LostRange added)
    {
        LostRange? before = Last(0, added.Offset), within = First(added.Offset, added.End);
        return before is not null && (before.End >= added.Offset || _ranges.Count >= Most) ? before
            : within ?? (_ranges.Count >= Most ? _ranges.Min : null);
    }

    private LostRange? Last(long from, long to) => View(from, to).Max;

    private LostRange? First(long from, long to) => View(from, to).Min;

    private SortedSet<LostRange> View(long from, long to) => _ranges.GetViewBetween(new(from, 0, ""), new(to, 0, ""));
}
