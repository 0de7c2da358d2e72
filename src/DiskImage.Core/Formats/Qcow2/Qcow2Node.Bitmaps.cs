using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Persistent dirty bitmaps. Spec: qcow2, "Bitmaps extension", "Bitmaps".</summary>
/// <remarks>
/// <para>States of the bitmaps of an image that is open for writing. Settled: the file has them as they are, none is marked in use by
/// us. Before the first request that changes the disk, every enabled one is marked in use in its directory entry, in place, and
/// that is flushed: from here on a crash leaves bitmaps that say of themselves that they cannot be relied on. Writes then set bits
/// in memory only. Closing, every operation on bitmaps, and whatever reads the image anew settles them again.</para>
/// <para>Without the autoclear bit the bitmaps are those of some earlier contents: they are not shown, and dropped when the image is
/// opened for writing, as QEMU does. What they occupy stays leaked until a repair, for nobody knows who uses it now. A bitmap that
/// is in use, or of a kind that is not understood, is kept as it is and can only be removed.</para>
/// <para>Left out: QEMU marks disabled bitmaps in use as well, though nothing changes them; here they stay good after a crash.
/// As in QEMU, changing the reference to the backing image and emptying a disk that was merged into it are not recorded: they are
/// not meant to change what the disk reads as.</para>
/// </remarks>
internal sealed partial class Qcow2Node : IBitmaps
{
    private const int MinDefaultGranularity = 4096, MaxDefaultGranularity = 65536; // QEMU's
    private const long MaxRecordedBytes = 1 << 30; // ours: bits of all enabled bitmaps of an image

    private List<Qcow2Bitmap>? _bitmaps; // null: not open for writing. Under the gate
    private Qcow2Bitmap[] _recording = []; // those that must take note of writes; replaced as a whole

    /// <summary>The image has bitmaps that belong to its present contents.</summary>
    private bool HoldsBitmaps => (_header.AutoClear & Qcow2AutoClear.Bitmaps) != 0 && _header.Extension(Qcow2Extension.Bitmaps) is not null;

