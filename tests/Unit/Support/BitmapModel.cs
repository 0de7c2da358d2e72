using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>What a dirty bitmap should say.</summary>
internal sealed class BitmapModel(string name, long granularity, bool enabled, long length)
{
    private HashSet<long> _dirty = []; // granules

    public string Name { get; } = name;

    public long Granularity { get; } = granularity;

    public bool IsEnabled { get; set; } = enabled;

    public long Length { get; private set; } = length;

    public BitmapModel Clone() => new(Name, Granularity, IsEnabled, Length) { _dirty = [.. _dirty] };

    public void Set(long offset, long count)
    {
        for (long granule = offset / Granularity; count > 0 && granule <= (offset + count - 1) / Granularity; granule++)
        {
            _ = _dirty.Add(granule);
        }
    }

    public void Record(long offset, long count)
    {
        if (IsEnabled)
        {
            Set(offset, count);
        }
    }

    public void Clear() => _dirty.Clear();

    public void Resize(long length)
    {
        Length = length;
        _ = _dirty.RemoveWhere(granule => granule * Granularity >= length);
    }

    public List<(long Offset, long Length)> Ranges()
    {
        var ranges = new List<(long Offset, long Length)>();
        foreach (long granule in _dirty.Order())
        {
            long offset = granule * Granularity, end = Math.Min(offset + Granularity, Length);
            if (ranges.Count > 0 && ranges[^1] is var last && last.Offset + last.Length == offset)
            {
                ranges[^1] = (last.Offset, end - last.Offset);
            }
            else
            {
                ranges.Add((offset, end - offset));
            }
        }
        return ranges;
    }

    /// <summary>The image must have exactly these bitmaps, in this order, with these bits.</summary>
    public static async Task VerifyAsync(BlockNode disk, IReadOnlyList<BitmapModel> models, string what)
    {
        var bitmaps = (IBitmaps)disk;
        IReadOnlyList<DiskBitmap> found = await bitmaps.GetBitmapsAsync(CancellationToken.None);
        IEnumerable<DiskBitmap> expected = models.Select(
            m => new DiskBitmap(m.Name, m.Granularity, m.IsEnabled, IsInUse: false, m.Ranges().Sum(r => r.Length)));
        Assert.True(expected.SequenceEqual(found), $"{what}: expected {string.Join(", ", expected)}\nfound {string.Join(", ", found)}");
        foreach (BitmapModel model in models)
        {
            IReadOnlyList<(long Offset, long Length)> ranges = await bitmaps.GetDirtyRangesAsync(model.Name, CancellationToken.None);
            Assert.True(
                model.Ranges().SequenceEqual(ranges),
                $"{what}: {model.Name} expected {string.Join(' ', model.Ranges())}\nfound {string.Join(' ', ranges)}");
        }
    }
}
