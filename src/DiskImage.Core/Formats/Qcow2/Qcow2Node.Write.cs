using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Writing: reserving clusters, pointing the tables to them, flushing, closing.</summary>
internal sealed partial class Qcow2Node
{
    /// <summary>Space that waits for a flush before it can be used again; beyond this the flush is not left to the user. Ours.</summary>
    private const long MaxPendingFree = 64 << 20;

    private readonly Dictionary<long, (long Host, int Count)> _reserved = []; // guest cluster → clusters that a write to come will use

    public ValueTask SetUnfinishedAsync(bool unfinished, CancellationToken cancellationToken)
        => _header.Version < 3 ? default : UnderGateAsync(async () =>
        {
            _isUnfinished = unfinished;
            if (!unfinished)
            {
                await SettleRefcountsAsync(cancellationToken).ConfigureAwait(false);
            }
            Qcow2Incompatible flags = unfinished ? _header.Incompatible | Qcow2Incompatible.Dirty : _header.Incompatible & ~Qcow2Incompatible.Dirty;
            await UpdateHeaderAsync(_header with { Incompatible = flags }).ConfigureAwait(false);
        });

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            CachedPiece piece = await WritableL2PieceAsync(offset).ConfigureAwait(false);
            int index = PieceIndex(offset);
            L2Entry entry = EntryAt(piece, index);
            RequireSound(entry, offset);
            if (!IsOurs(entry))
            {
                return await AllocateForAsync(piece, index, offset, length).ConfigureAwait(false);
            }
            int subcluster = _geometry.InCluster(offset) / _geometry.SubclusterSize;
            return entry.KindOf(subcluster, _geometry.HasSubclusters) == ClusterKind.Normal
                ? await InPlaceAsync(piece, index, offset, length).ConfigureAwait(false)
                : await IntoReservedAsync(entry, offset, length, subcluster).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!ReferenceEquals(_dataNode, File) || _geometry.InCluster(offset) != 0)
        {
            return;
        }
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            for (long at = offset; at < offset + length;)
            {
                CachedPiece piece = await WritableL2PieceAsync(at).ConfigureAwait(false);
                int index = PieceIndex(at), count = 0;
                int most = (int)Math.Min(_geometry.Clusters(offset + length - at), (_l2.PieceSize / _geometry.L2EntryBytes) - index);
                while (count < most && !IsOurs(EntryAt(piece, index + count)))
                {
                    count++;
                }
                if (count > 0 && !_reserved.ContainsKey(at))
                {
                    (long host, count) = await AllocateDataAsync(count).ConfigureAwait(false);
                    _reserved.Add(at, (host, count));
                }
                at += (long)Math.Max(1, count) << _geometry.ClusterBits;
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override ValueTask CommitMappingAsync(WriteMapping mapping) => PointToAsync(mapping, holdsData: true);

    /// <summary>Points entries to a new place, which holds the disk's data or, with subclusters, is merely reserved.</summary>
    private ValueTask PointToAsync(WriteMapping mapping, bool holdsData) => UnderGateAsync(async () =>
    {
        if (mapping.CopyStart < mapping.Offset || mapping.CopyEnd > mapping.Offset + mapping.Length)
        {
            _order.DataWritten(); // old data was copied: it must not be lost behind the table that points to the copy
        }
        long hostBase = mapping.HostStart - _geometry.InCluster(mapping.CopyStart) - _geometry.ClusterStart(mapping.CopyStart);
        for (long at = mapping.CopyStart; at < mapping.CopyEnd; at = _geometry.ClusterStart(at) + _geometry.ClusterSize)
        {
            CachedPiece piece = await WritableL2PieceAsync(at).ConfigureAwait(false);
            int index = PieceIndex(at);
            L2Entry old = EntryAt(piece, index);
            long cluster = _geometry.ClusterStart(at);
            long host = hostBase + cluster;
            int first = (int)(at - cluster) / _geometry.SubclusterSize;
            int end = (int)((Math.Min(mapping.CopyEnd, cluster + _geometry.ClusterSize) - cluster) / _geometry.SubclusterSize);
            SetEntry(piece, index, L2Entry.Normal(host, !_geometry.HasSubclusters ? 0 : holdsData ? old.BitmapWithData(first, end) : old.Bitmap));
            if (!(IsOurs(old) && old.HostOffset == host))
            {
                FreeData(old);
            }
        }
    });

    protected override ValueTask AbandonMappingAsync(WriteMapping mapping) => UnderGateAsync(async () =>
    {
        CachedPiece? piece = await L2PieceAsync(mapping.Offset, CancellationToken.None).ConfigureAwait(false);
        bool wasReserved = piece is not null && EntryAt(piece, PieceIndex(mapping.Offset)) is var entry && IsOurs(entry);
        if (!wasReserved && ReferenceEquals(_dataNode, File))
        {
            long start = _geometry.ClusterStart(mapping.HostStart);
            await _refcounts.AddAsync(start, mapping.HostStart + (mapping.CopyEnd - mapping.CopyStart) - start, -1).ConfigureAwait(false);
        }
    });

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => UnderGateAsync(() => FlushLockedAsync(cancellationToken));

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await UnderGateAsync(async () =>
                {
                    await SettleRefcountsAsync(CancellationToken.None).ConfigureAwait(false);
                    await SettleBitmapsAsync().ConfigureAwait(false);
                    await EndOnClusterAsync().ConfigureAwait(false);
                }).ConfigureAwait(false);
            }
        }
        finally
        {
            _gate.Dispose();
        }
    }

    /// <summary>A file that was made longer ends with a whole cluster, as programs expect that go by clusters or sectors.</summary>
    private async ValueTask EndOnClusterAsync()
    {
        long length = File.Length;
        if (length == _lengthAtOpen || _geometry.InCluster(length) == 0 || !File.GrowsOnWrite)
        {
            return;
        }
        try
        {
            await File.ResizeAsync(Round.Up(length, _geometry.ClusterSize)).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
        {
            // What is there is whole without it.
        }
    }

    /// <summary>Bits of features that are not kept right here are cleared before anything changes. Spec: "Autoclear".</summary>
    private async ValueTask PrepareForWritingAsync(CancellationToken cancellationToken)
    {
        if (_header.Has(Qcow2Incompatible.Corrupt))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Name}: the image is marked corrupt, so it is opened read-only or not at all. Repair it with Repair-DiskImage -Mode All.", Name);
        }
        if (_header.Has(Qcow2Incompatible.Dirty))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Name}: the image was not closed properly or not completed, so its refcounts cannot be relied on. Repair it before it is written to.", Name);
        }
        if (_lazyOption == true && _header.Version < 3)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: lazy-refcounts=on needs a version 3 image (compat=1.1), and this one is version {_header.Version}", Name);
        }
        _guard.Clear();
        await _refcounts.LoadAsync(_header, cancellationToken).ConfigureAwait(false);
        _guard.Protect(_header, _l1);
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false);
        _guard.SnapshotTable = (_header.SnapshotsOffset, Qcow2Snapshot.StoredTableLength(snapshots));
        await ProtectAsync(snapshots, cancellationToken).ConfigureAwait(false);
        await LoadBitmapsAsync(cancellationToken).ConfigureAwait(false);
        Qcow2AutoClear kept = Qcow2AutoClear.Bitmaps | (IsRawData ? Qcow2AutoClear.RawExternalData : Qcow2AutoClear.None);
        if ((_header.AutoClear & ~kept) != Qcow2AutoClear.None)
        {
            await UpdateHeaderAsync(_header with { AutoClear = _header.AutoClear & kept }).ConfigureAwait(false);
        }
    }

    /// <summary>Has the guard know the tables of snapshots: their L1 tables, and if all is to be looked up, what those lead to.</summary>
    private async ValueTask ProtectAsync(IReadOnlyList<Qcow2Snapshot> snapshots, CancellationToken cancellationToken)
    {
        if (_overlapCheck < Qcow2OverlapCheck.Cached)
        {
            return;
        }
        if (snapshots.Sum(s => s.L1Size * 8L) is var total && total > File.Length)
        {
            throw Corrupt($"the L1 tables of its snapshots have {total:#,0} bytes; allowed: at most the {File.Length:#,0} of the file", _header.SnapshotsOffset);
        }
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            _guard.AddTables(snapshot.L1Offset, snapshot.L1Size * 8L);
            if (_overlapCheck < Qcow2OverlapCheck.All)
            {
                continue;
            }
            byte[] l1 = new byte[snapshot.L1Size * 8];
            await File.ReadPaddedAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < snapshot.L1Size; i++)
            {
                if (L2Entry.OffsetOf(BigEndian.U64(l1, i * 8)) is > 0 and var l2)
                {
                    _guard.AddTable(l2);
                }
            }
        }
    }

    /// <summary>Writes the fixed fields of the header, whose variable parts have not changed.</summary>
    private async ValueTask UpdateHeaderAsync(Qcow2Header header)
    {
        header = header with { RefcountTableOffset = _refcounts.TableOffset, RefcountTableClusters = _refcounts.TableClusters }; // it may have moved
        byte[] cluster = header.ToCluster(Name);
        await File.WriteAsync(Qcow2Header.SizeAt, cluster.AsMemory(Qcow2Header.SizeAt..(header.Version < 3 ? Qcow2Header.V2Length : 96))).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        _header = header;
    }

    /// <summary>
    /// The external data file reads like the disk itself, and must go on doing so. Over a backing file it cannot, whatever the bit says.
    /// </summary>
    private bool IsRawData => (_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None && _header.BackingFile is null;

    /// <summary>True if an entry's host cluster belongs to this entry alone.</summary>
    private bool IsOurs(L2Entry entry)
        => !entry.IsCompressed && entry.IsCopied && (entry.HostOffset != 0 || !ReferenceEquals(_dataNode, File));

    private async ValueTask<WriteMapping> InPlaceAsync(CachedPiece piece, int index, long offset, long length)
    {
        BlockExtent run = MapInPiece(piece, offset, offset + length);
        long covered = Math.Min(length, run.Length);
        long own = _geometry.ClusterStart(offset) + _geometry.ClusterSize; // the run may go on into clusters that are shared
        while (own < offset + covered && IsOurs(EntryAt(piece, ++index)))
        {
            own += _geometry.ClusterSize;
        }
        covered = Math.Min(covered, own - offset);
        await RequireNotMetadataAsync(run.HostOffset!.Value, covered).ConfigureAwait(false);
        return WriteMapping.InPlace(offset, covered, _dataNode, run.HostOffset!.Value);
    }

    /// <summary>A place in a host cluster that is reserved but does not hold data here: a zero cluster, or unused subclusters.</summary>
    private async ValueTask<WriteMapping> IntoReservedAsync(L2Entry entry, long offset, long length, int subcluster)
    {
        long cluster = _geometry.ClusterStart(offset);
        long runEnd = cluster + ((long)(subcluster + entry.RunOf(subcluster, _geometry.HasSubclusters)) * _geometry.SubclusterSize);
        long end = Math.Min(offset + length, runEnd);
        long host = entry.HostOffset + (offset - cluster);
        await RequireNotMetadataAsync(host, end - offset).ConfigureAwait(false);
        return new(
            offset, end - offset, _dataNode, host, IsNew: true,
            Round.Down(offset, _geometry.SubclusterSize), Round.Up(end, _geometry.SubclusterSize), HostReadsZero: false);
    }

    /// <summary>New host clusters for as much of the request as lies in one piece and gets them in a row.</summary>
    private async ValueTask<WriteMapping> AllocateForAsync(CachedPiece piece, int index, long offset, long length)
    {
        long start = _geometry.ClusterStart(offset);
        long wanted = _geometry.Clusters(offset + length - start);
        int most = (int)Math.Min(wanted, (_l2.PieceSize / _geometry.L2EntryBytes) - index);
        int count = 1;
        while (count < most && EntryAt(piece, index + count) is var next && !IsOurs(next))
        {
            RequireSound(next, start + ((long)count << _geometry.ClusterBits));
            count++;
        }
        L2Entry first = EntryAt(piece, index);
        (long host, count) = await PlaceForAsync(start, count).ConfigureAwait(false);
        L2Entry last = EntryAt(piece, index + count - 1);
        long end = Math.Min(offset + length, start + ((long)count << _geometry.ClusterBits));
        long copyStart = Round.Down(offset, HoldsNothing(first) ? _geometry.SubclusterSize : _geometry.ClusterSize);
        long copyEnd = Round.Up(end, HoldsNothing(last) ? _geometry.SubclusterSize : _geometry.ClusterSize);
        return new(offset, end - offset, _dataNode, host + (offset - start), IsNew: true, copyStart, copyEnd, HostReadsZero: host >= _dataNode.Length);
    }

    private async ValueTask<(long Host, int Count)> PlaceForAsync(long start, int count)
    {
        if (!ReferenceEquals(_dataNode, File))
        {
            return (start, count);
        }
        if (_reserved.Remove(start, out (long Host, int Count) place))
        {
            if (place.Count > count)
            {
                long used = (long)count << _geometry.ClusterBits;
                _reserved[start + used] = (place.Host + used, place.Count - count);
            }
            return (place.Host, Math.Min(count, place.Count));
        }
        return await AllocateDataAsync(count).ConfigureAwait(false);
    }

    private async ValueTask<(long Host, int Count)> AllocateDataAsync(int count)
    {
        if (_refcounts.PendingFree > MaxPendingFree)
        {
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
        (long host, int got) = await _refcounts.AllocateAsync(count).ConfigureAwait(false);
        await RequireNotMetadataAsync(host, (long)got << _geometry.ClusterBits).ConfigureAwait(false);
        return (host, got);
    }

    /// <summary>True if an entry has no host cluster whose contents would have to be copied as a whole.</summary>
    private static bool HoldsNothing(L2Entry entry) => !entry.IsCompressed && entry.HostOffset == 0;

    /// <summary>The piece of the L2 table that maps an offset, in a table that is this disk's own: made or unshared if need be.</summary>
    private async ValueTask<CachedPiece> WritableL2PieceAsync(long guest)
    {
        int l1Index = _geometry.L1Index(guest);
        ulong entry = L1Entry(guest);
        long old = L2Entry.OffsetOf(entry);
        if (old == 0 || (entry & L2Entry.Copied(0)) == 0)
        {
            RequireAligned(old, guest, "L1 entry");
            (long table, _) = await _refcounts.AllocateAsync(1).ConfigureAwait(false);
            try
            {
                await RequireNotMetadataAsync(table, _geometry.ClusterSize).ConfigureAwait(false);
                _l2.Forget(table, _geometry.ClusterSize);
                await FillL2Async(table, old, guest).ConfigureAwait(false);
            }
            catch
            {
                _l2.Forget(table, _geometry.ClusterSize);
                await _refcounts.AddAsync(table, _geometry.ClusterSize, -1).ConfigureAwait(false);
                throw;
            }
            _l1[l1Index] = L2Entry.Copied(table);
            _guard.AddTable(table);
            if (old != 0)
            {
                _refcounts.FreeAfterFlush(old, _geometry.ClusterSize);
            }
        }
        return (await L2PieceAsync(guest, CancellationToken.None).ConfigureAwait(false))!;
    }

    /// <summary>Makes a new L2 table: a copy of another, which maps an offset, or of nothing if that is at 0.</summary>
    private async ValueTask FillL2Async(long table, long from, long guest)
    {
        for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
        {
            // In this order: reading a piece may write back all that are changed, and a new one must not go with them before it is filled.
            CachedPiece? source = from == 0 ? null : await L2PieceAsync(from, at, guest, CancellationToken.None).ConfigureAwait(false);
            CachedPiece target = await _l2.GetNewAsync(table + at).ConfigureAwait(false);
            source?.Bytes.CopyTo(target.Bytes, 0);
        }
    }

    /// <summary>An entry was replaced: its host space goes once that is durable.</summary>
    private void FreeData(L2Entry old)
    {
        if (old.IsCompressed)
        {
            (long offset, int length) = old.CompressedRange(_geometry.ClusterBits);
            _refcounts.FreeAfterFlush(offset, length);
        }
        else if (old.HostOffset != 0 && ReferenceEquals(_dataNode, File))
        {
            _refcounts.FreeAfterFlush(old.HostOffset, _geometry.ClusterSize);
        }
    }

    private async ValueTask FlushLockedAsync(CancellationToken cancellationToken)
    {
        foreach ((long host, int count) in _reserved.Values) // no table refers to them, so nobody who counts references may find them taken
        {
            await _refcounts.AddAsync(host, (long)count << _geometry.ClusterBits, -1).ConfigureAwait(false);
        }
        _reserved.Clear();
        await _order.FlushDataAsync(cancellationToken).ConfigureAwait(false);
        await _order.FlushAsync(cancellationToken).ConfigureAwait(false);
        if (_refcounts.TableOffset != 0 && _refcounts.TableOffset != _header.RefcountTableOffset)
        {
            _header = _header with { RefcountTableOffset = _refcounts.TableOffset, RefcountTableClusters = _refcounts.TableClusters }; // it grew, and is in the file
        }
        var free = new List<(long Offset, long Length)>();
        try
        {
            await _refcounts.ReleaseAsync(free).ConfigureAwait(false);
            await _order.WriteBackAsync().ConfigureAwait(false); // may be lost in a crash: then it leaks
        }
        finally
        {
            free.ForEach(f => _l2.Forget(f.Offset, f.Length)); // also when it failed half way: their next owner may write there
        }
        if (_discardToHost)
        {
            foreach ((long offset, long length) in free)
            {
                if (offset < File.Length)
                {
                    await File.DiscardAsync(offset, Math.Min(length, File.Length - offset), cancellationToken).ConfigureAwait(false);
                }
            }
        }
    }

    private async ValueTask UnderGateAsync(Func<ValueTask> action)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            await action().ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }
}