    public ValueTask<IReadOnlyList<DiskBitmap>> GetBitmapsAsync(CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        var list = new List<DiskBitmap>();
        long stored = 0;
        foreach (Qcow2Bitmap bitmap in await BitmapsAsync(cancellationToken).ConfigureAwait(false))
        {
            long? dirty = null;
            try
            {
                // Clusters that several bitmaps claim would let a small file make this take for ever.
                dirty = bitmap.IsUsable && stored <= _geometry.Clusters(File.Length) ? await bitmap.CountAsync(cancellationToken).ConfigureAwait(false) : null;
                stored += bitmap.StoredPages;
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                // Its table is broken: it is as good as one that was not saved.
            }
            list.Add(Public(bitmap, dirty));
        }
        return (IReadOnlyList<DiskBitmap>)list;
    });

    public ValueTask<IReadOnlyList<(long Offset, long Length)>> GetDirtyRangesAsync(string name, CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        Qcow2Bitmap bitmap = Usable(await BitmapsAsync(cancellationToken).ConfigureAwait(false), name);
        return (IReadOnlyList<(long, long)>)await bitmap.RangesAsync(cancellationToken).ConfigureAwait(false);
    });

    public async ValueTask<DiskBitmap> AddBitmapAsync(string name, long? granularity, bool enabled, CancellationToken cancellationToken)
    {
        long size = granularity ?? Math.Clamp(_geometry.ClusterSize, MinDefaultGranularity, MaxDefaultGranularity);
        DiskBitmap? added = null;
        await ChangeBitmapsAsync(bitmaps =>
        {
            Qcow2BitmapEntry entry = NewEntry(bitmaps, name, size, enabled);
            var bitmap = new Qcow2Bitmap(File, _geometry, entry, Length);
            bitmaps.Add(bitmap);
            added = Public(bitmap, 0);
            return default;
        }, cancellationToken).ConfigureAwait(false);
        return added!;
    }

    public ValueTask RemoveBitmapAsync(string name, CancellationToken cancellationToken) => ChangeBitmapsAsync(bitmaps =>
    {
        _ = bitmaps.Remove(Find(bitmaps, name));
        return default;
    }, cancellationToken);

    public ValueTask ClearBitmapAsync(string name, CancellationToken cancellationToken)
        => ChangeBitmapsAsync(bitmaps => Usable(bitmaps, name).ClearAsync(), cancellationToken);

    public ValueTask EnableBitmapAsync(string name, bool enabled, CancellationToken cancellationToken) => ChangeBitmapsAsync(bitmaps =>
    {
        Qcow2Bitmap bitmap = Usable(bitmaps, name);
        if (bitmap.IsEnabled != enabled)
        {
            bitmap.Entry = bitmap.Entry with { Flags = bitmap.Entry.Flags ^ Qcow2BitmapFlags.Auto };
        }
        return default;
    }, cancellationToken);

    public ValueTask MergeBitmapAsync(string name, IReadOnlyList<(long Offset, long Length)> dirty, CancellationToken cancellationToken) => ChangeBitmapsAsync(async bitmaps =>
    {
        Qcow2Bitmap bitmap = Usable(bitmaps, name);
        foreach ((long offset, long length) in dirty)
        {
            if (offset < 0 || length < 0 || offset > Length || length > Length - offset)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange, $"{Name}: {length:#,0} dirty bytes at offset {offset:#,0} reach outside its {Length:#,0} bytes; a bitmap of a disk of another size cannot be merged", Name, offset);
            }
            await bitmap.SetAsync(offset, length).ConfigureAwait(false);
        }
    }, cancellationToken);

    protected override ValueTask BeforeChangeAsync(long offset, long length, CancellationToken cancellationToken)
        => _recording.Length == 0 && !MustPostpone ? default : RecordAsync(offset, length, cancellationToken);

    private async ValueTask RecordAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (MustPostpone)
            {
                await PostponeRefcountsAsync().ConfigureAwait(false);
            }
            await RecordLockedAsync(offset, length).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>Notes, in every enabled bitmap, that a range is about to change.</summary>
    private async ValueTask RecordLockedAsync(long offset, long length)
    {
        foreach (Qcow2Bitmap bitmap in _recording)
        {
            if (!bitmap.IsMarked)
            {
                await MarkInUseAsync(_recording).ConfigureAwait(false);
            }
            if (bitmap.IsUsable)
            {
                await bitmap.SetAsync(offset, length).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The bitmaps as they are: those in memory, else those of the file.</summary>
    private async ValueTask<IReadOnlyList<Qcow2Bitmap>> BitmapsAsync(CancellationToken cancellationToken)
    {
        if (_bitmaps is not null || !HoldsBitmaps)
        {
            return _bitmaps ?? [];
        }
        Qcow2BitmapDirectory directory = await Qcow2BitmapDirectory.ReadAsync(File, _header, cancellationToken).ConfigureAwait(false);
        return [.. directory.Entries.Select(e => new Qcow2Bitmap(File, _geometry, e, Length))];
    }

    /// <summary>
    /// Changes bitmaps, or the list of them, and stores the result. If that fails they are as the file has them.
    /// </summary>
    private ValueTask ChangeBitmapsAsync(Func<List<Qcow2Bitmap>, ValueTask> change, CancellationToken cancellationToken) => AloneAsync(() => UnderGateAsync(async () =>
    {
        if (_bitmaps is null)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so its bitmaps cannot be changed", Name);
        }
        cancellationToken.ThrowIfCancellationRequested();
        await SettleBitmapsAsync().ConfigureAwait(false);
        List<Qcow2Bitmap> bitmaps = [.. _bitmaps];
        try
        {
            await change(bitmaps).ConfigureAwait(false);
            await StoreBitmapsAsync(bitmaps).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            _header = await Qcow2Header.ReadAsync(File, forRepair: false, CancellationToken.None).ConfigureAwait(false);
            await LoadBitmapsAsync(CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }));

    /// <summary>
    /// Changes the size and with it the bitmaps, all of which are in use meanwhile. What a resize zeroes past either end is no change
    /// that a bitmap records, as in QEMU: they cover only what the disk has both before and after.
    /// </summary>
    private async ValueTask ResizeWithBitmapsAsync(long length, Func<ValueTask> resize)
    {
        if (_bitmaps is not { Count: > 0 } || length == Length)
        {
            await resize().ConfigureAwait(false);
            return;
        }
        await AloneAsync(() => UnderGateAsync(async () =>
        {
            _bitmaps.ForEach(b => RequireResizable(b, length));
            await MarkInUseAsync(_bitmaps).ConfigureAwait(false);
            await CoverAsync(Math.Min(Length, length)).ConfigureAwait(false);
        })).ConfigureAwait(false);
        bool isDone = false;
        try
        {
            await resize().ConfigureAwait(false);
            isDone = true;
        }
        finally
        {
            await AloneAsync(() => UnderGateAsync(async () =>
            {
                await CoverAsync(Length).ConfigureAwait(false);
                if (isDone)
                {
                    await SettleBitmapsAsync().ConfigureAwait(false);
                }
                else if (length < Length)
                {
                    foreach (Qcow2Bitmap bitmap in _bitmaps)
                    {
                        await bitmap.SetAsync(length, Length - length).ConfigureAwait(false); // it was cut off, and is back
                    }
                }
            })).ConfigureAwait(false);
        }
    }

    private async ValueTask CoverAsync(long length)
    {
        foreach (Qcow2Bitmap bitmap in _bitmaps!)
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
        if (_header.Version < 3)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: a version 2 image cannot hold bitmaps. Make it version 3 first.", Name);
        }
        int nameBytes = Encoding.UTF8.GetByteCount(name);
        if (nameBytes is 0 or > Qcow2BitmapEntry.MaxNameBytes || name.Contains('\0', StringComparison.Ordinal))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: a bitmap name of {nameBytes} bytes; allowed: 1 to {Qcow2BitmapEntry.MaxNameBytes} bytes of UTF-8, without a null character", Name);
        }
        const long Least = 1L << Qcow2BitmapEntry.MinGranularityBits, Most = 1L << Qcow2BitmapEntry.MaxGranularityBits;
        if (granularity is < Least or > Most || (granularity & (granularity - 1)) != 0)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: a granularity of {granularity:#,0} bytes; allowed: powers of two from {Least} to {Most:#,0}", Name);
        }
        if (bitmaps.Exists(b => b.Entry.Name.Equals(name, StringComparison.Ordinal)))
        {
            throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{Name}: has a bitmap '{name}' already", Name);
        }
        int bits = Qcow2Geometry.Log2(granularity);
        RequireBitsFit(name, Length, bits);
        return new() { Name = name, GranularityBits = bits, TableOffset = 0, TableSize = 0, Flags = enabled ? Qcow2BitmapFlags.Auto : Qcow2BitmapFlags.None };
    }

    private void RequireBitsFit(string name, long length, int granularityBits)
    {
        if (Qcow2Bitmap.BitsBytesFor(length, granularityBits) is > Qcow2Bitmap.MaxBitsBytes and var needed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: bitmap '{name}' would need {needed:#,0} bytes of bits for {length:#,0} bytes at a granularity of {1L << granularityBits:#,0}; allowed: at most {Qcow2Bitmap.MaxBitsBytes:#,0}. Use a coarser granularity.", Name);
        }
    }

    private Qcow2Bitmap Find(IReadOnlyList<Qcow2Bitmap> bitmaps, string name)
        => bitmaps.FirstOrDefault(b => b.Entry.Name.Equals(name, StringComparison.Ordinal))
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                bitmaps.Count == 0 ? $"{Name}: has no bitmaps" : $"{Name}: no bitmap '{name}'. It has: {string.Join(", ", bitmaps.Take(20).Select(b => b.Entry.Name))}",
                Name);

    private Qcow2Bitmap Usable(IReadOnlyList<Qcow2Bitmap> bitmaps, string name)
        => Find(bitmaps, name) is { IsUsable: true } bitmap ? bitmap : throw NotUsable(Find(bitmaps, name));

    private DiskImageException NotUsable(Qcow2Bitmap bitmap)
        => new(
            DiskImageErrorKind.Corrupt,
            $"{Name}: bitmap '{bitmap.Entry.Name}' was not saved properly or is of an unknown kind (flags {(uint)bitmap.Entry.Flags:x}, type {bitmap.Entry.Type}), so it cannot be relied on. Remove it.", Name);

    private DiskImageException BitmapsWouldBeStale()
        => new(DiskImageErrorKind.Unsupported, $"{Name}: has bitmaps, which do not record what going back to a snapshot changes. Remove them first.", Name);

    private static DiskBitmap Public(Qcow2Bitmap bitmap, long? dirty)
        => new(bitmap.Entry.Name, 1L << bitmap.Entry.GranularityBits, bitmap.IsEnabled, dirty is null, dirty);

    private async ValueTask<T> UnderGateAsync<T>(Func<ValueTask<T>> action)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            return await action().ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }
}
