using System.Globalization;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Internal snapshots. Spec: qcow2, "Snapshots".</summary>
/// <remarks>
/// <para>A snapshot is a copy of the L1 table; L2 tables and data are shared with it and counted once more. What is to be changed is read
/// first, while it can still be cancelled and nothing has changed. Then: mark the image (a crash from here on is put right on the next
/// opening), make the tables that are kept durable, count, write the new snapshot table beside the old one, switch the header in one write.
/// This is the commit: what fails before it is undone. After it the old tables and counts are let go, flags are set, and the mark goes; what
/// fails there is done again by the next flush of everything, at the latest on closing.</para>
/// <para>Restoring copies the snapshot's L1 table to a new place and switches to it in the same write as the size; deleting takes the
/// entry out of the table and lowers the counts afterwards. Everything runs alone: no request is in flight.</para>
/// </remarks>
internal sealed partial class Qcow2Node : ISnapshots
{
    private const int MaxSnapshotName = 255; // what QEMU can show, in bytes

    public async ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken)
        => [.. (await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false)).Select(Public)];

    public ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken)
        => ChangeSnapshotsAsync(snapshots => new(PlanCreation(snapshots, name, taken)), cancellationToken);

    public ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken)
        => HoldsBitmaps ? throw BitmapsWouldBeStale() : ChangeSnapshotsAsync(snapshots => PlanRestoreAsync(snapshots, idOrName, cancellationToken), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken)
        => DeleteAsync(snapshots => Find(snapshots, nameOrId, s => s.Name, s => s.Id), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken)
        => DeleteAsync(snapshots => Find([.. snapshots.Where(s => s.Name.Equals(name, StringComparison.Ordinal))], id, s => s.Id, s => s.Id), cancellationToken);

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
        var options = new Qcow2OpenOptions { MissingClusters = _requiresAll ? Qcow2MissingClusters.Error : Qcow2MissingClusters.Zero };
        BlockNode? dataFile = ReferenceEquals(_dataNode, File) ? null : new BorrowedNode(_dataNode, isReadOnly: true);
        return await OpenAsync(
            new BorrowedNode(File, isReadOnly: true), dataFile, Backing is null ? null : new BorrowedNode(Backing, isReadOnly: true), header, options, forRepair: false, cancellationToken).ConfigureAwait(false);
    }

    private ValueTask<DiskSnapshot> DeleteAsync(Func<IReadOnlyList<Qcow2Snapshot>, Qcow2Snapshot> find, CancellationToken cancellationToken)
        => ChangeSnapshotsAsync(snapshots => PlanDeletionAsync(snapshots, find(snapshots), cancellationToken), cancellationToken);

    private SnapshotChange PlanCreation(IReadOnlyList<Qcow2Snapshot> snapshots, string name, DateTimeOffset taken)
    {
        if (snapshots.Count >= Qcow2Header.MaxSnapshots)
        {
            throw new DiskImageException(DiskImageErrorKind.OutOfRange, $"{Name}: holds {snapshots.Count} snapshots already, the most an image can have", Name);
        }
        if (Encoding.UTF8.GetByteCount(name) is > MaxSnapshotName and var bytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: the snapshot name '{name[..32]}…' has {bytes:#,0} bytes in UTF-8; allowed: at most {MaxSnapshotName}, as in QEMU. Choose a shorter one.", Name);
        }
        var snapshot = new Qcow2Snapshot
        {
            Id = (snapshots.Select(s => long.TryParse(s.Id, NumberStyles.None, CultureInfo.InvariantCulture, out long id) ? id : 0).DefaultIfEmpty().Max() + 1)
                .ToString(CultureInfo.InvariantCulture),
            Name = name,
            L1Offset = 0,
            L1Size = _header.L1Size,
            DateSeconds = (uint)Math.Clamp(taken.ToUnixTimeSeconds(), 0, uint.MaxValue),
            DateNanoseconds = (uint)(taken.Ticks % TimeSpan.TicksPerSecond * 100),
            VirtualSize = _header.Size,
        };
        long table = Qcow2Snapshot.TableLength([.. snapshots, snapshot]);
        if (table > Qcow2Snapshot.MaxTableBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: its snapshot table would have {table:#,0} bytes; allowed: at most {Qcow2Snapshot.MaxTableBytes:#,0}, QEMU's limit. Remove snapshots first.", Name);
        }
        return new(snapshot, async () =>
        {
            byte[] l1 = CopyOfL1();
            await ShareAsync(l1).ConfigureAwait(false);
            long place = await WriteL1Async(l1).ConfigureAwait(false);
            await SwitchSnapshotsAsync([.. snapshots, snapshot with { L1Offset = place }], _header).ConfigureAwait(false);
            _guard.AddTables(place, l1.Length);
        });
    }

    private async ValueTask<SnapshotChange> PlanRestoreAsync(IReadOnlyList<Qcow2Snapshot> snapshots, string idOrName, CancellationToken cancellationToken)
    {
        Qcow2Snapshot snapshot = Find(snapshots, idOrName, s => s.Id, s => s.Name);
        long size = snapshot.VirtualSize ?? _header.Size;
        byte[] l1 = await ReadSnapshotL1Async(snapshot, cancellationToken).ConfigureAwait(false);
        Array.Resize(ref l1, Math.Max(snapshot.L1Size, (int)_geometry.L1EntriesFor(size)) * 8);
        _ = await CollectAsync(l1, cancellationToken, onlyLooks: true).ConfigureAwait(false); // what cannot be counted is found before anything changes
        List<(long Offset, long Length)> unused = await CollectAsync(CopyOfL1(), cancellationToken).ConfigureAwait(false);
        unused.Add((_l1.HostOffset, _l1.Count * 8L));
        return new(snapshot, async () =>
        {
            await ShareAsync(l1).ConfigureAwait(false);
            long place = await WriteL1Async(l1).ConfigureAwait(false);
            await SwitchL1Async(place, l1, size).ConfigureAwait(false);
            FreeAfterFlush(unused);
        });
    }

    private async ValueTask<SnapshotChange> PlanDeletionAsync(IReadOnlyList<Qcow2Snapshot> snapshots, Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = await ReadSnapshotL1Async(snapshot, cancellationToken).ConfigureAwait(false);
        List<(long Offset, long Length)> unused = await CollectAsync(l1, cancellationToken).ConfigureAwait(false);
        unused.Add((snapshot.L1Offset, l1.Length));
        return new(snapshot, async () =>
        {
            await SwitchSnapshotsAsync([.. snapshots.Where(s => !ReferenceEquals(s, snapshot))], _header).ConfigureAwait(false);
            FreeAfterFlush(unused);
        });
    }

    /// <summary>The L1 table of a snapshot, all of which must be in the file.</summary>
    private async ValueTask<byte[]> ReadSnapshotL1Async(Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = new byte[snapshot.L1Size * 8];
        long needed = _geometry.L1EntriesFor(snapshot.VirtualSize ?? _header.Size);
        if (_geometry.InCluster(snapshot.L1Offset) != 0 || snapshot.L1Offset < 0 || snapshot.L1Offset > File.Length - l1.Length || snapshot.L1Size < needed)
        {
            throw Corrupt(
                $"the L1 table of snapshot '{snapshot.Name}' is said to be at host offset {snapshot.L1Offset:#,0}, {l1.Length:#,0} bytes;"
                    + $" allowed: a multiple of {_geometry.ClusterSize:#,0}, inside the file's {File.Length:#,0} bytes, at least {needed * 8:#,0} long. Nothing was changed",
                snapshot.L1Offset);
        }
        await File.ReadAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
        return l1;
    }

    private ValueTask<DiskSnapshot> ChangeSnapshotsAsync(Func<IReadOnlyList<Qcow2Snapshot>, ValueTask<SnapshotChange>> plan, CancellationToken cancellationToken)
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
                SnapshotChange change = await plan(snapshots).ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
                result = Public(change.Snapshot);
                await ChangeWholeAsync(change.CommitAsync).ConfigureAwait(false);
            }).ConfigureAwait(false);
            return result!;
        });

    /// <summary>What is to be done to the snapshots, after everything that can be refused was looked at.</summary>
    /// <param name="Snapshot">The one concerned.</param>
    /// <param name="CommitAsync">Does it. What it does before its switch of the header can be undone.</param>
    private sealed record SnapshotChange(Qcow2Snapshot Snapshot, Func<ValueTask> CommitAsync);

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
