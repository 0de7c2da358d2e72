using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Puts the entries of L1 and L2 tables right: only what is lost changes, and what two have gets copied.</summary>
/// <param name="image">The image.</param>
/// <param name="broken">Compressed clusters that do not decompress.</param>
internal sealed class Qcow2TableMender(Qcow2RepairImage image, HashSet<L2Entry> broken)
{
    private readonly Dictionary<long, long> _mended = []; // offset of an L2 table → where it is now; whoever leads there shares it
    private readonly SparseCounters _taken = new(image.File.Name); // clusters that an entry of the disk leads to already
    private long _added; // bytes that copies and clusters of zeroes take
    private HostOffset _zeroes; // version 2: a cluster of zeroes, which may be pointed to
    private ulong _zeroUses;

    private StagedNode File => image.File;

    private Qcow2Header Header => image.Header;

    private Qcow2Geometry Geometry => image.Geometry;

    /// <summary>Drops L1 entries that lead nowhere, and mends the L2 tables of the others; those that lie on something else move.</summary>
    public async ValueTask RunAsync(long l1Offset, int l1Size, HashSet<long> overlaps, bool isActive)
    {
        byte[] l1 = new byte[l1Size * 8], table = new byte[Geometry.ClusterSize];
        await File.ReadPaddedAsync(l1Offset, l1, image.CancellationToken).ConfigureAwait(false);
        int first = l1.Length, end = 0;
        for (int i = 0; i < l1Size; i++)
        {
            image.CancellationToken.ThrowIfCancellationRequested();
            ulong raw = BigEndian.U64(l1, i * 8);
            long l2 = L2Entry.OffsetOf(raw);
            if (raw == 0)
            {
                continue;
            }
            bool isKnown = _mended.TryGetValue(l2, out long place);
            if (image.IsPlace(l2) && (!isKnown || (isActive && MayAdd())))
            {
                await File.ReadPaddedAsync(isKnown ? place : l2, table, image.CancellationToken).ConfigureAwait(false);
                place = isKnown || overlaps.Contains(l2 >> Geometry.ClusterBits) ? image.FileEnd : l2;
                if (place != l2)
                {
                    // takes the place, before a copy of data may
                    await File.WriteAsync(place, table, image.CancellationToken).ConfigureAwait(false);
                }
                if (await MendL2Async(table, Geometry.StartOf(i), isActive).ConfigureAwait(false))
                {
                    await File.WriteAsync(place, table, image.CancellationToken).ConfigureAwait(false);
                }
                _ = _mended.TryAdd(l2, place);
            }
            ulong mended = place != 0 && place == l2 ? raw & L2Entry.L1Bits : (ulong)place;
            if (mended != raw)
            {
                BigEndian.U64(l1, i * 8, mended);
                (first, end) = (Math.Min(first, i * 8), (i * 8) + 8);
            }
        }
        if (first < end)
        {
            await File.FlushAsync(image.CancellationToken).ConfigureAwait(false);
            await File.WriteAsync(l1Offset + first, l1.AsMemory(first..end), image.CancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<bool> MendL2Async(byte[] table, GuestOffset guest, bool isActive)
    {
        bool changed = false;
        bool extended = Geometry.HasSubclusters;
        for (int at = 0; at < table.Length; at += Geometry.L2EntryBytes, guest += Geometry.ClusterSize)
        {
            var entry = new L2Entry(BigEndian.U64(table, at), extended ? BigEndian.U64(table, at + 8) : 0);
            if (entry == default)
            {
                continue;
            }
            L2Entry mended = Mend(entry, guest) ?? new L2Entry((ulong)(await ZeroClusterAsync().ConfigureAwait(false)).Value);
            mended = isActive ? await OwnAsync(mended).ConfigureAwait(false) : mended;
            if (mended != entry)
            {
                changed = true;
                BigEndian.U64(table, at, mended.Raw);
                if (extended)
                {
                    BigEndian.U64(table, at + 8, mended.Bitmap);
                }
            }
        }
        return changed;
    }

    /// <summary>
    /// The entry that can stand: itself, or one in which what is lost reads as zeroes and all else is as it was. Null where that cannot be
    /// said in the entry: version 2 knows no zeroes, and with a backing file an unallocated cluster would show that.
    /// </summary>
    private L2Entry? Mend(L2Entry entry, GuestOffset guest)
    {
        bool extended = Geometry.HasSubclusters;
        entry = entry.WithoutReserved(extended);
        if (entry.IsCompressed)
        {
            long offset = entry.CompressedRange(Geometry.ClusterBits).Place.Value;
            bool isLost = image.IsExternal || offset < Geometry.ClusterSize || offset >= image.Length
                || broken.Contains(entry.WithCopied(false));
            return isLost ? Lost(entry) : entry.CompressedWithin(image.Length, Geometry.ClusterBits).WithCopied(false);
        }
        if (image.IsExternal && (entry.HasPlace || entry.IsCopied))
        {
            entry = entry.WithPlace(new(guest.Value)); // the only place it can have there
        }
        bool isThere = image.IsExternal ? entry.HasPlace || entry.IsCopied : image.IsPlace(entry.Place.Value);
        if (Header.Version < 3 && (entry.Raw & 1) != 0)
        {
            return isThere ? entry with { Raw = entry.Raw & ~1UL } : Lost(entry); // the bit means nothing in version 2
        }
        if (!isThere || IsPastData(entry))
        {
            bool isStored = extended || (entry.HasPlace && (entry.Raw & 1) == 0);
            return isStored ? Lost(entry) : entry with { Raw = entry.Raw & 1 };
        }
        uint both = extended ? (uint)entry.Bitmap & (uint)(entry.Bitmap >> 32) : 0;
        return both == 0 ? entry : entry with { Bitmap = entry.Bitmap & ~(ulong)both };
    }

    /// <summary>True if an entry stores data past the end of the external data file; one that is raw is as long as it is.</summary>
    private bool IsPastData(L2Entry entry)
    {
        bool isRaw = (Header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None;
        return image.IsExternal && entry.Place.Value >= image.DataFile?.Length && !isRaw
            && (Geometry.HasSubclusters ? (uint)entry.Bitmap != 0 : (entry.Raw & 1) == 0);
    }

    /// <summary>An entry whose stored data is lost.</summary>
    private L2Entry? Lost(L2Entry entry)
    {
        if (Header.Version < 3)
        {
            return Header.BackingFile is null ? default(L2Entry) : null;
        }
        if (!Geometry.HasSubclusters || entry.IsCompressed)
        {
            return L2Entry.Zero(null, Geometry.HasSubclusters);
        }
        ulong stored = (uint)entry.Bitmap;
        return new L2Entry(0, (entry.Bitmap | stored << 32) & ~stored);
    }

    /// <summary>
    /// The entry with a place that no other entry of the disk has; unchanged where it has one, or where copies would take too much.
    /// </summary>
    private async ValueTask<L2Entry> OwnAsync(L2Entry entry)
    {
        bool hasPlace = entry is { IsCompressed: false, HasPlace: true } && entry.Place != _zeroes && !image.IsExternal;
        if (!hasPlace || _taken.Add(Geometry.ClusterOf(entry.Place)) == 1)
        {
            return entry;
        }
        bool isReserved = Geometry.HasSubclusters ? (uint)entry.Bitmap == 0 : (entry.Raw & 1) != 0;
        if (isReserved)
        {
            return entry.WithCopied(false).WithPlace(default); // what is reserved holds nothing
        }
        return MayAdd()
            ? entry.WithCopied(
                false).WithPlace(new(await image.CopyToEndAsync(entry.Place.Value, Geometry.ClusterSize).ConfigureAwait(false)))
            : entry;
    }

    /// <summary>True if a cluster more may be taken for what would be shared otherwise: in all as many bytes as the file has.</summary>
    private bool MayAdd()
    {
        _added += Geometry.ClusterSize;
        return _added <= image.Length;
    }

    /// <summary>A cluster that holds zeroes, shared with others only where there would be too many.</summary>
    private async ValueTask<HostOffset> ZeroClusterAsync()
    {
        if (_zeroes.Value == 0 || _zeroUses == Geometry.MaxRefcount || MayAdd())
        {
            (_zeroes, _zeroUses) = (new(image.FileEnd), 0);
            await File.WriteAsync(_zeroes.Value, new byte[Geometry.ClusterSize], image.CancellationToken).ConfigureAwait(false);
        }
        _zeroUses++;
        return _zeroes;
    }
}
