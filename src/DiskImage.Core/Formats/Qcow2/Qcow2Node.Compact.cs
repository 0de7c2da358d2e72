using System.Buffers;
using System.Runtime.CompilerServices;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Making the file shorter: what is unused or zero is given up, what lies last moves into the gaps, the file is cut.</summary>
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
internal sealed partial class Qcow2Node : ICompactable
{
    private const int MaxRounds = 16; // two or three are the rule. Ours
    private const int BatchEntryBytes = 64; // about what a reference, or a table's place, takes in memory
    private const int CopyBytes = 1 << 20; // looked at or moved in one request, where clusters are not larger. Ours
    private const long MaxWaiting = 512 << 20; // bytes that wait for a flush to become free. Ours

    /// <summary>References, or tables, that are kept in memory together: as many as the L2 cache has room for.</summary>
    private int MaxBatch => (int)Math.Clamp(_l2.MaxBytes / BatchEntryBytes, 1, 1 << 24);

    private int ClustersPerRequest => Math.Max(1, CopyBytes >> _geometry.ClusterBits);

    private bool IsExternal => !ReferenceEquals(_dataNode, File);

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        long before = File.Length;
        await UnderGateAsync(async () =>
        {
            await BeginCompactingAsync(cancellationToken).ConfigureAwait(false);
            await DropUnusedAsync(bytes, cancellationToken).ConfigureAwait(false);
            if (IsExternal)
            {
                await PunchDataFileAsync(cancellationToken).ConfigureAwait(false);
            }
            await PackAsync(cancellationToken).ConfigureAwait(false);
            if (_header.SnapshotCount > 0)
            {
                await RefreshFlagsAsync().ConfigureAwait(false); // what is no longer shared
            }
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await TrimAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        bytes?.Report(Length);
        return Math.Max(0, before - File.Length);
    });

