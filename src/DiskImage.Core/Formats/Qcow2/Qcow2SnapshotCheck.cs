using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Counts the references of snapshots. Spec: qcow2, "Snapshots".</summary>
internal sealed class Qcow2SnapshotCheck(Qcow2Census census, Qcow2TableCount tables)
{
    public const string DropUnreadable = "drop the snapshots that cannot be read";

    private const string Id = "SnapshotTable";

    private CheckFindings Findings => census.Findings;

    private Qcow2Header Header => census.Header;

    public async ValueTask CountAsync()
    {
        if (Header.SnapshotCount == 0)
        {
            if (census.Geometry.InCluster(Header.SnapshotsOffset) != 0)
            {
                Findings.Corruption(
                    Id,
                    $"The image has no snapshots, and its snapshot table is said to be at host offset {Header.SnapshotsOffset:#,0};"
                        + $" allowed: multiples of {census.Geometry.ClusterSize:#,0}.",
                    "set it to 0", host: Qcow2Header.SnapshotsAt);
            }
            return;
        }
        (IReadOnlyList<Qcow2Snapshot> snapshots, DiskImageException? fault)
            = await Qcow2Snapshot.ReadReadableAsync(census.File, Header, census.CancellationToken).ConfigureAwait(false);
        if (fault is not null)
        {
            census.HasUncounted = true;
            Findings.Corruption(Id, $"{fault.Wording}", "drop this snapshot and those behind it", host: fault.Offset);
        }
        _ = census.AddTable(
            Header.SnapshotsOffset, Qcow2Snapshot.StoredTableLength(snapshots), "the snapshot table", repair: DropUnreadable);
        var ids = new HashSet<string>(StringComparer.Ordinal) { "" };
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            CheckEntry(snapshot);
            if (!ids.Add(snapshot.Id))
            {
                Findings.Corruption(
                    Id, $"Snapshot '{snapshot.Name}' has the id '{snapshot.Id}'; allowed:"
                        + $" one of its own.", "give it another id", host: Header.SnapshotsOffset);
            }
            string what = $"the L1 table of snapshot '{snapshot.Name}'";
            await tables.CountL1Async(snapshot.L1Offset, snapshot.L1Size, what, isActive: false).ConfigureAwait(false);
        }
    }

    private void CheckEntry(Qcow2Snapshot snapshot)
    {
        long size = snapshot.VirtualSize ?? Header.Size, needed = census.Geometry.L1EntriesFor(size);
        if (snapshot.L1Size < needed)
        {
            Findings.Corruption(
                Id,
                $"Snapshot '{snapshot.Name}' has an L1 table of {snapshot.L1Size:#,0} entries;"
                    + $" its disk of {size:#,0} bytes needs {needed:#,0}.",
                "drop the snapshot", host: Header.SnapshotsOffset);
        }
        if (!snapshot.FitsVersion3 && Header.Version >= 3)
        {
            Findings.Corruption(
                Id, $"Snapshot '{snapshot.Name}' does not record the size of its disk,"
                    + $" as it must in version 3.", "record today's", host: Header.SnapshotsOffset);
        }
        if (snapshot.LostExtraBytes > 0)
        {
            int bytes = Qcow2Snapshot.MaxExtraBytes + snapshot.LostExtraBytes;
            Findings.Corruption(
                Id,
                $"Snapshot '{snapshot.Name}' has {bytes:#,0} bytes of extra data; allowed: at most {Qcow2Snapshot.MaxExtraBytes:#,0}.",
                "leave out the rest", host: snapshot.EntryOffset);
        }
    }
}
