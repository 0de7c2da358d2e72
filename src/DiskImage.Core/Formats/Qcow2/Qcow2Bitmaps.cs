using System.Text;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What can be done with persistent dirty bitmaps. Spec: qcow2, "Bitmaps extension", "Bitmaps".</summary>
/// <remarks>
/// <para>Without the autoclear bit the bitmaps are those of some earlier contents: they are not shown, and dropped when the image is
/// opened for writing, as QEMU does. What they occupy stays leaked until a repair, for nobody knows who uses it now. A bitmap that
/// is in use, or of a kind that is not understood, is kept as it is and can only be removed.</para>
/// <para>Left out: QEMU marks disabled bitmaps in use as well, though nothing changes them; here they stay good after a crash.
/// As in QEMU, changing the reference to the backing image and emptying a disk that was merged into it are not recorded: they are
/// not meant to change what the disk reads as.</para>
/// </remarks>
internal sealed class Qcow2Bitmaps(Qcow2Disk disk)
{
    private const int MinDefaultGranularity = 4096, MaxDefaultGranularity = 65536; // QEMU's

    private Qcow2BitmapStorage Storage => disk.Bitmaps;

    private string Name => disk.Name;

    public async ValueTask<IReadOnlyList<DiskBitmap>> ListAsync(CancellationToken cancellationToken)
    {
        var list = new List<DiskBitmap>();
        long stored = 0;
        foreach (Qcow2Bitmap bitmap in await Storage.CurrentAsync(cancellationToken).ConfigureAwait(false))
        {
            long? dirty = null;
            try
            {
                // Clusters that several bitmaps claim would let a small file make this take for ever.
                bool isCounted = bitmap.IsUsable && stored <= disk.Geometry.Clusters(disk.File.Length);
                dirty = isCounted ? await bitmap.CountAsync(cancellationToken).ConfigureAwait(false) : null;
                stored += bitmap.StoredPages;
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                // Its table is broken: it is as good as one that was not saved.
            }
            list.Add(Public(bitmap, dirty));
        }
        return list;
    }

    public async ValueTask<IReadOnlyList<(long Offset, long Length)>> DirtyRangesAsync(string name, CancellationToken cancellationToken)
    {
        Qcow2Bitmap bitmap = Usable(await Storage.CurrentAsync(cancellationToken).ConfigureAwait(false), name);
        return await bitmap.RangesAsync(cancellationToken).ConfigureAwait(false);
    }

    public async ValueTask<DiskBitmap> AddAsync(
        MetadataSession.Held held, string name, long? granularity, bool enabled, CancellationToken cancellationToken)
    {
        long size = granularity ?? Math.Clamp(disk.Geometry.ClusterSize, MinDefaultGranularity, MaxDefaultGranularity);
        DiskBitmap? added = null;
        await ChangeAsync(
            held,
            bitmaps =>
            {
                Qcow2BitmapEntry entry = NewEntry(bitmaps, name, size, enabled);
                var bitmap = new Qcow2Bitmap(disk.File, disk.Geometry, entry, disk.Length);
                bitmaps.Add(bitmap);
                added = Public(bitmap, 0);
                return default;
            },
            cancellationToken).ConfigureAwait(false);
        return added!;
    }

    public ValueTask RemoveAsync(MetadataSession.Held held, string name, CancellationToken cancellationToken) => ChangeAsync(
        held,
        bitmaps =>
        {
            _ = bitmaps.Remove(Find(bitmaps, name));
            return default;
        },
        cancellationToken);

    public ValueTask ClearAsync(MetadataSession.Held held, string name, CancellationToken cancellationToken)
        => ChangeAsync(held, bitmaps => Usable(bitmaps, name).ClearAsync(), cancellationToken);

    public ValueTask EnableAsync(MetadataSession.Held held, string name, bool enabled, CancellationToken cancellationToken) => ChangeAsync(
        held,
        bitmaps =>
        {
            Qcow2Bitmap bitmap = Usable(bitmaps, name);
            if (bitmap.IsEnabled != enabled)
            {
                bitmap.Entry = bitmap.Entry with { Flags = bitmap.Entry.Flags ^ Qcow2BitmapFlags.Auto };
            }
            return default;
        },
        cancellationToken);

