using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The places that guest data is written to: reserving them, pointing the tables to them, giving them back.</summary>
internal sealed class Qcow2Writer(Qcow2Disk disk)
{
    /// <summary>Space that waits for a flush before it can be used again; beyond this the flush is not left to the user. Ours.</summary>
    private const long MaxPendingFree = 64 << 20;

    // Guest cluster → clusters that a write to come will use. Under the session's lock.
    private readonly Dictionary<GuestOffset, (HostOffset Place, int Count)> _reserved = [];

    private Qcow2Tables Tables => disk.Tables;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>A place for the first bytes of a write.</summary>
    public async ValueTask<WriteMapping> EnsureMappedAsync(MetadataSession.Held held, GuestOffset offset, long length)
    {
        CachedPiece piece = await Tables.WritablePieceAsync(held, offset).ConfigureAwait(false);
        int index = Tables.IndexOf(offset);
        L2Entry entry = Tables.EntryAt(piece, index);
        Tables.RequireSound(entry, offset);
        if (!disk.IsOurs(entry))
        {
            return await AllocateForAsync(held, piece, index, offset, length).ConfigureAwait(false);
        }
        int subcluster = Geometry.InCluster(offset) / Geometry.SubclusterSize;
        return entry.KindOf(subcluster, Geometry.HasSubclusters) == ClusterKind.Normal
            ? await InPlaceAsync(held, piece, index, offset, length).ConfigureAwait(false)
            : await IntoReservedAsync(held, entry, offset, length, subcluster).ConfigureAwait(false);
    }

    /// <summary>Takes places for a range that is about to be written to in pieces, so that they lie in a row.</summary>
    public async ValueTask ReserveAsync(MetadataSession.Held held, GuestOffset offset, long length)
    {
        GuestOffset end = offset + length;
        for (GuestOffset at = offset; at.Value < end.Value;)
        {
            CachedPiece piece = await Tables.WritablePieceAsync(held, at).ConfigureAwait(false);
            int index = Tables.IndexOf(at), count = 0;
            int most = (int)Math.Min(Geometry.Clusters(end.Value - at.Value), Tables.EntriesPerPiece - index);
            while (count < most && !disk.IsOurs(Tables.EntryAt(piece, index + count)))
            {
                count++;
            }
            if (count > 0 && !_reserved.ContainsKey(at))
            {
                (HostOffset place, count) = await AllocateDataAsync(held, count).ConfigureAwait(false);
                _reserved.Add(at, (place, count));
            }
            at += (long)Math.Max(1, count) << Geometry.ClusterBits;
        }
    }

    /// <summary>Gives back what is reserved: no table refers to it, so nobody who counts references may find it taken.</summary>
    public async ValueTask GiveBackReservedAsync(MetadataSession.Held held)
    {
        foreach ((HostOffset place, int count) in _reserved.Values)
        {
            await disk.Refcounts.AddAsync(held, place, (long)count << Geometry.ClusterBits, -1).ConfigureAwait(false);
        }
        _reserved.Clear();
    }

    /// <summary>Points entries to a new place, which holds the disk's data or, with subclusters, is merely reserved.</summary>
    public async ValueTask PointToAsync(MetadataSession.Held held, WriteMapping mapping, bool holdsData)
    {
        if (mapping.CopyStart < mapping.Offset || mapping.CopyEnd > mapping.Offset + mapping.Length)
        {
            disk.Session.Order.DataWritten(); // old data was copied: it must not be lost behind the table that points to the copy
        }
        var start = new GuestOffset(mapping.CopyStart);
        long distance = mapping.HostStart - mapping.CopyStart;
        for (GuestOffset at = start; at.Value < mapping.CopyEnd; at = Geometry.ClusterStart(at) + Geometry.ClusterSize)
        {
            CachedPiece piece = await Tables.WritablePieceAsync(held, at).ConfigureAwait(false);
            int index = Tables.IndexOf(at);
            L2Entry old = Tables.EntryAt(piece, index);
            long cluster = Geometry.ClusterStart(at).Value;
            var place = new HostOffset(cluster + distance);
            int first = Geometry.InCluster(at) / Geometry.SubclusterSize;
            int end = (int)((Math.Min(mapping.CopyEnd, cluster + Geometry.ClusterSize) - cluster) / Geometry.SubclusterSize);
            ulong bitmap = !Geometry.HasSubclusters ? 0 : holdsData ? old.BitmapWithData(first, end) : old.Bitmap;
            Tables.Set(held, piece, index, L2Entry.Normal(place, bitmap));
            if (!(disk.IsOurs(old) && old.Place == place))
            {
                Tables.FreeData(held, old);
            }
        }
    }

    /// <summary>A place will not be used: what was taken for it goes back.</summary>
    public async ValueTask AbandonAsync(MetadataSession.Held held, WriteMapping mapping)
    {
        var offset = new GuestOffset(mapping.Offset);
        CachedPiece? piece = await Tables.PieceAsync(offset, CancellationToken.None).ConfigureAwait(false);
        bool wasReserved = piece is not null && disk.IsOurs(Tables.EntryAt(piece, Tables.IndexOf(offset)));
        if (!wasReserved && !disk.IsExternal)
        {
            HostOffset start = Geometry.ClusterStart(new HostOffset(mapping.HostStart));
            long length = mapping.HostStart + (mapping.CopyEnd - mapping.CopyStart) - start.Value;
            await disk.Refcounts.AddAsync(held, start, length, -1).ConfigureAwait(false);
        }
    }

