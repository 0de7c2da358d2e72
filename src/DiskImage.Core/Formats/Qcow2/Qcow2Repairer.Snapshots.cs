using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Putting the snapshot table right. A new table is written whole and durable before the header names it.</summary>
internal sealed partial class Qcow2Repairer
{
    /// <summary>
    /// Keeps the snapshots whose entry can be read and whose L1 table is in place, long enough and not another table's. One that shares its
    /// place with data moves, and so does the table of snapshots. One whose id is empty or another's gets a new one.
    /// </summary>
    /// <returns>The snapshots that the image now has.</returns>
    private async ValueTask<IReadOnlyList<Qcow2Snapshot>> MendSnapshotsAsync(HashSet<long> overlaps)
    {
        if (_header.SnapshotCount == 0)
        {
            if (_header.SnapshotsOffset != 0)
            {
                await WriteSnapshotsFieldAsync([], 0).ConfigureAwait(false);
            }
            return [];
        }
        (IReadOnlyList<Qcow2Snapshot> readable, DiskImageException? fault) = await Qcow2Snapshot.ReadReadableAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
        var kept = new List<Qcow2Snapshot>();
        var ids = new HashSet<string>(StringComparer.Ordinal) { "" };
        var taken = new HashSet<long>(ClustersOf(_header.L1TableOffset, _header.L1Size * 8L));
        foreach (Qcow2Snapshot snapshot in readable)
        {
            long length = snapshot.L1Size * 8L;
            bool covers = snapshot.L1Size >= _geometry.L1EntriesFor(snapshot.VirtualSize ?? _header.Size);
            bool isThere = length == 0 || (IsPlace(snapshot.L1Offset) && length <= _length - snapshot.L1Offset);
            if (!covers || !isThere || ClustersOf(snapshot.L1Offset, length).Any(c => !taken.Add(c)))
            {
                continue;
            }
            Qcow2Snapshot mended = ClustersOf(snapshot.L1Offset, length).Any(overlaps.Contains)
                ? snapshot with { L1Offset = await CopyToEndAsync(snapshot.L1Offset, (int)length).ConfigureAwait(false) }
                : snapshot;
            mended = _header.Version >= 3 ? mended.ForVersion3(_header.Size) : mended;
            mended = ids.Add(mended.Id) ? mended : mended with { Id = FreeId(ids) };
            kept.Add(mended);
            _kept.Add((snapshot, mended));
        }
        bool isSound = fault is null && readable.All(s => s.LostExtraBytes == 0) && IsPlace(_header.SnapshotsOffset) && !ClustersOf(_header.SnapshotsOffset, Qcow2Snapshot.StoredTableLength(readable)).Any(overlaps.Contains);
        if (!isSound || !kept.SequenceEqual(readable, ReferenceEqualityComparer.Instance))
        {
            byte[] table = Qcow2Snapshot.ToTable(kept);
            long place = table.Length == 0 ? 0 : FileEnd;
            if (table.Length > 0)
            {
                await _file.WriteAsync(place, table, _cancellationToken).ConfigureAwait(false);
            }
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
            await WriteSnapshotsFieldAsync(kept, place).ConfigureAwait(false);
        }
        return kept;
    }

    private async ValueTask WriteSnapshotsFieldAsync(List<Qcow2Snapshot> kept, long place)
    {
        _header = _header with { SnapshotCount = kept.Count, SnapshotsOffset = place };
        await _file.WriteAsync(
            Qcow2Header.SnapshotsAt, _header.ToCluster(_file.Name).AsMemory(Qcow2Header.SnapshotsAt..Qcow2Header.IncompatibleAt), _cancellationToken).ConfigureAwait(false);
    }

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

    private IEnumerable<long> ClustersOf(long offset, long length)
    {
        for (long cluster = offset >> _header.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            yield return cluster;
        }
    }

    /// <summary>Copies a table to the end of the _file. Counting follows, so nothing is allocated here.</summary>
    private async ValueTask<long> CopyToEndAsync(long offset, int length)
    {
        byte[] table = new byte[length];
        await _file.ReadPaddedAsync(offset, table, _cancellationToken).ConfigureAwait(false);
        long place = FileEnd;
        await _file.WriteAsync(place, table, _cancellationToken).ConfigureAwait(false);
        await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
        return place;
    }
}
