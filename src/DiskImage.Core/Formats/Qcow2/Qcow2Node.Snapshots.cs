using System.Globalization;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Internal snapshots. Spec: qcow2, "Snapshots".</summary>
/// <remarks>
/// <para>A snapshot is a copy of the L1 table; L2 tables and data are shared with it and counted once more. Order: mark the image dirty
/// (version 3: a crash from here on is put right by rebuilding the refcounts), make the tables that are kept durable, count, write
/// the new snapshot table beside the old one, switch the header in one write, clear the mark. Only then are the old tables and
/// counts let go.</para>
/// <para>Restoring copies the snapshot's L1 table to a new place and switches to it in the same write as the size; deleting takes the
/// entry out of the table first and lowers the counts afterwards. Everything runs alone: no request is in flight.</para>
/// </remarks>
internal sealed partial class Qcow2Node : ISnapshots
{
    public async ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken)
        => [.. (await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false)).Select(Public)];

    public ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken) => ChangeSnapshotsAsync(async snapshots =>
    {
        if (snapshots.Count >= Qcow2Header.MaxSnapshots)
        {
            throw new DiskImageException(DiskImageErrorKind.OutOfRange, $"{Name}: holds {snapshots.Count} snapshots already, the most an image can have", Name);
        }
        byte[] l1 = CopyOfL1();
        await ShareAsync(l1, +1, isActive: true).ConfigureAwait(false);
        long place = await WriteL1Async(l1).ConfigureAwait(false);
        var snapshot = new Qcow2Snapshot
        {
            Id = (snapshots.Select(s => long.TryParse(s.Id, NumberStyles.None, CultureInfo.InvariantCulture, out long id) ? id : 0).DefaultIfEmpty().Max() + 1)
                .ToString(CultureInfo.InvariantCulture),
            Name = name,
            L1Offset = place,
            L1Size = _header.L1Size,
            DateSeconds = (uint)Math.Clamp(taken.ToUnixTimeSeconds(), 0, uint.MaxValue),
            DateNanoseconds = (uint)(taken.Ticks % TimeSpan.TicksPerSecond * 100),
            VirtualSize = _header.Size,
        };
        await SwitchSnapshotsAsync([.. snapshots, snapshot], _header).ConfigureAwait(false);
        _guard.AddTables(place, l1.Length);
        return snapshot;
    }, cancellationToken);

    public ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken) => HoldsBitmaps ? throw BitmapsWouldBeStale() : ChangeSnapshotsAsync(async snapshots =>
    {
        Qcow2Snapshot snapshot = Find(snapshots, idOrName, s => s.Id, s => s.Name);
        byte[] l1 = new byte[Math.Max(snapshot.L1Size, (int)_geometry.L1EntriesFor(snapshot.VirtualSize ?? _header.Size)) * 8];
        await File.ReadAsync(snapshot.L1Offset, l1.AsMemory(0, snapshot.L1Size * 8), cancellationToken).ConfigureAwait(false);
        byte[] old = CopyOfL1();
        (long oldOffset, long oldLength) = (_l1.HostOffset, _l1.Count * 8L);
        await ShareAsync(l1, +1, isActive: true).ConfigureAwait(false);
        long place = await WriteL1Async(l1).ConfigureAwait(false);
        await SwitchL1Async(place, l1, snapshot.VirtualSize ?? _header.Size).ConfigureAwait(false);
        await ShareAsync(old, -1, isActive: false).ConfigureAwait(false);
        _refcounts.FreeAfterFlush(oldOffset, oldLength);
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        await RefreshFlagsAsync().ConfigureAwait(false);
        return snapshot;
    }, cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken)
        => DeleteAsync(snapshots => Find(snapshots, nameOrId, s => s.Name, s => s.Id), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken)
        => DeleteAsync(snapshots => Find([.. snapshots.Where(s => s.Name.Equals(name, StringComparison.Ordinal))], id, s => s.Id, s => s.Id), cancellationToken);

    private ValueTask<DiskSnapshot> DeleteAsync(Func<IReadOnlyList<Qcow2Snapshot>, Qcow2Snapshot> find, CancellationToken cancellationToken) => ChangeSnapshotsAsync(async snapshots =>
    {
        Qcow2Snapshot snapshot = find(snapshots);
        byte[] l1 = new byte[snapshot.L1Size * 8];
        await File.ReadAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
        await SwitchSnapshotsAsync([.. snapshots.Where(s => !ReferenceEquals(s, snapshot))], _header).ConfigureAwait(false);
        await ShareAsync(l1, -1, isActive: false).ConfigureAwait(false);
        _refcounts.FreeAfterFlush(snapshot.L1Offset, l1.Length);
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        await RefreshFlagsAsync().ConfigureAwait(false);
        return snapshot;
    }, cancellationToken);

    public async ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        await FlushAsync(cancellationToken).ConfigureAwait(false);
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false);
        Qcow2Snapshot snapshot = Find(snapshots, idOrName, s => s.Id, s => s.Name);
        long size = snapshot.VirtualSize ?? _header.Size;
        if (snapshot.L1Size < _geometry.L1EntriesFor(size) || _geometry.InCluster(snapshot.L1Offset) != 0)
        {
            throw Corrupt($"snapshot '{snapshot.Name}' has an L1 table of {snapshot.L1Size} entries at offset {snapshot.L1Offset:#,0} for {size:#,0} bytes", snapshot.L1Offset);
        }
        Qcow2Header header = _header with { Size = size, L1TableOffset = snapshot.L1Offset, L1Size = snapshot.L1Size, Incompatible = _header.Incompatible & ~Qcow2Incompatible.Dirty, AutoClear = _header.AutoClear & ~Qcow2AutoClear.Bitmaps };
        BlockNode? dataFile = ReferenceEquals(_dataNode, File) ? null : new BorrowedNode(_dataNode, isReadOnly: true);
        return await OpenAsync(
            new BorrowedNode(File, isReadOnly: true), dataFile, Backing is null ? null : new BorrowedNode(Backing, isReadOnly: true), header, new Qcow2OpenOptions(), forRepair: false, cancellationToken).ConfigureAwait(false);
    }

    private ValueTask<DiskSnapshot> ChangeSnapshotsAsync(Func<IReadOnlyList<Qcow2Snapshot>, ValueTask<Qcow2Snapshot>> change, CancellationToken cancellationToken)
        => AloneAsync(async () =>
        {
            if (IsReadOnly)
            {
                throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so its snapshots cannot be changed", Name);
            }
            if (!ReferenceEquals(_dataNode, File))
            {
                throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: its data is in an external file, which snapshots cannot share", Name);
            }
            DiskSnapshot? result = null;
            await UnderGateAsync(async () =>
            {
                IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false);
                await SettleRefcountsAsync(cancellationToken).ConfigureAwait(false);
                await SettleBitmapsAsync().ConfigureAwait(false);
                bool marks = _header.Version >= 3;
                if (marks)
                {
                    await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible | Qcow2Incompatible.Dirty }).ConfigureAwait(false);
                }
                try
                {
                    result = Public(await change(snapshots).ConfigureAwait(false));
                }
                catch (DiskImageException)
                {
                    await UndoAsync().ConfigureAwait(false);
                    throw;
                }
                await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
                if (marks)
                {
                    await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible & ~Qcow2Incompatible.Dirty }).ConfigureAwait(false);
                }
            }).ConfigureAwait(false);
            return result!;
        });

    /// <summary>A change failed half way, perhaps after counting some references: counts them anew.</summary>
    private async ValueTask UndoAsync()
    {
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        _ = await new Qcow2Repairer(File, _header, null, CancellationToken.None).RunAsync(RepairMode.All).ConfigureAwait(false);
        await ReloadAsync(forWriting: true, CancellationToken.None).ConfigureAwait(false);
    }

    private byte[] CopyOfL1() => _l1.Bytes.ToArray();

    /// <summary>
    /// Counts everything that an L1 table refers to once more or once less. Counting up an active table also clears its "refcount is
    /// exactly one" flags, in the tables and in <paramref name="l1"/>.
    /// </summary>
    private async ValueTask ShareAsync(byte[] l1, int change, bool isActive)
    {
        for (int i = 0; i < l1.Length / 8; i++)
        {
            long l2 = L2Entry.OffsetOf(BigEndian.U64(l1, i * 8));
            if (l2 == 0)
            {
                continue;
            }
            RequireAligned(l2, i * _geometry.L2Span, "L1 entry");
            if (isActive)
            {
                BigEndian.U64(l1, i * 8, (ulong)l2);
                if (i < _l1.Count && L2Entry.OffsetOf(_l1[i]) == l2 && _l1[i] != (ulong)l2)
                {
                    _l1[i] = (ulong)l2;
                }
            }
            for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
            {
                CachedPiece piece = await _l2.GetAsync(l2 + at, CancellationToken.None).ConfigureAwait(false);
                await ShareEntriesAsync(piece, change, clearFlags: isActive).ConfigureAwait(false);
            }
            await CountAsync(l2, _geometry.ClusterSize, change).ConfigureAwait(false);
        }
    }

    private async ValueTask ShareEntriesAsync(CachedPiece piece, int change, bool clearFlags)
    {
        if (!ReferenceEquals(_dataNode, File))
        {
            return; // what lies in an external data file has no refcounts
        }
        long runStart = 0, runLength = 0; // neighbouring clusters are counted together
        for (int index = 0; index < _l2.PieceSize / _geometry.L2EntryBytes; index++)
        {
            L2Entry entry = EntryAt(piece, index);
            if (entry.IsCompressed)
            {
                (long offset, int length) = entry.CompressedRange(_geometry.ClusterBits);
                await CountAsync(offset, length, change).ConfigureAwait(false);
            }
            else if (entry.HostOffset != 0)
            {
                if (clearFlags && entry.IsCopied)
                {
                    SetEntry(piece, index, entry.WithCopied(false));
                }
                if (entry.HostOffset != runStart + runLength)
                {
                    await CountAsync(runStart, runLength, change).ConfigureAwait(false);
                    (runStart, runLength) = (entry.HostOffset, 0);
                }
                runLength += _geometry.ClusterSize;
            }
        }
        await CountAsync(runStart, runLength, change).ConfigureAwait(false);
    }

    private async ValueTask CountAsync(long offset, long length, int change)
    {
        if (length == 0)
        {
            return;
        }
        if (change > 0)
        {
            await _refcounts.AddAsync(offset, length, +1).ConfigureAwait(false);
        }
        else
        {
            _refcounts.FreeAfterFlush(offset, length);
        }
    }

    /// <summary>Sets the "refcount is exactly one" flags of the active tables where counts went down to one.</summary>
    private async ValueTask RefreshFlagsAsync()
    {
        for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
        {
            long l2 = L2Entry.OffsetOf(_l1[i]);
            if (l2 == 0 || await _refcounts.GetAsync(l2 >> _geometry.ClusterBits, CancellationToken.None).ConfigureAwait(false) != 1)
            {
                continue; // a shared table's entries keep their flags clear: they are reached through the other table, too
            }
            if (_l1[i] != L2Entry.Copied(l2))
            {
                _l1[i] = L2Entry.Copied(l2);
            }
            for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
            {
                for (int index = 0; index < _l2.PieceSize / _geometry.L2EntryBytes; index++)
                {
                    CachedPiece piece = await _l2.GetAsync(l2 + at, CancellationToken.None).ConfigureAwait(false);
                    L2Entry entry = EntryAt(piece, index);
                    if (!entry.IsCompressed && entry.HostOffset != 0 && !entry.IsCopied
                        && await _refcounts.GetAsync(entry.HostOffset >> _geometry.ClusterBits, CancellationToken.None).ConfigureAwait(false) == 1)
                    {
                        SetEntry(piece, index, entry.WithCopied(true));
                    }
                }
            }
        }
    }

    /// <summary>Writes an L1 table to a new place, 0 if it has no entries, and makes everything so far durable.</summary>
    private async ValueTask<long> WriteL1Async(byte[] l1)
    {
        long place = 0;
        if (l1.Length > 0)
        {
            place = await _refcounts.AllocateContiguousAsync(_geometry.Clusters(l1.Length)).ConfigureAwait(false);
            await RequireNotMetadataAsync(place, l1.Length).ConfigureAwait(false);
            byte[] padded = new byte[Round.Up(l1.Length, _geometry.ClusterSize)];
            l1.CopyTo(padded, 0);
            await File.WriteAsync(place, padded).ConfigureAwait(false);
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        return place;
    }

    /// <summary>Makes another L1 table, already written, the active one, together with another size.</summary>
    private async ValueTask SwitchL1Async(long place, byte[] l1, long size)
    {
        await UpdateHeaderAsync(_header with { L1TableOffset = place, L1Size = l1.Length / 8, Size = size }).ConfigureAwait(false);
        _l1.Replace(place, l1);
        _guard.Protect(_header, _l1);
    }

    /// <summary>Writes a new snapshot table beside the old one and switches to it.</summary>
    private async ValueTask SwitchSnapshotsAsync(IReadOnlyCollection<Qcow2Snapshot> snapshots, Qcow2Header header)
    {
        byte[] table = Qcow2Snapshot.ToTable(snapshots);
        (long oldOffset, long oldLength) = _guard.SnapshotTable;
        long place = 0;
        if (table.Length > 0)
        {
            place = await _refcounts.AllocateContiguousAsync(_geometry.Clusters(table.Length)).ConfigureAwait(false);
            await RequireNotMetadataAsync(place, table.Length).ConfigureAwait(false);
            await File.WriteAsync(place, table).ConfigureAwait(false);
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await UpdateHeaderAsync(header with { SnapshotCount = snapshots.Count, SnapshotsOffset = place }).ConfigureAwait(false);
        _guard.SnapshotTable = (place, table.Length);
        if (oldLength > 0)
        {
            _refcounts.FreeAfterFlush(oldOffset, oldLength);
        }
    }

    private Qcow2Snapshot Find(IReadOnlyList<Qcow2Snapshot> snapshots, string idOrName, Func<Qcow2Snapshot, string> first, Func<Qcow2Snapshot, string> second)
        => snapshots.FirstOrDefault(s => first(s).Equals(idOrName, StringComparison.Ordinal))
            ?? snapshots.FirstOrDefault(s => second(s).Equals(idOrName, StringComparison.Ordinal))
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                snapshots.Count == 0 ? $"{Name}: has no snapshots" : $"{Name}: no snapshot '{idOrName}'. It has: {string.Join(", ", snapshots.Take(20).Select(s => $"{s.Id} ({s.Name})"))}",
                Name);

    private DiskSnapshot Public(Qcow2Snapshot snapshot) => new()
    {
        Id = snapshot.Id,
        Name = snapshot.Name,
        VmStateSize = (long)Math.Min(snapshot.VmStateSize, long.MaxValue),
        Date = DateTimeOffset.FromUnixTimeSeconds(snapshot.DateSeconds).AddTicks(Math.Min(snapshot.DateNanoseconds, 999_999_999) / 100),
        VmClock = TimeSpan.FromTicks((long)Math.Min(snapshot.VmClockNanoseconds / 100, long.MaxValue)),
        ICount = snapshot.InstructionCount is ulong count ? (long)Math.Min(count, long.MaxValue) : null,
        VirtualSize = snapshot.VirtualSize ?? _header.Size,
    };
}