    /// <summary>Makes sure that the image is sound, and frees what nothing refers to.</summary>
    private async ValueTask BeginCompactingAsync(CancellationToken cancellationToken)
    {
        if (IsReadOnly || _bitmaps is null)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: not opened for writing, so it cannot be compacted", Name);
        }
        await SettleRefcountsAsync(cancellationToken).ConfigureAwait(false); // from here on they are not late, so no mark is needed
        await SettleBitmapsAsync().ConfigureAwait(false);
        CheckReport report = await Qcow2Repairer.RunAsync(File, _header, DataFile, RepairMode.Leaks, null, cancellationToken).ConfigureAwait(false);
        if (report.Corruptions + report.CheckErrors > 0)
        {
            CheckFinding? finding = report.Findings.FirstOrDefault(f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error);
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Name}: {finding?.Message ?? $"{report.Corruptions} corruptions, {report.CheckErrors} errors."} A damaged image is not compacted. Repair it with Repair-DiskImage -Mode All first.", Name);
        }
        if (report.LeaksFixed > 0)
        {
            await ReloadAsync(forWriting: true, cancellationToken).ConfigureAwait(false);
        }
        _refcounts.EndPacking();
    }

    /// <summary>Gives up clusters that are reserved or read as zeroes, and L2 tables that are empty.</summary>
    private async ValueTask DropUnusedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (IsRawData)
        {
            return; // the tables of a raw data file stay complete
        }
        var empty = new Dictionary<long, ulong>();
        long tables = 0, all = Math.Max(1, await CountL2TablesAsync(cancellationToken).ConfigureAwait(false));
        byte[] buffer = ArrayPool<byte>.Shared.Rent(ClustersPerRequest << _geometry.ClusterBits);
        try
        {
            await foreach ((long table, ulong references) in L2TablesAsync(cancellationToken).ConfigureAwait(false))
            {
                if (await DropUnusedInAsync(table, references, buffer, cancellationToken).ConfigureAwait(false))
                {
                    empty.Add(table, references);
                }
                if (empty.Count == MaxBatch)
                {
                    await DropTablesAsync(empty, cancellationToken).ConfigureAwait(false);
                }
                bytes?.Report((long)(Length * (double)++tables / all));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        await DropTablesAsync(empty, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives up what it can of the entries of one L2 table, which is referred to so many times. True if nothing is left in it.</summary>
    private async ValueTask<bool> DropUnusedInAsync(long table, ulong references, byte[] buffer, CancellationToken cancellationToken)
    {
        bool isEmpty = true;
        for (int index = 0; index < _geometry.L2Entries;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            CachedPiece piece = await L2PieceOfAsync(table, index).ConfigureAwait(false);
            int inPiece = IndexInPiece(index);
            int stored = StoredRun(piece, inPiece);
            if (stored > 0)
            {
                await ReadStoredAsync(EntryAt(piece, inPiece).HostOffset, buffer.AsMemory(0, stored << _geometry.ClusterBits), cancellationToken).ConfigureAwait(false);
            }
            for (int i = 0; i < Math.Max(1, stored); i++, index++)
            {
                L2Entry old = EntryAt(piece, inPiece + i);
                L2Entry entry = Without(old, stored == 0 ? 0 : ZeroSubclusters(old, buffer.AsSpan(i << _geometry.ClusterBits, _geometry.ClusterSize)));
                isEmpty &= entry == default;
                if (entry != old)
                {
                    SetEntry(piece, inPiece + i, entry);
                    if (old.HostOffset != entry.HostOffset)
                    {
                        Repeat(references, () => FreeData(old));
                    }
                }
            }
            if (_refcounts.PendingFree > MaxWaiting)
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        return isEmpty;
    }

    /// <summary>How many entries from one on store data in a row, as many as one request takes; 0 if that one stores none, or compressed.</summary>
    private int StoredRun(CachedPiece piece, int index)
    {
        int count = 0, most = Math.Min(ClustersPerRequest, (_l2.PieceSize / _geometry.L2EntryBytes) - index);
        long host = EntryAt(piece, index).HostOffset;
        while (count < most && EntryAt(piece, index + count) is var entry && StoresData(entry) && entry.HostOffset == host + ((long)count << _geometry.ClusterBits))
        {
            count++;
        }
        return count;
    }

    private bool StoresData(L2Entry entry)
        => _geometry.HasSubclusters
            ? !entry.IsCompressed && ((uint)entry.Bitmap & ~(uint)(entry.Bitmap >> 32)) != 0
            : entry.KindOf(0, extended: false) == ClusterKind.Normal;

    /// <summary>Reads stored data; holes are not read.</summary>
    private async ValueTask ReadStoredAsync(long host, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int inside = (int)Math.Clamp(_dataNode.Length - host, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        for (int at = 0; at < inside;)
        {
            BlockExtent extent = await _dataNode.GetExtentAsync(host + at, inside - at, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer.Slice(at, (int)extent.Length);
            if (extent.IsZero)
            {
                part.Span.Clear();
            }
            else
            {
                await _dataNode.ReadAsync(host + at, part, cancellationToken).ConfigureAwait(false);
            }
            at += part.Length;
        }
    }

    /// <summary>The stored subclusters of an entry that hold zeroes, a bit each; without subclusters bit 0 stands for the cluster.</summary>
    private uint ZeroSubclusters(L2Entry entry, ReadOnlySpan<byte> cluster)
    {
        uint zero = 0;
        for (int i = 0; i < _geometry.SubclustersPerCluster; i++)
        {
            bool isZero = entry.KindOf(i, _geometry.HasSubclusters) == ClusterKind.Normal
                && ZeroDetection.IsZero(cluster.Slice(i * _geometry.SubclusterSize, _geometry.SubclusterSize));
            zero |= isZero ? 1u << i : 0;
        }
        return zero;
    }

    /// <summary>An entry that reads the same and keeps no cluster it does not need. Without a backing file what is unallocated reads as zeroes.</summary>
    private L2Entry Without(L2Entry entry, uint zero)
    {
        bool hasBacking = _header.BackingFile is not null;
        if (entry.IsCompressed)
        {
            return entry;
        }
        if (_geometry.HasSubclusters)
        {
            uint zeroes = (uint)(entry.Bitmap >> 32) | zero, data = (uint)entry.Bitmap & ~zeroes;
            ulong bitmap = (ulong)zeroes << 32 | data;
            return data != 0 ? entry with { Bitmap = bitmap } : hasBacking ? new L2Entry(0, bitmap) : default;
        }
        if (zero == 0 && entry.KindOf(0, extended: false) != ClusterKind.Zero)
        {
            return entry;
        }
        return !hasBacking ? default : _header.Version >= 3 ? L2Entry.Zero(0, extended: false) : entry; // version 2 cannot say zero
    }

    /// <summary>Takes L2 tables without entries out of every L1 table, and forgets the list.</summary>
    private async ValueTask DropTablesAsync(Dictionary<long, ulong> empty, CancellationToken cancellationToken)
    {
        await _order.FlushAsync(cancellationToken).ConfigureAwait(false);
        await ReplaceTablesAsync(table => empty.ContainsKey(table) ? 0 : table).ConfigureAwait(false);
        foreach ((long table, ulong references) in empty)
        {
            Repeat(references, () => _refcounts.FreeAfterFlush(table, _geometry.ClusterSize));
        }
        empty.Clear();
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Makes holes in an external data file where it stores zeroes. It reads as before, to anybody.</summary>
    private async ValueTask PunchDataFileAsync(CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(CopyBytes);
        try
        {
            for (long at = 0; at < _dataNode.Length;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                BlockExtent extent = await _dataNode.GetExtentAsync(at, Math.Min(CopyBytes, _dataNode.Length - at), cancellationToken).ConfigureAwait(false);
                if (!extent.IsZero)
                {
                    Memory<byte> part = buffer.AsMemory(0, (int)extent.Length);
                    await _dataNode.ReadAsync(at, part, cancellationToken).ConfigureAwait(false);
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
            int end = start, unit = _geometry.ClusterSize;
            while (end < bytes.Length && ZeroDetection.IsZero(bytes.Span[end..Math.Min(end + unit, bytes.Length)]))
            {
                end = Math.Min(end + unit, bytes.Length);
            }
            if (end > start)
            {
                await _dataNode.WriteZeroesAsync(offset + start, end - start, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            }
            start = end + unit;
        }
    }

    private async ValueTask<long> CountL2TablesAsync(CancellationToken cancellationToken)
    {
        long count = 0;
        await foreach (var _ in L2TablesAsync(cancellationToken).ConfigureAwait(false))
        {
            count++;
        }
        return count;
    }

    /// <summary>Every L2 table of the disk and its snapshots once, with how many L1 entries lead to it.</summary>
    private async IAsyncEnumerable<(long Table, ulong References)> L2TablesAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var shared = new HashSet<long>();
        foreach (Qcow2Snapshot? snapshot in (Qcow2Snapshot?[])[null, .. await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false)])
        {
            byte[] l1 = snapshot is null ? CopyOfL1() : await ReadL1Async(snapshot, cancellationToken).ConfigureAwait(false);
            for (int at = 0; at < l1.Length; at += 8)
            {
                long table = L2Entry.OffsetOf(BigEndian.U64(l1, at));
                if (table == 0)
                {
                    continue;
                }
                cancellationToken.ThrowIfCancellationRequested();
                ulong references = await _refcounts.GetAsync(table >> _geometry.ClusterBits, cancellationToken).ConfigureAwait(false);
                if (references == 1 || (references > 1 && shared.Add(table))) // 0: given up meanwhile
                {
                    yield return (table, references);
                }
            }
        }
    }

    private async ValueTask<byte[]> ReadL1Async(Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = new byte[snapshot.L1Size * 8];
        await File.ReadAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
        return l1;
    }

    /// <summary>
    /// Puts other places of L2 tables, or 0 for none, into all L1 tables. What they lead to must be durable. Afterwards the entries of
    /// snapshots are durable; those of the disk are with the next flush. Not to be stopped half way: that would leak.
    /// </summary>
    private async ValueTask ReplaceTablesAsync(Func<long, long> placeOf)
    {
        for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
        {
            if (Replaced(_l1[i]) is { } entry)
            {
                _l1[i] = entry;
            }
        }
        foreach (Qcow2Snapshot snapshot in await Qcow2Snapshot.ReadAllAsync(File, _header, CancellationToken.None).ConfigureAwait(false))
        {
            byte[] l1 = await ReadL1Async(snapshot, CancellationToken.None).ConfigureAwait(false);
            int first = l1.Length, end = 0;
            for (int at = 0; at < l1.Length; at += 8)
            {
                if (Replaced(BigEndian.U64(l1, at)) is { } entry)
                {
                    BigEndian.U64(l1, at, entry);
                    (first, end) = (Math.Min(first, at), at + 8);
                }
            }
            if (first < end)
            {
                await File.WriteAsync(snapshot.L1Offset + first, l1.AsMemory(first..end), CancellationToken.None).ConfigureAwait(false);
            }
        }
        await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);

        ulong? Replaced(ulong raw)
        {
            long table = L2Entry.OffsetOf(raw), place = table == 0 ? 0 : placeOf(table);
            return place == table ? null : place == 0 ? 0 : (raw & L2Entry.Copied(0)) | (ulong)place;
        }
    }

    /// <summary>The piece of an L2 table that holds an entry.</summary>
    private ValueTask<CachedPiece> L2PieceOfAsync(long table, int index)
        => _l2.GetAsync(table + Round.Down((long)index * _geometry.L2EntryBytes, _l2.PieceSize), CancellationToken.None);

    private int IndexInPiece(int index) => index & ((_l2.PieceSize / _geometry.L2EntryBytes) - 1);

    private static void Repeat(ulong times, Action action)
    {
        for (ulong i = 0; i < times; i++)
        {
            action();
        }
    }
}
