using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What the active tables say of the disk, as extents. Spec: qcow2, "Cluster mapping", "Extended L2 Entries".</summary>
internal sealed class Qcow2Extents(Qcow2Disk disk)
{
    private Qcow2Tables Tables => disk.Tables;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>
    /// The extent at an offset; it may be joined from several pieces of tables, as far as <paramref name="length"/> asks. It ends before
    /// what cannot be read or is no entry: that is the error of whoever asks there.
    /// </summary>
    public async ValueTask<BlockExtent> MapAsync(GuestOffset offset, long length, CancellationToken cancellationToken)
    {
        long end = Math.Min(disk.Length, offset.Value + length);
        BlockExtent run = await MapPieceAsync(offset, end, cancellationToken).ConfigureAwait(false);
        while (run.End < end && !run.IsCompressed)
        {
            BlockExtent next;
            try
            {
                next = await MapPieceAsync(new(run.End), end, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                break;
            }
            if (!run.IsContinuedBy(next))
            {
                break;
            }
            run = run with { Length = run.Length + next.Length };
        }
        return run;
    }

    /// <summary>The extent at an offset, as far as one piece of an L2 table tells.</summary>
    public BlockExtent MapInPiece(CachedPiece piece, GuestOffset offset, long end)
    {
        Qcow2Tables tables = disk.Tables;
        Qcow2Geometry geometry = disk.Geometry;
        int index = tables.IndexOf(offset), entries = tables.EntriesPerPiece;
        BlockExtent run = ExtentOf(tables.EntryAt(piece, index), offset);
        while (run.End < end && !run.IsCompressed)
        {
            index += geometry.InCluster(run.End) == 0 ? 1 : 0;
            if (index == entries)
            {
                break;
            }
            BlockExtent next;
            try
            {
                next = ExtentOf(tables.EntryAt(piece, index), new(run.End));
            }
            catch (DiskImageException)
            {
                break;
            }
            if (!run.IsContinuedBy(next))
            {
                break;
            }
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, disk.Length - offset.Value) };
    }

    /// <summary>The extent at an offset, as far as one piece of an L2 table, or a run of missing tables, tells.</summary>
    private async ValueTask<BlockExtent> MapPieceAsync(GuestOffset offset, long end, CancellationToken cancellationToken)
    {
        int l1Index = Geometry.L1Index(offset);
        if (Tables.L1Entry(offset) == 0)
        {
            return Unmapped(offset, Tables.EndOfUnmapped(l1Index));
        }
        CachedPiece? piece = await Tables.PieceAsync(offset, cancellationToken).ConfigureAwait(false);
        // an entry of flags only
        return piece is not null ? MapInPiece(piece, offset, end) : Unmapped(offset, Geometry.StartOf(l1Index + 1));
    }

    private BlockExtent Unmapped(GuestOffset offset, GuestOffset end)
        => new(offset.Value, Math.Min(end.Value, disk.Length) - offset.Value, BlockStatus.None);

    /// <summary>From an offset to the end of its run of like subclusters inside one cluster.</summary>
    private BlockExtent ExtentOf(L2Entry entry, GuestOffset offset)
    {
        Tables.RequireSound(entry, offset);
        Qcow2Geometry geometry = disk.Geometry;
        int within = geometry.InCluster(offset), subcluster = within / geometry.SubclusterSize;
        int run = entry.RunOf(subcluster, geometry.HasSubclusters);
        long length = ((long)(subcluster + run) * geometry.SubclusterSize) - within;
        switch (entry.KindOf(subcluster, geometry.HasSubclusters))
        {
            case ClusterKind.Unallocated:
                return new(offset.Value, length, BlockStatus.None);
            case ClusterKind.Zero:
                if (disk.Header.Version < 3)
                {
                    throw disk.Corrupt($"the L2 entry for guest offset {offset.Value:#,0} is a zero cluster,"
                        + $" which version 2 does not have", entry.Place.Value);
                }
                return entry.HasPlace
                    // reserved there, not stored
                    ? new(offset.Value, length, BlockStatus.Allocated | BlockStatus.Zero, disk.DataNode, (entry.Place + within).Value)
                    : new(offset.Value, length, BlockStatus.Allocated | BlockStatus.Zero);
            case ClusterKind.Compressed:
                return new(offset.Value, geometry.ClusterSize - within, BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed);
            default:
                if (entry.Place.Value >= disk.DataNode.Length && disk.RequiresAll)
                {
                    throw Qcow2Disk.Missing("cluster", offset + -within, disk.DataNode, entry.Place);
                }
                return new(offset.Value, length, BlockStatus.Allocated | BlockStatus.Data, disk.DataNode, (entry.Place + within).Value);
        }
    }
}
