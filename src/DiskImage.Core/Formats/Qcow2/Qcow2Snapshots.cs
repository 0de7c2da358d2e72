using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Internal snapshots. Spec: qcow2, "Snapshots".</summary>
/// <remarks>
/// <para>A snapshot is a copy of the L1 table; L2 tables and data are shared with it and counted once more. What is to be changed is read
/// first, while it can still be cancelled and nothing has changed. Then: mark the image (a crash from here on is put right on the next
/// opening), make the tables that are kept durable, count, write the new snapshot table beside the old one, switch the header in one write.
/// This is the commit: what fails before it is undone. After it the old tables and counts are let go, flags are set, and the mark goes;
/// what fails there is done again by the next flush of everything, at the latest on closing.</para>
/// <para>Restoring copies the snapshot's L1 table to a new place and switches to it in the same write as the size; deleting takes the
/// entry out of the table and lowers the counts afterwards. Everything runs alone: no request is in flight.</para>
/// </remarks>
internal sealed class Qcow2Snapshots(Qcow2Disk disk)
{
    private const int MaxSnapshotName = 255; // what QEMU can show, in bytes

    private readonly Qcow2L1Tables _l1Tables = new(disk);

    private BlockNode File => disk.File;

    private Qcow2Geometry Geometry => disk.Geometry;

    private string Name => disk.Name;

    public async ValueTask<IReadOnlyList<DiskSnapshot>> ListAsync(CancellationToken cancellationToken)
        => [.. (await ReadAsync(cancellationToken).ConfigureAwait(false)).Select(Public)];

    public ValueTask<DiskSnapshot> CreateAsync(
        MetadataSession.Held held, string name, DateTimeOffset taken, CancellationToken cancellationToken)
        => ChangeAsync(held, snapshots => new(PlanCreation(held, snapshots, name, taken)), cancellationToken);

