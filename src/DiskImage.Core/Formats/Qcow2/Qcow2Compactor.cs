using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Makes the file shorter: what is unused or zero is given up, what lies last moves into the gaps, the file is cut.</summary>
/// <remarks>
/// <para>Idea. Entries whose data reads as zeroes give their cluster up; tables that are empty then go as well. The clusters that are
/// still in use say where the file could end. Only what lies behind that place has to move, and only for it is it asked who refers
/// to it: one walk over all tables, for as many clusters at a time as fit in memory. Rounds follow until one gains nothing, since
/// what has moved leaves refcount blocks without anything to count.</para>
/// <para>Nothing is changed that a guest or a snapshot can see. A table that several L1 tables share is changed in place, once, for all
/// of them; a cluster that several tables refer to moves with all its references and its refcount.</para>
/// <para>Order of writes, for everything that moves: the copy, its refcount, flush, the reference, flush, the old refcount. A crash
/// leaves every reference at one of two places that hold the same, and leaks at most. So the work can be stopped anywhere.</para>
/// <para>It runs alone, and holds the metadata lock from end to end. Left out: compressed clusters are not looked into, and
/// clusters that look the same are not joined.</para>
/// </remarks>
internal sealed class Qcow2Compactor(Qcow2Disk disk, MetadataSession.Held held)
{
    /// <summary>Bytes looked at or moved in one request, where clusters are not larger. Ours.</summary>
    public const int RequestBytes = 1 << 20;

    private const long MaxWaiting = 512 << 20; // bytes that wait for a flush to become free. Ours

    private readonly Qcow2TableWalk _walk = new(disk, held);

    private BlockNode File => disk.File;

    private Qcow2Tables Tables => disk.Tables;

    private Qcow2Geometry Geometry => disk.Geometry;

    private int ClustersPerRequest => Math.Max(1, RequestBytes >> Geometry.ClusterBits);

    /// <summary>Compacts the file; what cannot be moved stays. Cancelled between two steps, it leaves a whole image.</summary>
    public async ValueTask RunAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await BeginAsync(cancellationToken).ConfigureAwait(false);
        await DropUnusedAsync(bytes, cancellationToken).ConfigureAwait(false);
        if (disk.IsExternal)
        {
            await PunchDataFileAsync(cancellationToken).ConfigureAwait(false);
        }
        await new Qcow2Packer(disk, held).RunAsync(cancellationToken).ConfigureAwait(false);
        if (disk.Header.SnapshotCount > 0)
        {
            await new Qcow2L1Tables(disk).RefreshFlagsAsync(held).ConfigureAwait(false); // what is no longer shared
        }
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await disk.TrimAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Flushes where so much waits for it that little would be left to move things to.</summary>
    public static ValueTask FlushIfMuchWaitsAsync(Qcow2Disk disk, MetadataSession.Held held, CancellationToken cancellationToken)
        => disk.Refcounts.Waiting > MaxWaiting ? disk.FlushAsync(held, cancellationToken) : default;

