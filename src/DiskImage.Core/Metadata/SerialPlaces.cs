using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Hands out places for blocks that follow each other in a file, the first behind the last block there is. What was handed out and not used
/// after all is handed out again, one by one; what is left of it is a gap, for compaction to close.
/// </summary>
/// <remarks>The session's lock guards it.</remarks>
internal sealed class SerialPlaces(string name)
{
    private readonly SortedSet<long> _spare = [];
    private long _next; // the place behind all that were handed out

    /// <summary>What is kept for writes to come.</summary>
    public ReservedPlaces Reserved { get; } = new();

    /// <summary>True if something was handed out that no block took.</summary>
    public bool HasGaps => _spare.Count + Reserved.Count > 0;

    /// <summary>True if the next single place is one that was handed out before.</summary>
    public bool HasSpare => _spare.Count > 0;

    /// <summary>Begins anew, with the next place at an offset.</summary>
    public void Restart(long next)
    {
        _spare.Clear();
        Reserved.Clear();
        _next = next;
    }

    /// <summary>Keeps a place for a block that has none yet.</summary>
    public void Reserve(int block, long blockBytes, long lastPlace)
    {
        if (!Reserved.Has(block))
        {
            Reserved.Add(block, Take(1, blockBytes, lastPlace));
        }
    }

    /// <summary>Hands out places that follow each other; a spare one if only one is wanted.</summary>
    /// <exception cref="DiskImageException">NoSpace: no entry could say the last of them.</exception>
    public long Take(long count, long blockBytes, long lastPlace)
    {
        if (count == 1 && _spare.Count > 0)
        {
            long spare = _spare.Min;
            _ = _spare.Remove(spare);
            return spare;
        }
        long place = _next;
        if (place + ((count - 1) * blockBytes) > lastPlace)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace,
                $"{name}: its file is full: the table leads to offset {lastPlace:#,0} at most, and the next block would lie at {place:#,0}",
                name,
                place);
        }
        _next = place + (count * blockBytes);
        return place;
    }

    /// <summary>Takes places back that no entry leads to.</summary>
    public void GiveUp(long place, long count, long blockBytes)
    {
        for (long i = 0; i < count; i++)
        {
            _ = _spare.Add(place + (i * blockBytes));
        }
    }
}