    public ValueTask<DiskSnapshot> RestoreAsync(MetadataSession.Held held, string idOrName, CancellationToken cancellationToken)
    {
        if (disk.Bitmaps.AreHeld)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: has bitmaps, which do not record what going back to a snapshot changes."
                    + $" Remove them first.", Name);
        }
        return ChangeAsync(
            held, snapshots => PlanRestoreAsync(
                held, Find(snapshots, idOrName, s => s.Id, s => s.Name), cancellationToken), cancellationToken);
    }

    public ValueTask<DiskSnapshot> DeleteAsync(MetadataSession.Held held, string nameOrId, CancellationToken cancellationToken)
        => DeleteAsync(held, snapshots => Find(snapshots, nameOrId, s => s.Name, s => s.Id), cancellationToken);

    public ValueTask<DiskSnapshot> DeleteAsync(MetadataSession.Held held, string id, string name, CancellationToken cancellationToken)
        => DeleteAsync(held, snapshots => Find(Named(snapshots, name), id, s => s.Id, s => s.Id), cancellationToken);

    /// <summary>
    /// What the disk was when a snapshot was taken, to be read. The image must be flushed, and must not change while it is open.
    /// </summary>
    public async ValueTask<BlockNode> OpenAsync(string idOrName, CancellationToken cancellationToken)
    {
        Qcow2Snapshot snapshot = Find(await ReadAsync(cancellationToken).ConfigureAwait(false), idOrName, s => s.Id, s => s.Name);
        long size = snapshot.VirtualSize ?? disk.Header.Size;
        if (snapshot.L1Size < Geometry.L1EntriesFor(size) || Geometry.InCluster(snapshot.L1Offset) != 0)
        {
            throw disk.Corrupt(
                $"snapshot '{snapshot.Name}' has an L1 table of {snapshot.L1Size} entries at offset {snapshot.L1Offset:#,0} for"
                    + $" {size:#,0} bytes",
                snapshot.L1Offset);
        }
        Qcow2Header header = disk.Header with
        {
            Size = size,
            L1TableOffset = snapshot.L1Offset,
            L1Size = snapshot.L1Size,
            Incompatible = disk.Header.Incompatible & ~Qcow2Incompatible.Dirty,
            AutoClear = disk.Header.AutoClear & ~Qcow2AutoClear.Bitmaps,
        };
        var options = new Qcow2OpenOptions { MissingClusters = disk.RequiresAll ? Qcow2MissingClusters.Error : Qcow2MissingClusters.Zero };
        return await Qcow2Node.OpenAsync(
            Borrowed(File)!,
            Borrowed(disk.DataFile),
            Borrowed(disk.Backing),
            header,
            options,
            disk.Encryption?.Lend(),
            forRepair: false,
            cancellationToken).ConfigureAwait(false);

        static BorrowedNode? Borrowed(BlockNode? node) => node is null ? null : new BorrowedNode(node, isReadOnly: true);
    }

    /// <summary>Has every snapshot record the size of its disk, which version 3 demands and old programs left out.</summary>
    public async ValueTask LengthenEntriesAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        IReadOnlyList<Qcow2Snapshot> snapshots = await ReadAsync(cancellationToken).ConfigureAwait(false);
        if (snapshots.Any(s => !s.FitsVersion3))
        {
            Qcow2Snapshot[] longer = [.. snapshots.Select(s => s.ForVersion3(disk.Header.Size))];
            await disk.Change.RunAsync(held, () => SwitchAsync(held, longer)).ConfigureAwait(false);
        }
    }

    private static Qcow2Snapshot[] Named(IReadOnlyList<Qcow2Snapshot> snapshots, string name)
        => [.. snapshots.Where(s => s.Name.Equals(name, StringComparison.Ordinal))];

    private ValueTask<IReadOnlyList<Qcow2Snapshot>> ReadAsync(CancellationToken cancellationToken)
        => Qcow2Snapshot.ReadAllAsync(File, disk.Header, cancellationToken);

    private ValueTask<DiskSnapshot> DeleteAsync(
        MetadataSession.Held held, Func<IReadOnlyList<Qcow2Snapshot>, Qcow2Snapshot> find, CancellationToken cancellationToken)
        => ChangeAsync(held, snapshots => PlanDeletionAsync(held, snapshots, find(snapshots), cancellationToken), cancellationToken);

    private Planned PlanCreation(MetadataSession.Held held, IReadOnlyList<Qcow2Snapshot> snapshots, string name, DateTimeOffset taken)
    {
        if (snapshots.Count >= Qcow2Header.MaxSnapshots)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: holds {snapshots.Count} snapshots already, the most an image can have", Name);
        }
        if (Encoding.UTF8.GetByteCount(name) is > MaxSnapshotName and var bytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: the snapshot name '{name[..32]}…' has {bytes:#,0} bytes in UTF-8; allowed: at most {MaxSnapshotName}, as in QEMU."
                    + $" Choose a shorter one.",
                Name);
        }
        var snapshot = new Qcow2Snapshot
        {
            Id = (snapshots.Select(NumberOf).DefaultIfEmpty().Max() + 1).ToString(CultureInfo.InvariantCulture),
            Name = name,
            L1Offset = 0,
            L1Size = disk.Header.L1Size,
            DateSeconds = (uint)Math.Clamp(taken.ToUnixTimeSeconds(), 0, uint.MaxValue),
            DateNanoseconds = (uint)(taken.Ticks % TimeSpan.TicksPerSecond * 100),
            VirtualSize = disk.Header.Size,
        };
        long table = Qcow2Snapshot.TableLength([.. snapshots, snapshot]);
        if (table > Qcow2Snapshot.MaxTableBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: its snapshot table would have {table:#,0} bytes; allowed: at most {Qcow2Snapshot.MaxTableBytes:#,0},"
                    + $" QEMU's limit."
                    + $" Remove snapshots first.",
                Name);
        }
        return new(snapshot, async () =>
        {
            byte[] l1 = _l1Tables.CopyOfActive();
            await _l1Tables.ShareAsync(held, l1).ConfigureAwait(false);
            HostOffset place = await _l1Tables.WriteAsync(held, l1).ConfigureAwait(false);
            await SwitchAsync(held, [.. snapshots, snapshot with { L1Offset = place.Value }]).ConfigureAwait(false);
            disk.Guard.AddTables(place, l1.Length);
        });

        static long NumberOf(Qcow2Snapshot snapshot)
            => long.TryParse(snapshot.Id, NumberStyles.None, CultureInfo.InvariantCulture, out long id) ? id : 0;
    }

    private async ValueTask<Planned> PlanRestoreAsync(
        MetadataSession.Held held, Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        long size = snapshot.VirtualSize ?? disk.Header.Size;
        byte[] l1 = await ReadL1Async(snapshot, cancellationToken).ConfigureAwait(false);
        Array.Resize(ref l1, Math.Max(snapshot.L1Size, (int)Geometry.L1EntriesFor(size)) * 8);
        // what cannot be counted is found before anything changes
        _ = await _l1Tables.CollectAsync(l1, cancellationToken, onlyLooks: true).ConfigureAwait(false);
        Qcow2Ranges unused = await _l1Tables.CollectAsync(_l1Tables.CopyOfActive(), cancellationToken).ConfigureAwait(false);
        unused.Add(disk.Tables.L1Place, disk.Tables.L1.Count * 8L);
        return new(snapshot, async () =>
        {
            await _l1Tables.ShareAsync(held, l1).ConfigureAwait(false);
            HostOffset place = await _l1Tables.WriteAsync(held, l1).ConfigureAwait(false);
            await _l1Tables.SwitchAsync(held, place, l1, size).ConfigureAwait(false);
            disk.Refcounts.FreeAfterFlush(held, unused);
        });
    }

    private async ValueTask<Planned> PlanDeletionAsync(
        MetadataSession.Held held, IReadOnlyList<Qcow2Snapshot> snapshots, Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = await ReadL1Async(snapshot, cancellationToken).ConfigureAwait(false);
        Qcow2Ranges unused = await _l1Tables.CollectAsync(l1, cancellationToken).ConfigureAwait(false);
        unused.Add(new(snapshot.L1Offset), l1.Length);
        return new(snapshot, async () =>
        {
            await SwitchAsync(held, [.. snapshots.Where(s => !ReferenceEquals(s, snapshot))]).ConfigureAwait(false);
            disk.Refcounts.FreeAfterFlush(held, unused);
        });
    }

    /// <summary>The L1 table of a snapshot, all of which must be in the file.</summary>
    private async ValueTask<byte[]> ReadL1Async(Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = new byte[snapshot.L1Size * 8];
        long needed = Geometry.L1EntriesFor(snapshot.VirtualSize ?? disk.Header.Size);
        bool isInFile = Geometry.InCluster(snapshot.L1Offset) == 0 && snapshot.L1Offset >= 0
            && snapshot.L1Offset <= File.Length - l1.Length;
        if (!isInFile || snapshot.L1Size < needed)
        {
            throw disk.Corrupt(
                $"the L1 table of snapshot '{snapshot.Name}' is said to be at host offset {snapshot.L1Offset:#,0}, {l1.Length:#,0} bytes;"
                    + $" allowed: a multiple of {Geometry.ClusterSize:#,0}, inside the file's {File.Length:#,0} bytes,"
                    + $" at least {needed * 8:#,0} long. Nothing was changed",
                snapshot.L1Offset);
        }
        await File.ReadAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
        return l1;
    }

    private async ValueTask<DiskSnapshot> ChangeAsync(
        MetadataSession.Held held, Func<IReadOnlyList<Qcow2Snapshot>, ValueTask<Planned>> plan, CancellationToken cancellationToken)
    {
        if (disk.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so its snapshots cannot be changed", Name);
        }
        if (disk.IsExternal)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: its data is in an external file, which snapshots cannot share", Name);
        }
        IReadOnlyList<Qcow2Snapshot> snapshots = await ReadAsync(cancellationToken).ConfigureAwait(false);
        await disk.SettleAsync(held, cancellationToken).ConfigureAwait(false);
        Planned planned = await plan(snapshots).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        DiskSnapshot result = Public(planned.Snapshot);
        await disk.Change.RunAsync(held, planned.CommitAsync).ConfigureAwait(false);
        return result;
    }

    /// <summary>Writes a new snapshot table beside the old one and switches to it.</summary>
    private async ValueTask SwitchAsync(MetadataSession.Held held, Qcow2Snapshot[] snapshots)
    {
        byte[] table = Qcow2Snapshot.ToTable(snapshots);
        (HostOffset old, long oldLength) = disk.Guard.SnapshotTable;
        HostOffset place = default;
        if (table.Length > 0)
        {
            place = await disk.Allocator.AllocateContiguousAsync(held, Geometry.Clusters(table.Length)).ConfigureAwait(false);
            await disk.RequireNotMetadataAsync(held, place, table.Length).ConfigureAwait(false);
            await File.WriteAsync(place.Value, table).ConfigureAwait(false);
        }
        await disk.Session.Order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await disk.UpdateHeaderAsync(
            held, disk.Header with { SnapshotCount = snapshots.Length, SnapshotsOffset = place.Value }).ConfigureAwait(false);
        disk.Guard.SnapshotTable = (place, table.Length);
        disk.Refcounts.FreeAfterFlush(held, old, oldLength);
    }

    private Qcow2Snapshot Find(
        IReadOnlyList<Qcow2Snapshot> snapshots, string idOrName, Func<Qcow2Snapshot, string> first, Func<Qcow2Snapshot, string> second)
        => snapshots.FirstOrDefault(s => first(s).Equals(idOrName, StringComparison.Ordinal))
            ?? snapshots.FirstOrDefault(s => second(s).Equals(idOrName, StringComparison.Ordinal))
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                snapshots.Count == 0
                    ? $"{Name}: has no snapshots"
                    : $"{Name}: no snapshot '{idOrName}'. It has:"
                        + $" {string.Join(", ", snapshots.Take(20).Select(s => $"{s.Id} ({s.Name})"))}",
                Name);

    private DiskSnapshot Public(Qcow2Snapshot snapshot) => new()
    {
        Id = snapshot.Id,
        Name = snapshot.Name,
        VmStateSize = (long)Math.Min(snapshot.VmStateSize, long.MaxValue),
        Date = DateTimeOffset.FromUnixTimeSeconds(snapshot.DateSeconds).AddTicks(Math.Min(snapshot.DateNanoseconds, 999_999_999) / 100),
        VmClock = TimeSpan.FromTicks((long)Math.Min(snapshot.VmClockNanoseconds / 100, long.MaxValue)),
        ICount = snapshot.InstructionCount is ulong count ? (long)Math.Min(count, long.MaxValue) : null,
        VirtualSize = snapshot.VirtualSize ?? disk.Header.Size,
    };

    /// <summary>What is to be done to the snapshots, after everything that can be refused was looked at.</summary>
    /// <param name="Snapshot">The one concerned.</param>
    /// <param name="CommitAsync">Does it. What it does before its switch of the header can be undone.</param>
    private sealed record Planned(Qcow2Snapshot Snapshot, Func<ValueTask> CommitAsync);
}
