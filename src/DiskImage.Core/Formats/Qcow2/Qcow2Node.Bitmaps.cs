using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Persistent dirty bitmaps. Spec: qcow2, "Bitmaps extension", "Bitmaps".</summary>
/// <remarks>
/// <para>States of the bitmaps of an image that is open for writing. Settled: the file has them as they are, none is marked in use by
/// us. Before the first request that changes the disk, every enabled one is marked in use in its directory entry, in place, and
/// that is flushed: from here on a crash leaves bitmaps that say of themselves that they cannot be relied on. Writes then set bits
/// in memory only. Closing, every operation on bitmaps, and whatever reads the image anew settles them again.</para>
/// <para>Order of writes when settling: bits, tables and directory to new clusters; refcounts; flush; one write of the header, which
/// switches to the new directory, whose entries are not in use; flush; then the old clusters are given back. When no bit has
/// changed, only the flags are cleared in place. An operation is stored as a whole or, after a crash or failure, not at all.</para>
/// <para>Without the autoclear bit the bitmaps are those of some earlier contents: they are not shown, and dropped when the image is
/// opened for writing, as QEMU does. What they occupy stays leaked until a repair, for nobody knows who uses it now. A bitmap that
/// is in use, or of a kind that is not understood, is kept as it is and can only be removed.</para>
/// <para>Left out: QEMU marks disabled bitmaps in use as well, though nothing changes them; here they stay good after a crash.</para>
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
        => _recording.Length == 0 ? default : RecordAsync(offset, length, cancellationToken);

    private async ValueTask RecordAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
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

    /// <summary>Takes in the bitmaps of an image that is being opened for writing; drops those that belong to other contents.</summary>
    private async ValueTask LoadBitmapsAsync(CancellationToken cancellationToken)
    {
        Qcow2BitmapDirectory directory = HoldsBitmaps
            ? await Qcow2BitmapDirectory.ReadAsync(File, _header, cancellationToken).ConfigureAwait(false)
            : Qcow2BitmapDirectory.Empty;
        _guard.BitmapDirectory = default;
        if (directory.Length > 0 && _guard.Overlap(directory.Offset, directory.Length) is { } what)
        {
            throw Corrupt($"the bitmap directory at host offset {directory.Offset:#,0} lies on {what}", directory.Offset);
        }
        TakeIn(directory, [.. directory.Entries.Select(e => new Qcow2Bitmap(File, _geometry, e, Length))]);
        if (!HoldsBitmaps && _header.Extension(Qcow2Extension.Bitmaps) is not null)
        {
            await SwitchHeaderAsync(_header with { Extensions = WithoutBitmaps() }).ConfigureAwait(false);
        }
        else if (!HoldsBitmaps && (_header.AutoClear & Qcow2AutoClear.Bitmaps) != 0)
        {
            await UpdateHeaderAsync(_header with { AutoClear = _header.AutoClear & ~Qcow2AutoClear.Bitmaps }).ConfigureAwait(false);
        }
    }

    private void TakeIn(Qcow2BitmapDirectory directory, List<Qcow2Bitmap> bitmaps)
    {
        _bitmaps = bitmaps;
        _recording = [.. bitmaps.Where(b => b.IsEnabled && (b.Entry.Flags & Qcow2BitmapFlags.InUse) == 0)];
        _guard.BitmapDirectory = (directory.Offset, directory.Length);
        foreach (Qcow2Bitmap bitmap in bitmaps)
        {
            for (long at = 0; at < bitmap.Entry.TableSize * 8L; at += _geometry.ClusterSize)
            {
                _guard.AddTable(bitmap.Entry.TableOffset + at);
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

    /// <summary>Writes into the directory that bitmaps are in use, and waits until that is durable.</summary>
    private async ValueTask MarkInUseAsync(IReadOnlyCollection<Qcow2Bitmap> which)
    {
        if (which.Where(b => b.IsUsable).Sum(b => b.BitsBytes) is > MaxRecordedBytes and var needed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: its bitmaps have {needed:#,0} bytes of bits in all; allowed when they change: at most {MaxRecordedBytes:#,0}. Disable or remove some of them.", Name);
        }
        await WriteDirectoryAsync(b => b.IsMarked || which.Contains(b)).ConfigureAwait(false);
        foreach (Qcow2Bitmap bitmap in which)
        {
            bitmap.IsMarked = true;
            if (!bitmap.IsUsable)
            {
                bitmap.Entry = bitmap.Entry with { Flags = bitmap.Entry.Flags | Qcow2BitmapFlags.InUse }; // for good: it will not record the change
            }
        }
    }

    /// <summary>Writes the directory in place. Nothing but flags differs, so a write that is cut short does no harm.</summary>
    private async ValueTask WriteDirectoryAsync(Func<Qcow2Bitmap, bool> isInUse)
    {
        byte[] bytes = Qcow2BitmapDirectory.ToBytes(_bitmaps!.Select(b => isInUse(b) ? b.Entry with { Flags = b.Entry.Flags | Qcow2BitmapFlags.InUse } : b.Entry));
        await File.WriteAsync(_guard.BitmapDirectory.Offset, bytes).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>Stores what has changed; afterwards no bitmap is in use by us.</summary>
    private async ValueTask SettleBitmapsAsync()
    {
        if (_bitmaps is not null && _bitmaps.Any(b => b.IsMarked || b.IsChanged))
        {
            await StoreBitmapsAsync(_bitmaps).ConfigureAwait(false);
        }
    }

    /// <summary>Makes a list of bitmaps the image's.</summary>
    private async ValueTask StoreBitmapsAsync(List<Qcow2Bitmap> bitmaps)
    {
        if (bitmaps.SequenceEqual(_bitmaps!) && !bitmaps.Exists(b => b.IsChanged))
        {
            if (bitmaps.Exists(b => b.IsMarked))
            {
                await WriteDirectoryAsync(_ => false).ConfigureAwait(false);
                bitmaps.ForEach(b => b.IsMarked = false);
            }
            return;
        }
        var taken = new List<(long Offset, long Length)>();
        var unused = new List<(long Offset, long Length)>();
        var stored = new List<Qcow2Bitmap>();
        Qcow2BitmapDirectory directory;
        Qcow2Header header;
        try
        {
            foreach (Qcow2Bitmap bitmap in bitmaps)
            {
                Qcow2BitmapEntry entry = bitmap.Entry;
                if (bitmap.BitsChanged)
                {
                    Qcow2Bitmap.PreparedTable table = await bitmap.PrepareAsync(TakeAsync).ConfigureAwait(false);
                    entry = entry with { TableOffset = table.Offset, TableSize = table.Table.Length };
                    unused.AddRange(await bitmap.UnusedAsync(table).ConfigureAwait(false));
                }
                stored.Add(bitmap.AsStored(entry));
            }
            foreach (Qcow2Bitmap removed in _bitmaps!.Except(bitmaps))
            {
                unused.AddRange(await SpaceOfRemovedAsync(removed).ConfigureAwait(false));
            }
            directory = await WriteNewDirectoryAsync([.. stored.Select(b => b.Entry)], TakeAsync).ConfigureAwait(false);
            header = WithDirectory(directory);
            await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            foreach ((long offset, long length) in taken)
            {
                await _refcounts.AddAsync(offset, length, -1).ConfigureAwait(false);
            }
            throw;
        }
        await SwitchHeaderAsync(header).ConfigureAwait(false);
        if (_guard.BitmapDirectory is { Length: > 0 } old)
        {
            unused.Add(old);
        }
        TakeIn(directory, stored);
        unused.ForEach(r => _refcounts.FreeAfterFlush(r.Offset, r.Length));
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);

        async ValueTask<long> TakeAsync(int clusters)
        {
            long place = clusters == 1
                ? (await _refcounts.AllocateAsync(1).ConfigureAwait(false)).Offset
                : await _refcounts.AllocateContiguousAsync(clusters).ConfigureAwait(false);
            taken.Add((place, (long)clusters << _geometry.ClusterBits));
            await RequireNotMetadataAsync(place, (long)clusters << _geometry.ClusterBits).ConfigureAwait(false);
            return place;
        }
    }

    /// <summary>What a removed bitmap occupied; without what a broken table may have pointed to.</summary>
    private static async ValueTask<IReadOnlyList<(long Offset, long Length)>> SpaceOfRemovedAsync(Qcow2Bitmap removed)
    {
        try
        {
            return await removed.UnusedAsync(newer: null).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            return [];
        }
    }

    private async ValueTask<Qcow2BitmapDirectory> WriteNewDirectoryAsync(Qcow2BitmapEntry[] entries, Func<int, ValueTask<long>> allocate)
    {
        if (entries.Length == 0)
        {
            return Qcow2BitmapDirectory.Empty;
        }
        byte[] bytes = Qcow2BitmapDirectory.ToBytes(entries);
        if (entries.Length > Qcow2BitmapDirectory.MaxBitmaps || bytes.Length > Qcow2BitmapDirectory.MaxDirectoryBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: {entries.Length} bitmaps take a directory of {bytes.Length:#,0} bytes; allowed: {Qcow2BitmapDirectory.MaxBitmaps} bitmaps and {Qcow2BitmapDirectory.MaxDirectoryBytes:#,0} bytes", Name);
        }
        long place = await allocate((int)_geometry.Clusters(bytes.Length)).ConfigureAwait(false);
        await File.WriteAsync(place, bytes).ConfigureAwait(false);
        return new(place, bytes.Length, entries);
    }

    /// <summary>The header with an extension that points to a directory; if need be without the names of features, which are optional.</summary>
    private Qcow2Header WithDirectory(Qcow2BitmapDirectory directory)
    {
        if (directory.Entries.Count == 0)
        {
            return _header with { Extensions = WithoutBitmaps(), AutoClear = _header.AutoClear & ~Qcow2AutoClear.Bitmaps };
        }
        Qcow2Extension extension = Qcow2BitmapDirectory.ToExtension(directory.Entries.Count, directory.Offset, directory.Length);
        Qcow2Header header = _header with { Extensions = [.. WithoutBitmaps(), extension], AutoClear = _header.AutoClear | Qcow2AutoClear.Bitmaps };
        if (!header.Fits)
        {
            header = header with { Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] };
        }
        _ = header.ToCluster(Name); // refuses what does not fit before anything is written
        return header;
    }

    private Qcow2Extension[] WithoutBitmaps() => [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.Bitmaps)];

    /// <summary>Writes, in one write, the part of the header cluster that changes.</summary>
    private async ValueTask SwitchHeaderAsync(Qcow2Header header)
    {
        header = header with { RefcountTableOffset = _refcounts.TableOffset, RefcountTableClusters = _refcounts.TableClusters };
        byte[] old = new byte[_geometry.ClusterSize], next = header.ToCluster(Name);
        await File.ReadPaddedAsync(0, old).ConfigureAwait(false);
        int first = old.AsSpan().CommonPrefixLength(next), end = next.Length;
        while (end > first && old[end - 1] == next[end - 1])
        {
            end--;
        }
        await File.WriteAsync(first, next.AsMemory(first..end)).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _header = await Qcow2Header.ReadAsync(File, forRepair: false, CancellationToken.None).ConfigureAwait(false);
    }

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
