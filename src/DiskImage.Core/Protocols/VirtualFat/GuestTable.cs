using System.Collections;
using DiskImage.Binary;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// The allocation table as a guest has written it, which may be anything: chains are followed over clusters that there are, each of which
/// belongs to one chain only, so their lengths are bounded.
/// </summary>
/// <param name="geometry">The volume, as it was made.</param>
/// <param name="read">Fills a buffer from an offset of the disk.</param>
internal sealed class GuestTable(FatGeometry geometry, GuestTable.Reader read)
{
    private const int PageBytes = 64 << 10, MostPages = 256;

    private readonly Dictionary<long, byte[]> _pages = [];
    private readonly BitArray _taken = new((int)Math.Min(int.MaxValue, geometry.Clusters + FatGeometry.FirstCluster));

    /// <summary>Fills a buffer from an offset of the disk; both are whole sectors.</summary>
    public delegate void Reader(long offset, Span<byte> buffer);

    /// <summary>True if a cluster is marked as in use.</summary>
    public bool IsUsed(uint cluster) => Value(cluster) != 0;

    /// <summary>Follows a chain to its end.</summary>
    /// <param name="first">Its first cluster.</param>
    /// <param name="problem">What is wrong with it; null for nothing.</param>
    public List<ClusterRun> Follow(uint first, out string? problem)
    {
        var runs = new List<ClusterRun>();
        problem = null;
        uint cluster = first;
        do
        {
            if (!geometry.Has(cluster))
            {
                problem = $"its chain of clusters leads to {cluster}, and the volume has {FatGeometry.FirstCluster} to "
                    + $"{geometry.Clusters + FatGeometry.FirstCluster - 1}";
                return runs;
            }
            if (_taken[(int)cluster])
            {
                problem = $"its chain of clusters leads to {cluster}, which another file has, or itself";
                return runs;
            }
            _taken[(int)cluster] = true;
            if (runs.Count > 0 && runs[^1] is var last && last.First + last.Count == cluster)
            {
                runs[^1] = last with { Count = last.Count + 1 };
            }
            else
            {
                runs.Add(new ClusterRun(cluster, 1));
            }
            uint next = Value(cluster);
            if (next == 0)
            {
                problem = $"its chain of clusters leads over {cluster}, which is marked as free";
                return runs;
            }
            cluster = next;
        }
        while (!IsEnd(cluster));
        return runs;
    }

    private bool IsEnd(uint value) => value >= (geometry.Type switch
    {
        FatType.Fat12 => 0xFF8u,
        FatType.Fat16 => 0xFFF8u,
        _ => 0x0FFF_FFF8u,
    });

    private uint Value(uint cluster)
    {
        switch (geometry.Type)
        {
            case FatType.Fat12:
                uint pair = Byte(cluster * 3L / 2) | ((uint)Byte((cluster * 3L / 2) + 1) << 8);
                return cluster % 2 == 0 ? pair & 0xFFF : pair >> 4;
            case FatType.Fat16:
                return LittleEndian.U16(Page(cluster * 2L), (int)(cluster * 2L % PageBytes));
            default:
                return LittleEndian.U32(Page(cluster * 4L), (int)(cluster * 4L % PageBytes)) & 0x0FFF_FFFF;
        }
    }

    private byte Byte(long at) => Page(at)[at % PageBytes];

    private byte[] Page(long at)
    {
        long index = at / PageBytes;
        if (!_pages.TryGetValue(index, out byte[]? page))
        {
            if (_pages.Count == MostPages)
            {
                _pages.Clear();
            }
            page = new byte[PageBytes];
            int count = (int)Math.Min(PageBytes, geometry.TableBytes - (index * PageBytes));
            read(geometry.TableAt + (index * PageBytes), page.AsSpan(0, count));
            _pages.Add(index, page);
        }
        return page;
    }
}
