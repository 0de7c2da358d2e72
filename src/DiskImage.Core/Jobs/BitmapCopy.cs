using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>
/// Copies bitmaps of one disk to another with the same contents, with name, granularity and whether they are enabled, as
/// qemu-img convert --bitmaps does. Runs after the data is copied: writing it would be recorded otherwise.
/// </summary>
/// <param name="source">The disk whose bitmaps are copied.</param>
/// <param name="target">The disk that gets them; of the same length, opened for writing.</param>
/// <param name="bitmaps">Which ones: what <see cref="SelectAsync"/> returned.</param>
internal sealed class BitmapCopy(BlockNode source, BlockNode target, IReadOnlyList<DiskBitmap> bitmaps)
    : BlockJob<IReadOnlyList<DiskBitmap>>
{
    /// <summary>
    /// The bitmaps of a disk that can be copied. To be asked before any data is copied, so that it fails first if it must.
    /// </summary>
    /// <param name="source">The disk.</param>
    /// <param name="skipBroken">Leave out bitmaps that were not saved properly.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Unsupported: the disk's format has no bitmaps. Corrupt: one was not saved properly.</exception>
    public static async Task<IReadOnlyList<DiskBitmap>> SelectAsync(BlockNode source, bool skipBroken, CancellationToken cancellationToken)
    {
        IReadOnlyList<DiskBitmap> all = await Of<IBitmapList>(source).GetBitmapsAsync(cancellationToken).ConfigureAwait(false);
        if (!skipBroken && all.FirstOrDefault(b => b.IsInUse) is { } broken)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{source.Name}: bitmap '{broken.Name}' was not saved properly, so it cannot be copied. Remove it, or skip broken bitmaps.",
                source.Name);
        }
        return [.. all.Where(b => !b.IsInUse)];
    }

    /// <summary>
    /// Makes sure, before any data is copied, that a new disk can hold bitmaps: adds each of them, empty, and removes it again.
    /// </summary>
    /// <exception cref="DiskImageException">Unsupported: the disk's format, or its version, has no bitmaps. Others as
    /// adding one says.</exception>
    public static async Task RequireHoldsAsync(BlockNode target, IReadOnlyList<DiskBitmap> bitmaps, CancellationToken cancellationToken)
    {
        IBitmaps to = Of<IBitmaps>(target);
        foreach (DiskBitmap bitmap in bitmaps)
        {
            _ = await to.AddBitmapAsync(bitmap.Name, bitmap.Granularity, bitmap.IsEnabled, cancellationToken).ConfigureAwait(false);
            await to.RemoveBitmapAsync(bitmap.Name, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Copies them; returns them as the target has them.</summary>
    public override async Task<IReadOnlyList<DiskBitmap>> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        IBitmapList from = Of<IBitmapList>(source);
        IBitmaps to = Of<IBitmaps>(target);
        for (int i = 0; i < bitmaps.Count; i++)
        {
            DiskBitmap bitmap = bitmaps[i];
            IReadOnlyList<(long Offset, long Length)> dirty = await from.GetDirtyRangesAsync(
                bitmap.Name, cancellationToken).ConfigureAwait(false);
            _ = await to.AddBitmapAsync(bitmap.Name, bitmap.Granularity, bitmap.IsEnabled, cancellationToken).ConfigureAwait(false);
            try
            {
                await to.MergeBitmapAsync(bitmap.Name, dirty, cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                await to.RemoveBitmapAsync(bitmap.Name, CancellationToken.None).ConfigureAwait(false); // empty it would be a lie
                throw;
            }
            progress?.Report(new JobProgress("Bitmaps", source.Length / bitmaps.Count * (i + 1), source.Length));
        }
        var names = bitmaps.Select(b => b.Name).ToHashSet(StringComparer.Ordinal);
        return [.. (await to.GetBitmapsAsync(cancellationToken).ConfigureAwait(false)).Where(b => names.Contains(b.Name))];
    }

    private static T Of<T>(BlockNode disk)
        where T : class, IBitmapList
        => disk.As<T>() ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported, $"{disk.Name}: its format does not hold bitmaps", disk.Name);
}
