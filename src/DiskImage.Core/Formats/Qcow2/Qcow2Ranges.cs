using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Ranges of the file that are counted once each: clusters, and the bytes of compressed data. One that begins with a cluster where the last
/// one ends is joined with it, so that no cluster is in one range twice.
/// </summary>
internal sealed class Qcow2Ranges(Qcow2Geometry geometry)
{
    private readonly List<FileRange> _ranges = [];

    public IReadOnlyList<FileRange> All => _ranges;

    public void Add(HostOffset place, long length)
    {
        if (_ranges.Count > 0 && _ranges[^1] is var last && last.End == place.Value && geometry.InCluster(place) == 0)
        {
            _ranges[^1] = last with { End = last.End + length };
        }
        else if (length > 0)
        {
            _ranges.Add(new(place.Value, place.Value + length));
        }
    }

    /// <summary>Takes out the end of the last range, from an offset on.</summary>
    public void TakeLast(HostOffset from)
    {
        FileRange last = _ranges[^1];
        if (from.Value > last.Start)
        {
            _ranges[^1] = last with { End = from.Value };
        }
        else
        {
            _ranges.RemoveAt(_ranges.Count - 1);
        }
    }

    public void Clear() => _ranges.Clear();
}