    private async ValueTask<WriteMapping> InPlaceAsync(
        MetadataSession.Held held, CachedPiece piece, int index, GuestOffset offset, long length)
    {
        BlockExtent run = disk.Extents.MapInPiece(piece, offset, offset.Value + length);
        long covered = Math.Min(length, run.Length);
        GuestOffset own = Geometry.ClusterStart(offset) + Geometry.ClusterSize; // the run may go on into clusters that are shared
        while (own.Value < offset.Value + covered && disk.IsOurs(Tables.EntryAt(piece, ++index)))
        {
            own += Geometry.ClusterSize;
        }
        covered = Math.Min(covered, own.Value - offset.Value);
        var place = new HostOffset(run.HostOffset!.Value);
        await disk.RequireNotMetadataAsync(held, place, covered).ConfigureAwait(false);
        return WriteMapping.InPlace(offset.Value, covered, disk.DataNode, place.Value);
    }

    /// <summary>A place in a host cluster that is reserved but does not hold data here: a zero cluster, or unused subclusters.</summary>
    private async ValueTask<WriteMapping> IntoReservedAsync(
        MetadataSession.Held held, L2Entry entry, GuestOffset offset, long length, int subcluster)
    {
        long cluster = Geometry.ClusterStart(offset).Value;
        long runEnd = cluster + ((long)(subcluster + entry.RunOf(subcluster, Geometry.HasSubclusters)) * Geometry.SubclusterSize);
        long end = Math.Min(offset.Value + length, runEnd);
        HostOffset place = entry.Place + Geometry.InCluster(offset);
        await disk.RequireNotMetadataAsync(held, place, end - offset.Value).ConfigureAwait(false);
        return new(
            offset.Value, end - offset.Value, disk.DataNode, place.Value, IsNew: true,
            Round.Down(offset.Value, Geometry.SubclusterSize), Round.Up(end, Geometry.SubclusterSize), HostReadsZero: false);
    }

    /// <summary>New host clusters for as much of the request as lies in one piece and gets them in a row.</summary>
    private async ValueTask<WriteMapping> AllocateForAsync(
        MetadataSession.Held held, CachedPiece piece, int index, GuestOffset offset, long length)
    {
        GuestOffset start = Geometry.ClusterStart(offset);
        long end = offset.Value + length;
        int most = (int)Math.Min(Geometry.Clusters(end - start.Value), Tables.EntriesPerPiece - index);
        int count = 1;
        while (count < most && Tables.EntryAt(piece, index + count) is var next && !disk.IsOurs(next))
        {
            Tables.RequireSound(next, start + ((long)count << Geometry.ClusterBits));
            count++;
        }
        L2Entry first = Tables.EntryAt(piece, index);
        (HostOffset place, count) = await PlaceForAsync(held, start, count).ConfigureAwait(false);
        L2Entry last = Tables.EntryAt(piece, index + count - 1);
        end = Math.Min(end, (start + ((long)count << Geometry.ClusterBits)).Value);
        long copyStart = Round.Down(offset.Value, HoldsNothing(first) ? Geometry.SubclusterSize : Geometry.ClusterSize);
        long copyEnd = Round.Up(end, HoldsNothing(last) ? Geometry.SubclusterSize : Geometry.ClusterSize);
        return new(
            offset.Value, end - offset.Value, disk.DataNode, (place + Geometry.InCluster(offset)).Value, IsNew: true, copyStart, copyEnd,
            HostReadsZero: place.Value >= disk.DataNode.Length);
    }

    private async ValueTask<(HostOffset Place, int Count)> PlaceForAsync(MetadataSession.Held held, GuestOffset start, int count)
    {
        if (disk.IsExternal)
        {
            return (new(start.Value), count); // there the disk's offset is the place
        }
        if (_reserved.Remove(start, out (HostOffset Place, int Count) reserved))
        {
            if (reserved.Count > count)
            {
                long used = (long)count << Geometry.ClusterBits;
                _reserved[start + used] = (reserved.Place + used, reserved.Count - count);
            }
            return (reserved.Place, Math.Min(count, reserved.Count));
        }
        return await AllocateDataAsync(held, count).ConfigureAwait(false);
    }

    private async ValueTask<(HostOffset Place, int Count)> AllocateDataAsync(MetadataSession.Held held, int count)
    {
        if (disk.Refcounts.Waiting > MaxPendingFree)
        {
            await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
        (HostOffset place, int got) = await disk.Allocator.AllocateAsync(held, count).ConfigureAwait(false);
        await disk.RequireNotMetadataAsync(held, place, (long)got << Geometry.ClusterBits).ConfigureAwait(false);
        return (place, got);
    }

    /// <summary>True if an entry has no host cluster whose contents would have to be copied as a whole.</summary>
    private static bool HoldsNothing(L2Entry entry) => entry is { IsCompressed: false, HasPlace: false };
}