    /// <summary>Makes sure that the image is sound, and frees what nothing refers to.</summary>
    private async ValueTask BeginAsync(CancellationToken cancellationToken)
    {
        if (disk.IsReadOnly || disk.Bitmaps.All is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly, $"{disk.Name}: not opened for writing, so it cannot be compacted", disk.Name);
        }
        await disk.SettleAsync(held, cancellationToken).ConfigureAwait(false); // from here on refcounts are not late, so no mark is needed
        CheckReport report = await Qcow2Repairer.RunAsync(
            File, disk.Header, disk.DataFile, RepairMode.Leaks, null, cancellationToken).ConfigureAwait(false);
        if (report.Corruptions + report.CheckErrors > 0)
        {
            CheckFinding? finding = report.Findings.FirstOrDefault(f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error);
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{disk.Name}: {finding?.Message ?? $"{report.Corruptions} corruptions, {report.CheckErrors} errors."} A damaged image"
                    + $" is not compacted."
                    + $" Repair it with {new Remedy(RemedyKind.Repair)} first.",
                disk.Name);
        }
        if (report.LeaksFixed > 0)
        {
            await disk.ReloadAsync(held, forWriting: true).ConfigureAwait(false);
        }
        disk.Allocator.EndPacking();
    }

    /// <summary>Gives up clusters that are reserved or read as zeroes, and L2 tables that are empty.</summary>
    private async ValueTask DropUnusedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (disk.IsRawData)
        {
            return; // the tables of a raw data file stay complete
        }
        var empty = new Dictionary<HostOffset, ulong>();
        long tables = 0, all = Math.Max(1, await _walk.CountAsync(cancellationToken).ConfigureAwait(false));
        byte[] buffer = ArrayPool<byte>.Shared.Rent(ClustersPerRequest << Geometry.ClusterBits);
        try
        {
            await foreach ((HostOffset table, ulong references) in _walk.TablesAsync(cancellationToken).ConfigureAwait(false))
            {
                if (await DropUnusedInAsync(table, references, buffer, cancellationToken).ConfigureAwait(false))
                {
                    empty.Add(table, references);
                }
                if (empty.Count == _walk.MaxBatch)
                {
                    await DropTablesAsync(empty, cancellationToken).ConfigureAwait(false);
                }
                bytes?.Report((long)(disk.Length * (double)++tables / all));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        await DropTablesAsync(empty, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Gives up what it can of the entries of one L2 table, which is referred to so many times. True if nothing is left in it.
    /// </summary>
    private async ValueTask<bool> DropUnusedInAsync(HostOffset table, ulong references, byte[] buffer, CancellationToken cancellationToken)
    {
        bool isEmpty = true;
        for (int index = 0; index < Geometry.L2Entries;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            CachedPiece piece = await Tables.PieceOfAsync(table, index).ConfigureAwait(false);
            int inPiece = Tables.IndexInPiece(index);
            int stored = StoredRun(piece, inPiece);
            if (stored > 0)
            {
                Memory<byte> data = buffer.AsMemory(0, stored << Geometry.ClusterBits);
                await ReadStoredAsync(Tables.EntryAt(piece, inPiece).Place, data, cancellationToken).ConfigureAwait(false);
            }
            for (int i = 0; i < Math.Max(1, stored); i++, index++)
            {
                L2Entry old = Tables.EntryAt(piece, inPiece + i);
                uint zero = stored == 0 ? 0 : ZeroSubclusters(old, buffer.AsSpan(i << Geometry.ClusterBits, Geometry.ClusterSize));
                L2Entry entry = Without(old, zero);
                isEmpty &= entry == default;
                if (entry != old)
                {
                    Tables.Set(held, piece, inPiece + i, entry);
                    if (old.Place != entry.Place)
                    {
                        Tables.FreeData(held, old, references);
                    }
                }
            }
            await FlushIfMuchWaitsAsync(disk, held, cancellationToken).ConfigureAwait(false);
        }
        return isEmpty;
    }

    /// <summary>
    /// How many entries from one on store data in a row, as many as one request takes; 0 if that one stores none, or compressed.
    /// </summary>
    private int StoredRun(CachedPiece piece, int index)
    {
        int count = 0, most = Math.Min(ClustersPerRequest, Tables.EntriesPerPiece - index);
        HostOffset place = Tables.EntryAt(piece, index).Place;
        while (count < most
            && Tables.EntryAt(piece, index + count) is var entry && StoresData(entry)
            && entry.Place == place + ((long)count << Geometry.ClusterBits))
        {
            count++;
        }
        return count;
    }

    private bool StoresData(L2Entry entry)
        => disk.Encryption is null // else zeroes do not look like any
            && (Geometry.HasSubclusters
                ? !entry.IsCompressed && ((uint)entry.Bitmap & ~(uint)(entry.Bitmap >> 32)) != 0
                : entry.KindOf(0, extended: false) == ClusterKind.Normal);

    /// <summary>Reads stored data; holes are not read.</summary>
    private async ValueTask ReadStoredAsync(HostOffset place, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        BlockNode data = disk.DataNode;
        int inside = (int)Math.Clamp(data.Length - place.Value, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        for (int at = 0; at < inside;)
        {
            BlockExtent extent = await data.GetExtentAsync(place.Value + at, inside - at, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer.Slice(at, (int)extent.Length);
            if (extent.IsZero)
            {
                part.Span.Clear();
            }
            else
            {
                await data.ReadAsync(place.Value + at, part, cancellationToken).ConfigureAwait(false);
            }
            at += part.Length;
        }
    }

    /// <summary>
    /// The stored subclusters of an entry that hold zeroes, a bit each; without subclusters bit 0 stands for the cluster.
    /// </summary>
    private uint ZeroSubclusters(L2Entry entry, ReadOnlySpan<byte> cluster)
    {
        uint zero = 0;
        for (int i = 0; i < Geometry.SubclustersPerCluster; i++)
        {
            bool isZero = entry.KindOf(i, Geometry.HasSubclusters) == ClusterKind.Normal
                && ZeroDetection.IsZero(cluster.Slice(i * Geometry.SubclusterSize, Geometry.SubclusterSize));
            zero |= isZero ? 1u << i : 0;
        }
        return zero;
    }

    /// <summary>
    /// An entry that reads the same and keeps no cluster it does not need. Without a backing file what is unallocated reads as zeroes.
    /// </summary>
    private L2Entry Without(L2Entry entry, uint zero)
    {
        bool hasBacking = disk.Header.BackingFile is not null;
        if (entry.IsCompressed)
        {
            return entry;
        }
        if (Geometry.HasSubclusters)
        {
            uint zeroes = (uint)(entry.Bitmap >> 32) | zero, data = (uint)entry.Bitmap & ~zeroes;
            ulong bitmap = (ulong)zeroes << 32 | data;
            return data != 0 ? entry with { Bitmap = bitmap } : hasBacking ? new L2Entry(0, bitmap) : default;
        }
        if (zero == 0 && entry.KindOf(0, extended: false) != ClusterKind.Zero)
        {
            return entry;
        }
        return !hasBacking ? default : disk.Header.Version >= 3 ? L2Entry.Zero(null, extended: false) : entry; // version 2 cannot say zero
    }

    /// <summary>Takes L2 tables without entries out of every L1 table, and forgets the list.</summary>
    private async ValueTask DropTablesAsync(Dictionary<HostOffset, ulong> empty, CancellationToken cancellationToken)
    {
        await disk.Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false);
        await _walk.ReplaceAsync(table => empty.ContainsKey(table) ? default : table).ConfigureAwait(false);
        foreach ((HostOffset table, ulong references) in empty)
        {
            disk.Refcounts.FreeAfterFlush(held, table, Geometry.ClusterSize, references);
        }
        empty.Clear();
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Makes holes in an external data file where it stores zeroes. It reads as before, to anybody.</summary>
    private async ValueTask PunchDataFileAsync(CancellationToken cancellationToken)
    {
        BlockNode data = disk.DataNode;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(RequestBytes);
        try
        {
            for (long at = 0; at < data.Length;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                BlockExtent extent = await data.GetExtentAsync(
                    at, Math.Min(RequestBytes, data.Length - at), cancellationToken).ConfigureAwait(false);
                if (!extent.IsZero)
                {
                    Memory<byte> part = buffer.AsMemory(0, (int)extent.Length);
                    await data.ReadAsync(at, part, cancellationToken).ConfigureAwait(false);
                    await PunchAsync(at, part, cancellationToken).ConfigureAwait(false);
                }
                at = extent.End;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async ValueTask PunchAsync(long offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        for (int start = 0; start < bytes.Length;)
        {
            int end = start, unit = Geometry.ClusterSize;
            while (end < bytes.Length && ZeroDetection.IsZero(bytes.Span[end..Math.Min(end + unit, bytes.Length)]))
            {
                end = Math.Min(end + unit, bytes.Length);
            }
            if (end > start)
            {
                await disk.DataNode.WriteZeroesAsync(
                    offset + start, end - start, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            }
            start = end + unit;
        }
    }
}
