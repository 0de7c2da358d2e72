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
