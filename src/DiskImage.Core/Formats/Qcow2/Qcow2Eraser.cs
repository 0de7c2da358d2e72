using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Zeroing, discarding and dropping without writing data: entries are replaced.</summary>
internal sealed class Qcow2Eraser(Qcow2Disk disk)
{
    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>Makes subclusters read as zeroes; returns the bytes done, 0 where the format cannot say it.</summary>
    public async ValueTask<long> ZeroAsync(GuestOffset offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        bool canSayZero = disk.Header.Version >= 3;
        if (disk.IsRawData)
        {
            long inside = Math.Min(length, disk.DataNode.Length - offset.Value);
            await disk.DataNode.WriteZeroesAsync(offset.Value, inside, mode, cancellationToken).ConfigureAwait(false);
            return inside;
        }
        bool mustDecide = disk.Header.BackingFile is not null || mode == ZeroWriteMode.KeepAllocated; // also over a backing file to come
        if (!canSayZero && mustDecide)
        {
            return 0; // version 2 has no zero clusters, and an unallocated one shows the backing file
        }
        bool keepsPlaces = mode == ZeroWriteMode.KeepAllocated || disk.IsExternal;
        return await ChangeAsync(offset, length, createTables: mustDecide, Zeroed, cancellationToken).ConfigureAwait(false);

        L2Entry? Zeroed(L2Entry entry, int first, int end)
        {
            if (!mustDecide && entry == default)
            {
                return entry;
            }
            if (!canSayZero)
            {
                return default(L2Entry);
            }
            if (!IsWhole(first, end))
            {
                return entry.IsCompressed ? null : entry with { Bitmap = entry.BitmapWithZeroes(first, end) };
            }
            return L2Entry.Zero(keepsPlaces && disk.IsOurs(entry) ? entry.Place : null, Geometry.HasSubclusters);
        }
    }

    /// <summary>Gives up subclusters whose contents do not matter; they read as zeroes then.</summary>
    public async ValueTask DiscardAsync(GuestOffset offset, long length, CancellationToken cancellationToken)
    {
        if (disk.IsRawData)
        {
            return; // the tables of a raw data file stay complete
        }
        if (disk.Header.Version < 3 && disk.Header.BackingFile is not null)
        {
            return; // an unallocated cluster would show the backing file's old data
        }
        for (GuestOffset end = offset + length; offset.Value < end.Value;)
        {
            long done = await ChangeAsync(
                offset, end.Value - offset.Value, createTables: false, Discarded, cancellationToken).ConfigureAwait(false);
            offset += Math.Max(done, Geometry.SubclusterSize);
        }

        L2Entry? Discarded(L2Entry entry, int first, int last)
        {
            bool whole = IsWhole(first, last);
            if (entry == default || (!whole && entry.IsCompressed))
            {
                return entry;
            }
            if (!whole)
            {
                return entry with { Bitmap = entry.BitmapWithZeroes(first, last) };
            }
            return disk.Header.Version >= 3 ? L2Entry.Zero(null, Geometry.HasSubclusters) : default(L2Entry);
        }
    }

    /// <summary>
    /// Makes what entries there are in a range unallocated; it may lie past the end of the disk, where a table has room for more.
    /// </summary>
    public async ValueTask DropAsync(GuestOffset start, GuestOffset end)
    {
        while (start.Value < end.Value)
        {
            start += await ChangeAsync(
                start, end.Value - start.Value, createTables: false, Dropped, CancellationToken.None).ConfigureAwait(false);
        }

        static L2Entry? Dropped(L2Entry entry, int first, int last) => default(L2Entry);
    }

    /// <summary>Makes the entries of a range inside one L2 table unallocated; the range may lie past the end of the disk.</summary>
    public async ValueTask DropInTableAsync(MetadataSession.Held held, GuestOffset start, GuestOffset end)
    {
        for (GuestOffset at = start; at.Value < end.Value; at += Geometry.ClusterSize)
        {
            CachedPiece piece = await disk.Tables.WritablePieceAsync(held, at).ConfigureAwait(false);
            int index = disk.Tables.IndexOf(at);
            L2Entry old = disk.Tables.EntryAt(piece, index);
            if (old != default)
            {
                disk.Tables.Set(held, piece, index, default);
                disk.Tables.FreeData(held, old);
            }
        }
    }

    /// <summary>
    /// Replaces the entries of a range, as far as one piece of an L2 table goes. <paramref name="change"/> gets an entry and the
    /// subclusters [first, end) concerned, and returns the new entry, or null to stop before it.
    /// </summary>
    /// <returns>Bytes done from <paramref name="offset"/> on.</returns>
    private async ValueTask<long> ChangeAsync(
        GuestOffset offset, long length, bool createTables, Func<L2Entry, int, int, L2Entry?> change, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await disk.Session.EnterAsync(cancellationToken).ConfigureAwait(false);
        Qcow2Tables tables = disk.Tables;
        GuestOffset end = offset + length;
        if (!createTables && tables.L1Entry(offset) == 0)
        {
            return Math.Min(end.Value, tables.EndOfUnmapped(Geometry.L1Index(offset)).Value) - offset.Value;
        }
        CachedPiece piece = await tables.WritablePieceAsync(held, offset).ConfigureAwait(false);
        GuestOffset at = offset;
        for (int index = tables.IndexOf(offset); at.Value < end.Value && index < tables.EntriesPerPiece; index++)
        {
            GuestOffset cluster = Geometry.ClusterStart(at);
            long next = Math.Min(end.Value, cluster.Value + Geometry.ClusterSize);
            int first = Geometry.InCluster(at) / Geometry.SubclusterSize;
            int last = next == disk.Length ? Geometry.SubclustersPerCluster : (int)(next - cluster.Value) / Geometry.SubclusterSize;
            L2Entry old = tables.EntryAt(piece, index);
            tables.RequireSound(old, at);
            if (change(old, first, last) is not { } entry)
            {
                break;
            }
            if (entry != old)
            {
                tables.Set(held, piece, index, entry);
                if (old.IsCompressed || old.Place != entry.Place)
                {
                    tables.FreeData(held, old);
                }
            }
            at = new(next);
        }
        return at.Value - offset.Value;
    }

    private bool IsWhole(int first, int end) => first == 0 && end == Geometry.SubclustersPerCluster;
}
