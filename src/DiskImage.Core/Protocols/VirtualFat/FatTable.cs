using DiskImage.Binary;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// The allocation table of a tree whose items lie one behind the other, made up as it is read. Spec: fatgen103, 4.
/// </summary>
/// <param name="geometry">The volume.</param>
/// <param name="items">What has clusters, in their order and without gaps.</param>
internal sealed class FatTable(FatGeometry geometry, IReadOnlyList<FatItem> items)
{
    private const uint EndOfChain = 0x0FFF_FFFF;

    private readonly byte[]? _bytes = geometry.Type == FatType.Fat12 ? Of12(geometry, items) : null;

    /// <summary>Fills a buffer from a byte of the table on.</summary>
    public void Read(long offset, Span<byte> buffer)
    {
        if (_bytes is not null)
        {
            _bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer);
            return;
        }
        int width = (int)geometry.Type / 8;
        Span<byte> entry = stackalloc byte[sizeof(uint)];
        int item = -1;
        for (int done = 0; done < buffer.Length;)
        {
            uint cluster = (uint)((offset + done) / width);
            int at = (int)((offset + done) % width), count = Math.Min(width - at, buffer.Length - done);
            LittleEndian.U32(entry, 0, Value(geometry, items, cluster, ref item));
            entry.Slice(at, count).CopyTo(buffer[done..]);
            done += count;
        }
    }

    /// <summary>The item that a cluster belongs to; -1 for none.</summary>
    public static int Find(IReadOnlyList<FatItem> items, uint cluster)
    {
        int low = 0, high = items.Count - 1;
        while (low < high)
        {
            int middle = low + ((high - low + 1) / 2);
            (low, high) = items[middle].FirstCluster <= cluster ? (middle, high) : (low, middle - 1);
        }
        return items.Count > 0 && IsOf(items[low], cluster) ? low : -1;
    }

    private static bool IsOf(FatItem item, uint cluster) => cluster >= item.FirstCluster && cluster - item.FirstCluster < item.Clusters;

    private static uint Value(FatGeometry geometry, IReadOnlyList<FatItem> items, uint cluster, ref int item)
    {
        if (cluster < FatGeometry.FirstCluster)
        {
            return cluster == 0 ? (EndOfChain & ~0xFFu) | geometry.Media : EndOfChain;
        }
        if (item < 0 || !IsOf(items[item], cluster))
        {
            item = item >= 0 && item + 1 < items.Count && IsOf(items[item + 1], cluster) ? item + 1 : Find(items, cluster);
        }
        return item < 0 ? 0 : cluster + 1 - items[item].FirstCluster == items[item].Clusters ? EndOfChain : cluster + 1;
    }

    private static byte[] Of12(FatGeometry geometry, IReadOnlyList<FatItem> items)
    {
        byte[] bytes = new byte[geometry.TableBytes];
        int item = -1;
        for (uint cluster = 0; cluster < geometry.Clusters + FatGeometry.FirstCluster; cluster++)
        {
            uint value = Value(geometry, items, cluster, ref item) & 0xFFF;
            int at = (int)(cluster * 3 / 2);
            uint pair = LittleEndian.U16(bytes, at);
            LittleEndian.U16(bytes, at, (ushort)(cluster % 2 == 0 ? pair | value : pair | (value << 4)));
        }
        return bytes;
    }
}
