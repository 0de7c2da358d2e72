using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>How bitmaps get from the file into memory and back. Spec: qcow2, "Bitmaps extension", "Bitmap directory".</summary>
/// <remarks>
/// Order of writes when settling: bits, tables and directory to new clusters; refcounts; flush; one write of the header, which switches
/// to the new directory, whose entries are not in use; flush; then the old clusters are given back. When no bit has changed, only
/// the flags are cleared in place. An operation is stored as a whole or, after a crash or failure, not at all.
/// </remarks>
internal sealed partial class Qcow2Node
{
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
            _guard.AddTables(bitmap.Entry.TableOffset, bitmap.Entry.TableSize * 8L);
        }
    }

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
}
