using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Knows where an image's own structures lie, so that a damaged table cannot make a write land on one. It costs a look-up per
/// cluster that is written.
/// </summary>
internal sealed class Qcow2Guard(string path, Qcow2Geometry geometry, Qcow2OverlapCheck check)
{
    private readonly HashSet<HostOffset> _tables = []; // L2 tables, refcount blocks and clusters of other tables

    /// <summary>The refcount table.</summary>
    public (HostOffset Place, long Length) RefcountTable { get; set; }

    /// <summary>The active L1 table.</summary>
    public (HostOffset Place, long Length) L1Table { get; set; }

    /// <summary>The snapshot table.</summary>
    public (HostOffset Place, long Length) SnapshotTable { get; set; }

    /// <summary>The bitmap directory, which is also written in place.</summary>
    public (HostOffset Place, long Length) BitmapDirectory { get; set; }

    /// <summary>Forgets everything.</summary>
    public void Clear()
    {
        _tables.Clear();
        (RefcountTable, L1Table, SnapshotTable, BitmapDirectory) = (default, default, default, default);
    }

    /// <summary>Takes in the structures that a header and its L1 table name; refcount blocks are added by their owner.</summary>
    public void Protect(Qcow2Header header, PointerTable l1)
    {
        RefcountTable = (new(header.RefcountTableOffset), (long)header.RefcountTableClusters << header.ClusterBits);
        L1Table = (new(header.L1TableOffset), header.L1Size * 8L);
        for (int i = l1.NextUsed(0); i < l1.Count; i = l1.NextUsed(i + 1))
        {
            AddTable(new(L2Entry.OffsetOf(l1[i])));
        }
    }

    /// <summary>A cluster now holds a table.</summary>
    public void AddTable(HostOffset place) => _ = _tables.Add(place);

    /// <summary>A range, from the start of a cluster on, now holds a table.</summary>
    public void AddTables(HostOffset place, long length)
    {
        for (long at = 0; at < length; at += geometry.ClusterSize)
        {
            AddTable(place + at);
        }
    }

    /// <summary>A cluster is no table any more.</summary>
    public void RemoveTable(HostOffset place) => _ = _tables.Remove(place);

    /// <summary>What a range would overwrite, as far as it is looked up; null if nothing.</summary>
    public string? Overlap(HostOffset place, long length)
    {
        if (check == Qcow2OverlapCheck.None)
        {
            return null;
        }
        long end = place.Value + length;
        if (place.Value < geometry.ClusterSize)
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
        bool looksUp = check >= Qcow2OverlapCheck.Cached;
        for (HostOffset cluster = geometry.ClusterStart(place); looksUp && cluster.Value < end; cluster += geometry.ClusterSize)
        {
            if (_tables.Contains(cluster))
            {
                return "an L2 table, a refcount block, or a table of a snapshot or bitmap";
            }
        }
        return null;

        bool Meets((HostOffset Place, long Length) range)
            => range.Length > 0 && range.Place.Value < end && place.Value < (range.Place + range.Length).Value;
    }

    /// <summary>Refuses a range that holds a structure of the image.</summary>
    public void Require(HostOffset place, long length)
    {
        if (Overlap(place, length) is { } what)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{path}: a write of {length:#,0} bytes at host offset {place.Value:#,0} would overwrite {what}. Nothing was written."
                    + $" Look at the damage with {new Remedy(RemedyKind.Check)}.",
                path,
                place.Value);
        }
    }
}
