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
    private readonly Dictionary<int, long> _reserved = []; // block → place, for writes to come
    private long _next; // the place behind all that were handed out

    /// <summary>True if something was handed out that no block took.</summary>
    public bool HasGaps => _spare.Count + _reserved.Count > 0;

    /// <summary>True if the next single place is one that was handed out before.</summary>
    public bool HasSpare => _spare.Count > 0;

    /// <summary>Begins anew, with the next place at an offset.</summary>
    public void Restart(long next)
    {
        _spare.Clear();
        _reserved.Clear();
        _next = next;
    }

    /// <summary>Keeps a place for a block that has none yet.</summary>
    public void Reserve(int block, long blockBytes, long lastPlace)
    {
        if (!_reserved.ContainsKey(block))
        {
            _reserved.Add(block, Take(1, blockBytes, lastPlace));
        }
    }

    /// <summary>True if a place is kept for a block.</summary>
    public bool IsReserved(int block) => _reserved.ContainsKey(block);

    /// <summary>
    /// The places that are kept for a block and those that follow it, as far as they follow each other; false if there is none.
    /// </summary>
    public bool TryTakeReserved(int block, long most, long blockBytes, out long place, out long count)
    {
        count = 1;
        if (!_reserved.Remove(block, out place))
        {
            return false;
        }
        while (count < most && _reserved.TryGetValue(block + (int)count, out long next) && next == place + (count * blockBytes))
        {
            _ = _reserved.Remove(block + (int)count++);
        }
        return true;
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
