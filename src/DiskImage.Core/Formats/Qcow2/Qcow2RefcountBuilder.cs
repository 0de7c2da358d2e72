using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Builds a whole new refcount structure from counted references, behind everything else in the file, and then switches the header
/// to it in one write. The old structure is simply not counted, so its space becomes free.
/// </summary>
internal static class Qcow2RefcountBuilder
{
    /// <summary>Writes the structure and returns the header that names it. The refcount width may change.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="references">Counts of everything but the refcount structure.</param>
    /// <param name="refcountOrder">log2 of the bits of the new refcounts; no count may be above what they hold.</param>
    /// <param name="cancellationToken">Stops it before the switch.</param>
    public static async ValueTask<Qcow2Header> BuildAsync(
        BlockNode file, Qcow2Header header, SparseCounters references, int refcountOrder, CancellationToken cancellationToken)
    {
        var geometry = new Qcow2Geometry(header.ClusterBits, refcountOrder, header.Has(Qcow2Incompatible.ExtendedL2));
        long start = Math.Max(geometry.Clusters(file.Length), references.End);
        SortedSet<long> ranges = [.. references.Ranges.SelectMany(r => Covered(r.First, r.Count))];
        long tableClusters = 0, total = -1;
        while (total != ranges.Count + tableClusters) // more blocks may need more blocks; grows until it fits itself
        {
            total = ranges.Count + tableClusters;
            ranges.UnionWith(Covered(start, Math.Max(1, total)));
            tableClusters = geometry.Clusters((ranges.Max + 1) * 8);
        }
        if (tableClusters << geometry.ClusterBits > Qcow2Header.MaxRefcountTableBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{file.Name}: refcounts for clusters up to offset {start << geometry.ClusterBits:#,0} need"
                    + $" a table of more than {Qcow2Header.MaxRefcountTableBytes:#,0} bytes, QEMU's limit", file.Name);
        }

        byte[] table = new byte[tableClusters << geometry.ClusterBits], block = new byte[geometry.ClusterSize];
        long at = start;
        foreach (long range in ranges)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Fill(block, range);
            BigEndian.U64(table, (int)range * 8, (ulong)at << geometry.ClusterBits);
            await file.WriteAsync(at << geometry.ClusterBits, block, cancellationToken).ConfigureAwait(false);
            at++;
        }
        await file.WriteAsync(at << geometry.ClusterBits, table, cancellationToken).ConfigureAwait(false);
        await file.FlushAsync(cancellationToken).ConfigureAwait(false);
        Qcow2Header switched = header with
        {
            RefcountTableOffset = at << geometry.ClusterBits,
            RefcountTableClusters = (int)tableClusters,
            RefcountOrder = refcountOrder,
        };
        byte[] cluster = switched.ToCluster(file.Name);
        int end = header.Version < 3 ? Qcow2Header.V2Length : 100; // one write: the table and the width go together
        await file.WriteAsync(
            Qcow2Header.RefcountTableAt, cluster.AsMemory(Qcow2Header.RefcountTableAt..end), CancellationToken.None).ConfigureAwait(false);
        await file.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        return switched;

        IEnumerable<long> Covered(long first, long count)
        {
            long last = (first + count - 1) >> geometry.RefcountsPerBlockBits;
            for (long range = first >> geometry.RefcountsPerBlockBits; range <= last; range++)
            {
                yield return range;
            }
        }

        void Fill(byte[] bytes, long range)
        {
            Array.Clear(bytes);
            long first = range << geometry.RefcountsPerBlockBits;
            for (int i = 0; i < 1 << geometry.RefcountsPerBlockBits; i++)
            {
                ulong count = references[first + i] + (first + i >= start && first + i < start + total ? 1UL : 0UL);
                if (count != 0)
                {
                    _ = RefcountBlock.Set(bytes, i, refcountOrder, count);
                }
            }
        }
    }

    /// <summary>The smallest width, at least the present one, that holds every count.</summary>
    public static int OrderFor(SparseCounters references, int order)
    {
        foreach ((long first, long count) in references.Ranges)
        {
            for (long unit = first; unit < first + count; unit++)
            {
                while (order < 6 && references[unit] > (1UL << (1 << order)) - 1)
                {
                    order++;
                }
            }
        }
        return order;
    }
}
