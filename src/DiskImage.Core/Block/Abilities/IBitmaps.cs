namespace DiskImage.Block;

/// <summary>A disk whose image has dirty bitmaps that can be read.</summary>
public interface IBitmapList
{
    /// <summary>The bitmaps, in the image's order.</summary>
    ValueTask<IReadOnlyList<DiskBitmap>> GetBitmapsAsync(CancellationToken cancellationToken);

    /// <summary>The ranges that a bitmap says were written, in order, neighbours joined.</summary>
    ValueTask<IReadOnlyList<(long Offset, long Length)>> GetDirtyRangesAsync(string name, CancellationToken cancellationToken);
}

/// <summary>A disk that keeps dirty bitmaps inside its image.</summary>
public interface IBitmaps : IBitmapList
{
    /// <summary>Adds an empty bitmap. Without a granularity it gets the cluster size, within 4k to 64k as in QEMU.</summary>
    ValueTask<DiskBitmap> AddBitmapAsync(string name, long? granularity, bool enabled, CancellationToken cancellationToken);

    /// <summary>Removes a bitmap, also one that is in use.</summary>
    ValueTask RemoveBitmapAsync(string name, CancellationToken cancellationToken);

    /// <summary>Clears every bit.</summary>
    ValueTask ClearBitmapAsync(string name, CancellationToken cancellationToken);

    /// <summary>Lets it record writes, or stops it.</summary>
    ValueTask EnableBitmapAsync(string name, bool enabled, CancellationToken cancellationToken);

    /// <summary>Sets the bits that stand for any of these ranges, of this or another disk.</summary>
    ValueTask MergeBitmapAsync(string name, IReadOnlyList<(long Offset, long Length)> dirty, CancellationToken cancellationToken);
}

/// <summary>A persistent dirty bitmap: which parts of the disk were written since it was cleared.</summary>
/// <param name="Name">Its name, unique in the image.</param>
/// <param name="Granularity">Bytes that one bit stands for.</param>
/// <param name="IsEnabled">It records writes ("auto").</param>
/// <param name="IsInUse">It was not saved properly and cannot be relied on; it can only be removed.</param>
/// <param name="DirtyBytes">Bytes that its set bits stand for; null if it is in use.</param>
public sealed record DiskBitmap(string Name, long Granularity, bool IsEnabled, bool IsInUse, long? DirtyBytes);
