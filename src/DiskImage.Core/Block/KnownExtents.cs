namespace DiskImage.Block;

/// <summary>
/// Extents that somebody far away told of with one answer, so that the next ones need not be asked for. They hold until something is
/// changed. Not to be added to once others can see it.
/// </summary>
internal sealed class KnownExtents
{
    private readonly List<BlockExtent> _extents = [];

    /// <summary>True while nothing is known.</summary>
    public bool IsEmpty => _extents.Count == 0;

    /// <summary>Adds what follows the last one; what continues it is joined with it.</summary>
    public void Add(in BlockExtent next)
    {
        if (_extents.Count > 0 && _extents[^1].IsContinuedBy(next))
        {
            _extents[^1] = _extents[^1] with { Length = _extents[^1].Length + next.Length };
        }
        else
        {
            _extents.Add(next);
        }
    }

    /// <summary>What is known from an offset on; null for nothing. Bytes lie at the same offset as in the disk.</summary>
    public BlockExtent? Find(long offset)
    {
        int low = 0, high = _extents.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            (low, high) = _extents[middle].Offset <= offset ? (middle, high) : (low, middle - 1);
        }
        if (IsEmpty || offset < _extents[low].Offset || offset >= _extents[low].End)
        {
            return null;
        }
        BlockExtent extent = _extents[low];
        return extent with { Offset = offset, Length = extent.End - offset, HostOffset = offset };
    }
}

/// <summary>
/// What a node knows of its extents from answers, so that the next need not be asked for: until something is changed, also by a change that
/// was under way while it was asked.
/// </summary>
internal sealed class ExtentMemory
{
    private readonly Lock _lock = new(); // guards the rest
    private long _changes; // begun or ended
    private KnownExtents? _known;

    /// <summary>To be taken before a question is asked, and given back with its answer.</summary>
    public long Mark
    {
        get
        {
            lock (_lock)
            {
                return _changes;
            }
        }
    }

    /// <summary>What is known from an offset on; null for nothing.</summary>
    public BlockExtent? Find(long offset) => Volatile.Read(ref _known)?.Find(offset);

    /// <summary>Keeps an answer, unless something has changed since it was asked for.</summary>
    public void Keep(KnownExtents told, long mark)
    {
        lock (_lock)
        {
            _known = _changes == mark ? told : _known;
        }
    }

    /// <summary>Makes a change: what was known before, and what is found out meanwhile, is not known afterwards.</summary>
    public async ValueTask<T> ChangeAsync<T>(Func<ValueTask<T>> change)
    {
        Forget();
        try
        {
            return await change().ConfigureAwait(false);
        }
        finally
        {
            Forget();
        }
    }

    private void Forget()
    {
        lock (_lock)
        {
            _changes++;
            Volatile.Write(ref _known, null);
        }
    }
}
