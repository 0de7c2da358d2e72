using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>The references of snapshots and bitmaps.</summary>
internal sealed partial class Qcow2Checker
{
    private const string DropSnapshots = "drop the snapshots that cannot be read", DropBitmaps = "drop this bitmap", DropAllBitmaps = "drop all bitmaps";

    private readonly Dictionary<string, int> _bitmapOf = new(StringComparer.Ordinal); // which bitmap a table belongs to, by what it is called

    /// <summary>The bitmaps, by their number in the directory, that cannot stand as they are.</summary>
    public HashSet<int> BrokenBitmaps { get; } = [];

    private async ValueTask CountSnapshotsAsync()
    {
        if (_header.SnapshotCount == 0)
        {
            if (_geometry.InCluster(_header.SnapshotsOffset) != 0)
            {
                Findings.Corruption("SnapshotTable", $"The image has no snapshots, and its snapshot table is said to be at host offset {_header.SnapshotsOffset:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}.", "set it to 0", host: Qcow2Header.SnapshotsAt);
            }
            return;
        }
        (IReadOnlyList<Qcow2Snapshot> snapshots, DiskImageException? fault) = await Qcow2Snapshot.ReadReadableAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
        if (fault is not null)
        {
            HasUncounted = true;
            Findings.Corruption("SnapshotTable", fault.Message, "drop this snapshot and those behind it", host: fault.Offset);
        }
        _ = AddTable(_header.SnapshotsOffset, Qcow2Snapshot.StoredTableLength(snapshots), "the snapshot table", repair: DropSnapshots);
        var ids = new HashSet<string>(StringComparer.Ordinal) { "" };
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            long size = snapshot.VirtualSize ?? _header.Size, needed = _geometry.L1EntriesFor(size);
            if (snapshot.L1Size < needed)
            {
                Findings.Corruption("SnapshotTable", $"Snapshot '{snapshot.Name}' has an L1 table of {snapshot.L1Size:#,0} entries; its disk of {size:#,0} bytes needs {needed:#,0}.", "drop the snapshot", host: _header.SnapshotsOffset);
            }
            if (!snapshot.FitsVersion3 && _header.Version >= 3)
            {
                Findings.Corruption("SnapshotTable", $"Snapshot '{snapshot.Name}' does not record the size of its disk, as it must in version 3.", "record today's", host: _header.SnapshotsOffset);
            }
            if (snapshot.LostExtraBytes > 0)
            {
                Findings.Corruption("SnapshotTable", $"Snapshot '{snapshot.Name}' has {Qcow2Snapshot.MaxExtraBytes + snapshot.LostExtraBytes:#,0} bytes of extra data; allowed: at most {Qcow2Snapshot.MaxExtraBytes:#,0}.", "leave out the rest", host: snapshot.EntryOffset);
            }
            if (!ids.Add(snapshot.Id))
            {
                Findings.Corruption("SnapshotTable", $"Snapshot '{snapshot.Name}' has the id '{snapshot.Id}'; allowed: one of its own.", "give it another id", host: _header.SnapshotsOffset);
            }
            await CountL1Async(snapshot.L1Offset, snapshot.L1Size, $"the L1 table of snapshot '{snapshot.Name}'", isActive: false).ConfigureAwait(false);
        }
    }

    private async ValueTask CountBitmapsAsync()
    {
        Qcow2BitmapDirectory directory;
        try
        {
            directory = await Qcow2BitmapDirectory.ReadAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            HasUncounted = HasBrokenBitmapDirectory = true;
            Findings.Corruption("BitmapDirectory", e.Message, DropAllBitmaps, host: e.Offset);
            return;
        }
        if (directory.Entries.Count == 0)
        {
            return;
        }
        if ((_header.AutoClear & Qcow2AutoClear.Bitmaps) == Qcow2AutoClear.None)
        {
            Findings.Warning("BitmapsStale", "The image has bitmaps, but was written to by a program that does not know them: they are lost, and what they occupied is leaked or used otherwise.");
            return;
        }
        _ = AddTable(directory.Place.Value, directory.Length, BitmapDirectory, repair: "write it anew");
        HasBrokenBitmapDirectory |= ClustersOf(directory.Place.Value, directory.Length).Any(Overlaps.Contains);
        var names = new HashSet<string>(StringComparer.Ordinal);
        for (int i = 0; i < directory.Entries.Count; i++)
        {
            long found = Findings.Corruptions;
            await CountBitmapAsync(directory.Entries[i], i, names.Add(directory.Entries[i].Name), directory.Place.Value).ConfigureAwait(false);
            if (Findings.Corruptions > found)
            {
                _ = BrokenBitmaps.Add(i);
            }
        }
    }

    private async ValueTask CountBitmapAsync(Qcow2BitmapEntry bitmap, int number, bool isFirst, long at)
    {
        if (!isFirst)
        {
            Findings.Corruption("BitmapDirectory", $"Two bitmaps have the name '{bitmap.Name}'.", DropBitmaps, host: at);
        }
        CheckBitmap(bitmap, at);
        string table = $"the table of bitmap '{bitmap.Name}'", data = $"data of bitmap '{bitmap.Name}'";
        (_bitmapOf[table], _bitmapOf[data]) = (number, number);
        if (!AddTable(bitmap.TableOffset, bitmap.TableSize * 8L, table, repair: DropBitmaps))
        {
            return;
        }
        foreach (ulong entry in await ReadTableAsync(bitmap.TableOffset, bitmap.TableSize).ConfigureAwait(false))
        {
            long offset = L2Entry.OffsetOf(entry);
            if ((entry & ~(0x00FF_FFFF_FFFF_FE00UL | 1)) != 0 || (offset != 0 && (entry & 1) != 0))
            {
                Findings.Corruption("BitmapTable", $"Bitmap '{bitmap.Name}' has a table entry {entry:x16} with reserved bits set.", DropBitmaps, host: bitmap.TableOffset);
            }
            else if (offset != 0)
            {
                _ = AddTable(offset, _geometry.ClusterSize, data, repair: DropBitmaps);
            }
        }
    }

    /// <summary>Data lies on a bitmap's table or bits, or on the directory of bitmaps.</summary>
    private void BreakBitmap(string table)
    {
        HasBrokenBitmapDirectory |= ReferenceEquals(table, BitmapDirectory);
        if (_bitmapOf.TryGetValue(table, out int number))
        {
            _ = BrokenBitmaps.Add(number);
        }
    }

    private IEnumerable<long> ClustersOf(long offset, long length)
    {
        for (long cluster = offset >> _geometry.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            yield return cluster;
        }
    }

    private void CheckBitmap(Qcow2BitmapEntry bitmap, long at)
    {
        Qcow2BitmapFlags known = bitmap.ExtraData.Length > 0 ? Qcow2BitmapFlags.Known : Qcow2BitmapFlags.Known & ~Qcow2BitmapFlags.ExtraDataCompatible; // QEMU refuses what is said of nothing
        if (bitmap.Type != Qcow2BitmapEntry.DirtyTracking || (bitmap.Flags & ~known) != Qcow2BitmapFlags.None)
        {
            Findings.Corruption("BitmapDirectory", $"Bitmap '{bitmap.Name}' has type {bitmap.Type} and flags {(uint)bitmap.Flags:x}; allowed: type {Qcow2BitmapEntry.DirtyTracking}, flags up to {(uint)known:x}.", DropBitmaps, host: at);
        }
        long needed = Round.Units(Round.Units(_header.Size, 1L << bitmap.GranularityBits), _geometry.ClusterSize * 8L);
        if (bitmap.TableSize < needed && (bitmap.Flags & Qcow2BitmapFlags.InUse) == Qcow2BitmapFlags.None)
        {
            Findings.Corruption("BitmapTable", $"Bitmap '{bitmap.Name}' has a table of {bitmap.TableSize:#,0} entries; the disk needs {needed:#,0}.", DropBitmaps, host: bitmap.TableOffset);
        }
    }
}
