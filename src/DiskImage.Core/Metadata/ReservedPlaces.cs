namespace DiskImage.Metadata;

/// <summary>
/// Places in a file that are kept for blocks which are going to be written, so that parallel writers get them in the order in which they
/// asked.
/// </summary>
/// <remarks>The session's lock guards it.</remarks>
internal sealed class ReservedPlaces
{
    private readonly Dictionary<long, long> _places = []; // by block

    /// <summary>How many there are.</summary>
    public int Count => _places.Count;

    /// <summary>All of them.</summary>
    public IReadOnlyCollection<long> Places => _places.Values;

    /// <summary>True if a place is kept for a block.</summary>
    public bool Has(long block) => _places.ContainsKey(block);

    /// <summary>Keeps a place for a block that has none.</summary>
    public void Add(long block, long place) => _places.Add(block, place);

    /// <summary>Forgets all of them.</summary>
    public void Clear() => _places.Clear();

    /// <summary>
    /// The places that are kept for a block and those that follow it, as far as they follow each other; false if there is none.
    /// </summary>
    public bool TryTake(long block, long most, long blockBytes, out long place, out long count)
    {
        count = 1;
        if (!_places.Remove(block, out place))
        {
            return false;
        }
        while (count < most && _places.TryGetValue(block + count, out long next) && next == place + (count * blockBytes))
        {
            _ = _places.Remove(block + count++);
        }
        return true;
    }
}
