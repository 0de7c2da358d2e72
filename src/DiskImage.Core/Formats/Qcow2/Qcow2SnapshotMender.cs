using System.Globalization;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Puts the snapshot table right. A new table is written whole and durable before the header names it.</summary>
internal sealed class Qcow2SnapshotMender(Qcow2RepairImage image)
{
    private readonly List<(Qcow2Snapshot Was, Qcow2Snapshot Now)> _kept = [];

    /// <summary>The snapshots that the image keeps, as they were and as they are.</summary>
    public IReadOnlyList<(Qcow2Snapshot Was, Qcow2Snapshot Now)> Kept => _kept;

    private StagedNode File => image.File;

    private Qcow2Header Header => image.Header;

    /// <summary>
    /// Keeps the snapshots whose entry can be read and whose L1 table is in place, long enough and not another table's. One that shares its
    /// place with data moves, and so does the table of snapshots. One whose id is empty or another's gets a new one.
    /// </summary>
    public async ValueTask RunAsync(HashSet<long> overlaps)
    {
        if (Header.SnapshotCount == 0)
        {
            if (Header.SnapshotsOffset != 0)
            {
                await WriteFieldsAsync(0, 0).ConfigureAwait(false);
            }
            return;
        }
        (IReadOnlyList<Qcow2Snapshot> readable, DiskImageException? fault)
            = await Qcow2Snapshot.ReadReadableAsync(File, Header, image.CancellationToken).ConfigureAwait(false);
        await KeepAsync(readable, overlaps).ConfigureAwait(false);
        Qcow2Snapshot[] kept = [.. _kept.Select(k => k.Now)];
        bool isTableSound = image.IsPlace(Header.SnapshotsOffset)
            && !image.ClustersOf(Header.SnapshotsOffset, Qcow2Snapshot.StoredTableLength(readable)).Any(overlaps.Contains);
        bool isSound = fault is null && readable.All(s => s.LostExtraBytes == 0) && isTableSound;
        if (!isSound || !kept.SequenceEqual(readable, ReferenceEqualityComparer.Instance))
        {
            byte[] table = Qcow2Snapshot.ToTable(kept);
            long place = table.Length == 0 ? 0 : image.FileEnd;
            if (table.Length > 0)
            {
                await File.WriteAsync(place, table, image.CancellationToken).ConfigureAwait(false);
            }
            await File.FlushAsync(image.CancellationToken).ConfigureAwait(false);
            await WriteFieldsAsync(kept.Length, place).ConfigureAwait(false);
        }
    }

    private async ValueTask KeepAsync(IReadOnlyList<Qcow2Snapshot> readable, HashSet<long> overlaps)
    {
        var ids = new HashSet<string>(StringComparer.Ordinal) { "" };
        var taken = new HashSet<long>(image.ClustersOf(Header.L1TableOffset, Header.L1Size * 8L));
        foreach (Qcow2Snapshot snapshot in readable)
        {
            long length = snapshot.L1Size * 8L;
            bool covers = snapshot.L1Size >= image.Geometry.L1EntriesFor(snapshot.VirtualSize ?? Header.Size);
            bool isThere = length == 0 || (image.IsPlace(snapshot.L1Offset) && length <= image.Length - snapshot.L1Offset);
            if (!covers || !isThere || image.ClustersOf(snapshot.L1Offset, length).Any(c => !taken.Add(c)))
            {
                continue;
            }
            Qcow2Snapshot mended = image.ClustersOf(snapshot.L1Offset, length).Any(overlaps.Contains)
                ? snapshot with { L1Offset = await image.CopyToEndAsync(snapshot.L1Offset, (int)length).ConfigureAwait(false) }
                : snapshot;
            mended = Header.Version >= 3 ? mended.ForVersion3(Header.Size) : mended;
            mended = ids.Add(mended.Id) ? mended : mended with { Id = FreeId(ids) };
            _kept.Add((snapshot, mended));
        }
    }

    private ValueTask WriteFieldsAsync(int count, long place) => image.WriteHeaderAsync(
        Header with { SnapshotCount = count, SnapshotsOffset = place }, Qcow2Header.SnapshotsAt..Qcow2Header.IncompatibleAt);

    private static string FreeId(HashSet<string> ids)
    {
        for (int id = ids.Count; ; id++)
        {
            if (ids.Add(id.ToString(CultureInfo.InvariantCulture)))
            {
                return id.ToString(CultureInfo.InvariantCulture);
            }
        }
    }
}