    public ValueTask MergeAsync(
        MetadataSession.Held held, string name, IReadOnlyList<(long Offset, long Length)> dirty, CancellationToken cancellationToken)
            => ChangeAsync(
        held,
        async bitmaps =>
        {
            Qcow2Bitmap bitmap = Usable(bitmaps, name);
            foreach ((long offset, long length) in dirty)
            {
                if (offset < 0 || length < 0 || offset > disk.Length || length > disk.Length - offset)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.OutOfRange,
                        $"{Name}: {length:#,0} dirty bytes at offset {offset:#,0} reach outside its {disk.Length:#,0} bytes;"
                            + $" a bitmap of a disk of another size cannot be merged",
                        Name,
                        offset);
                }
                await bitmap.SetAsync(new(offset), length).ConfigureAwait(false);
            }
        },
        cancellationToken);

    /// <summary>The disk is about to get another size: all bitmaps are in use until it has.</summary>
    public async ValueTask BeginResizeAsync(MetadataSession.Held held, long length)
    {
        foreach (Qcow2Bitmap bitmap in Storage.All!)
        {
            RequireResizable(bitmap, length);
        }
        await Storage.MarkInUseAsync(held, Storage.All!).ConfigureAwait(false);
        await CoverAsync(Math.Min(disk.Length, length)).ConfigureAwait(false);
    }

    /// <summary>The disk has another size, or has kept its own where that failed.</summary>
    public async ValueTask EndResizeAsync(MetadataSession.Held held, long length, bool isDone)
    {
        await CoverAsync(disk.Length).ConfigureAwait(false);
        if (isDone)
        {
            await Storage.SettleAsync(held).ConfigureAwait(false);
        }
        else if (length < disk.Length)
        {
            foreach (Qcow2Bitmap bitmap in Storage.All!)
            {
                await bitmap.SetAsync(new(length), disk.Length - length).ConfigureAwait(false); // it was cut off, and is back
            }
        }
    }

    /// <summary>
    /// Changes bitmaps, or the list of them, and stores the result. If that fails they are as the file has them.
    /// </summary>
    private async ValueTask ChangeAsync(
        MetadataSession.Held held, Func<List<Qcow2Bitmap>, ValueTask> change, CancellationToken cancellationToken)
    {
        if (Storage.All is null)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so its bitmaps cannot be changed", Name);
        }
        cancellationToken.ThrowIfCancellationRequested();
        await Storage.SettleAsync(held).ConfigureAwait(false);
        List<Qcow2Bitmap> bitmaps = [.. Storage.All];
        try
        {
            await change(bitmaps).ConfigureAwait(false);
            await Storage.StoreAsync(held, bitmaps).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            await disk.ReloadHeaderAsync(held).ConfigureAwait(false);
            await Storage.LoadAsync(held, CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }

    private async ValueTask CoverAsync(long length)
    {
        foreach (Qcow2Bitmap bitmap in Storage.All!)
        {
            await bitmap.ResizeAsync(length).ConfigureAwait(false);
        }
    }

    private void RequireResizable(Qcow2Bitmap bitmap, long length)
    {
        if (!bitmap.IsUsable)
        {
            throw NotUsable(bitmap);
        }
        RequireBitsFit(bitmap.Entry.Name, length, bitmap.Entry.GranularityBits);
    }

    private Qcow2BitmapEntry NewEntry(List<Qcow2Bitmap> bitmaps, string name, long granularity, bool enabled)
    {
        if (disk.Header.Version < 3)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: a version 2 image cannot hold bitmaps. Make it version 3 first.", Name);
        }
        int nameBytes = Encoding.UTF8.GetByteCount(name);
        if (nameBytes is 0 or > Qcow2BitmapEntry.MaxNameBytes || name.Contains('\0', StringComparison.Ordinal))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: a bitmap name of {nameBytes} bytes; allowed: 1 to {Qcow2BitmapEntry.MaxNameBytes} bytes of UTF-8,"
                    + $" without a null character",
                Name);
        }
        const long Least = 1L << Qcow2BitmapEntry.MinGranularityBits, Most = 1L << Qcow2BitmapEntry.MaxGranularityBits;
        if (granularity is < Least or > Most || (granularity & (granularity - 1)) != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: a granularity of {granularity:#,0} bytes; allowed: powers of two from {Least} to {Most:#,0}",
                Name);
        }
        if (bitmaps.Exists(b => b.Entry.Name.Equals(name, StringComparison.Ordinal)))
        {
            throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{Name}: has a bitmap '{name}' already", Name);
        }
        int bits = Qcow2Geometry.Log2(granularity);
        RequireBitsFit(name, disk.Length, bits);
        Qcow2BitmapFlags flags = enabled ? Qcow2BitmapFlags.Auto : Qcow2BitmapFlags.None;
        return new() { Name = name, GranularityBits = bits, TableOffset = 0, TableSize = 0, Flags = flags };
    }

    private void RequireBitsFit(string name, long length, int granularityBits)
    {
        if (Qcow2Bitmap.BitsBytesFor(length, granularityBits) is > Qcow2Bitmap.MaxBitsBytes and var needed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: bitmap '{name}' would need {needed:#,0} bytes of bits for {length:#,0} bytes at a granularity of"
                    + $" {1L << granularityBits:#,0};"
                    + $" allowed: at most {Qcow2Bitmap.MaxBitsBytes:#,0}. Use a coarser granularity.",
                Name);
        }
    }

    private Qcow2Bitmap Find(IReadOnlyList<Qcow2Bitmap> bitmaps, string name)
        => bitmaps.FirstOrDefault(b => b.Entry.Name.Equals(name, StringComparison.Ordinal))
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                bitmaps.Count == 0
                    ? $"{Name}: has no bitmaps"
                    : $"{Name}: no bitmap '{name}'. It has: {string.Join(", ", bitmaps.Take(20).Select(b => b.Entry.Name))}",
                Name);

    private Qcow2Bitmap Usable(IReadOnlyList<Qcow2Bitmap> bitmaps, string name)
        => Find(bitmaps, name) is { IsUsable: true } bitmap ? bitmap : throw NotUsable(Find(bitmaps, name));

    private DiskImageException NotUsable(Qcow2Bitmap bitmap) => new(
        DiskImageErrorKind.Corrupt,
        $"{Name}: bitmap '{bitmap.Entry.Name}' was not saved properly or is of an unknown kind (flags {(uint)bitmap.Entry.Flags:x},"
            + $" type {bitmap.Entry.Type}), so it cannot be relied on. Remove it.",
        Name);

    private static DiskBitmap Public(Qcow2Bitmap bitmap, long? dirty)
        => new(bitmap.Entry.Name, 1L << bitmap.Entry.GranularityBits, bitmap.IsEnabled, dirty is null, dirty);
}
