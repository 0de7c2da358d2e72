using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Knows where an image's own structures lie, so that a damaged table cannot make a write land on one. It costs a look-up per
/// cluster that is written.
/// </summary>
internal sealed class Qcow2Guard(string path, Qcow2Geometry geometry, Qcow2OverlapCheck check)
{
    private readonly HashSet<long> _tables = []; // offsets of L2 tables, refcount blocks and clusters of other tables

    /// <summary>The refcount table.</summary>
    public (long Offset, long Length) RefcountTable { get; set; }

    /// <summary>The active L1 table.</summary>
    public (long Offset, long Length) L1Table { get; set; }

    /// <summary>The snapshot table.</summary>
    public (long Offset, long Length) SnapshotTable { get; set; }

    /// <summary>The bitmap directory, which is also written in place.</summary>
    public (long Offset, long Length) BitmapDirectory { get; set; }

    /// <summary>Forgets everything.</summary>
    public void Clear()
    {
        _tables.Clear();
        (RefcountTable, L1Table, SnapshotTable, BitmapDirectory) = (default, default, default, default);
    }

    /// <summary>Takes in the structures that a header and its L1 table name; refcount blocks are added by their owner.</summary>
    public void Protect(Qcow2Header header, PointerTable l1)
    {
        RefcountTable = (header.RefcountTableOffset, (long)header.RefcountTableClusters << header.ClusterBits);
        L1Table = (header.L1TableOffset, header.L1Size * 8L);
        for (int i = l1.NextUsed(0); i < l1.Count; i = l1.NextUsed(i + 1))
        {
            AddTable(L2Entry.OffsetOf(l1[i]));
        }
    }

    /// <summary>A cluster now holds a table.</summary>
    public void AddTable(long hostOffset) => _ = _tables.Add(hostOffset);

    /// <summary>A range, from the start of a cluster on, now holds a table.</summary>
    public void AddTables(long hostOffset, long length)
    {
        for (long at = 0; at < length; at += geometry.ClusterSize)
        {
            AddTable(hostOffset + at);
        }
    }

    /// <summary>A cluster is no table any more.</summary>
    public void RemoveTable(long hostOffset) => _ = _tables.Remove(hostOffset);

    /// <summary>What a range would overwrite, as far as it is looked up; null if nothing.</summary>
    public string? Overlap(long hostOffset, long length)
    {
        if (check == Qcow2OverlapCheck.None)
        {
            return null;
        }
        if (hostOffset < geometry.ClusterSize)
        {
            return "the header";
        }
        if (Meets(RefcountTable))
        {
            return "the refcount table";
        }
        if (Meets(L1Table))
        {
            return "the L1 table";
        }
        if (Meets(SnapshotTable))
        {
            return "the snapshot table";
        }
        if (Meets(BitmapDirectory))
        {
            return "the bitmap directory";
        }
        for (long cluster = geometry.ClusterStart(hostOffset); check >= Qcow2OverlapCheck.Cached && cluster < hostOffset + length; cluster += geometry.ClusterSize)
        {
            if (_tables.Contains(cluster))
            {
                return "an L2 table, a refcount block, or a table of a snapshot or bitmap";
            }
        }
        return null;

        bool Meets((long Offset, long Length) range) => range.Length > 0 && range.Offset < hostOffset + length && hostOffset < range.Offset + range.Length;
    }

    /// <summary>Refuses a range that holds a structure of the image.</summary>
    public void Require(long hostOffset, long length)
    {
        if (Overlap(hostOffset, length) is { } what)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{path}: a write of {length:#,0} bytes at host offset {hostOffset:#,0} would overwrite {what}. Nothing was written. Look at the damage with Test-DiskImage.",
                path,
                hostOffset);
        }
    }
}
