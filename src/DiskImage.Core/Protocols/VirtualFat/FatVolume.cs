using System.Security.Cryptography;
using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>What a run of the disk is made of.</summary>
/// <param name="Length">Bytes from the offset that was asked for.</param>
/// <param name="File">The file that has its bytes; null for what is made up here.</param>
/// <param name="FileOffset">Where in the file.</param>
/// <param name="IsZero">It reads as zeroes.</param>
internal readonly record struct FatRun(long Length, FatFile? File, long FileOffset, bool IsZero);

/// <summary>A tree laid out on a volume: which bytes are where. Files are named here, not read.</summary>
internal sealed class FatVolume
{
    private const int CachedFolders = 16;
    private const int MostRootEntries = 65_520; // whole sectors, counted in 16 bits

    private readonly List<FatItem> _placed = []; // what has clusters, in their order
    private readonly FatTable _table;
    private readonly byte[] _first, _reserved;
    private readonly string _label;
    private readonly Dictionary<FatFolder, byte[]> _folders = new(ReferenceEqualityComparer.Instance); // bytes of those that were read last
    private readonly Queue<FatFolder> _order = new();
    private readonly Lock _lock = new(); // guards both

    /// <summary>Lays a tree out.</summary>
    /// <exception cref="DiskImageException">OutOfRange: it does not fit; InvalidOption.</exception>
    public FatVolume(FatFolder root, VirtualFatOptions options)
    {
        (Root, _label) = (root, FatName.Label(options.Label));
        List<FatItem> items = [.. InOrder(root)];
        Geometry = FatGeometry.Choose(
            options,
            root.Entries,
            (type, perCluster) => items.Sum(i => ClustersOf(i, type, perCluster * FatGeometry.Sector)));
        if (Geometry.Type != FatType.Fat32 && root.Entries > MostRootEntries)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{root.Path}: takes {root.Entries:#,0} entries; the top folder of a FAT12 or FAT16 volume has up to "
                    + $"{MostRootEntries:#,0}. Put a part "
                    + $"of it into a folder, or choose fat-type 32.",
                root.Path);
        }
        uint next = FatGeometry.FirstCluster;
        foreach (FatItem item in items)
        {
            item.Clusters = (uint)ClustersOf(item, Geometry.Type, Geometry.ClusterBytes);
            item.FirstCluster = item.Clusters == 0 ? 0 : next;
            if (item.Clusters > 0)
            {
                _placed.Add(item);
                next += item.Clusters;
            }
        }
        _table = new FatTable(Geometry, _placed);
        uint serial = SerialOf(items, root.Path.Length);
        _first = Geometry.Start == 0 ? [] : FatSectors.PartitionTable(Geometry, serial);
        _reserved = FatSectors.Reserved(Geometry, _label, serial, next - FatGeometry.FirstCluster);
    }

    /// <summary>Where its parts are.</summary>
    public FatGeometry Geometry { get; }

    /// <summary>The tree.</summary>
    public FatFolder Root { get; }

    /// <summary>What the disk has at an offset.</summary>
    public FatRun RunAt(long offset, long length)
    {
        FatGeometry g = Geometry;
        if (offset >= g.DataAt && offset < g.DataEnd)
        {
            return DataAt(offset, length);
        }
        (long end, bool isZero) = offset < _first.Length ? (_first.Length, false)
            : offset < g.VolumeAt ? (g.VolumeAt, true)
            : offset < g.DataAt ? (g.DataAt, false)
            : (g.DiskBytes, true);
        return new FatRun(Math.Min(length, end - offset), null, 0, isZero);
    }

    /// <summary>Fills a buffer with what is made up here, of one run that is no zeroes.</summary>
    public void Read(long offset, Span<byte> buffer)
    {
        FatGeometry g = Geometry;
        while (!buffer.IsEmpty)
        {
            int done;
            if (offset < g.VolumeAt)
            {
                done = Copy(_first, offset, buffer);
            }
            else if (offset < g.TableAt)
            {
                done = Copy(_reserved, offset - g.VolumeAt, buffer);
            }
            else if (offset < g.RootAt)
            {
                long at = (offset - g.TableAt) % g.TableBytes;
                done = (int)Math.Min(buffer.Length, g.TableBytes - at);
                _table.Read(at, buffer[..done]);
            }
            else if (offset < g.DataAt)
            {
                done = CopyPadded(BytesOf(Root), offset - g.RootAt, g.RootBytes, buffer);
            }
            else
            {
                var folder = (FatFolder)_placed[FatTable.Find(_placed, ClusterAt(offset))];
                long start = g.OffsetOf(folder.FirstCluster);
                done = CopyPadded(BytesOf(folder), offset - start, (long)folder.Clusters * g.ClusterBytes, buffer);
            }
            offset += done;
            buffer = buffer[done..];
        }
    }

    /// <summary>All of a tree: a folder, then what is in it.</summary>
    public static IEnumerable<FatItem> InOrder(FatFolder root)
    {
        var open = new Stack<FatItem>([root]);
        while (open.TryPop(out FatItem? item))
        {
            yield return item;
            foreach (FatItem inner in item is FatFolder folder ? Enumerable.Reverse(folder.Items) : [])
            {
                open.Push(inner);
            }
        }
    }

    private static long ClustersOf(FatItem item, FatType type, int clusterBytes)
        => item is FatFolder { Parent: null } && type != FatType.Fat32 ? 0 : (item.Bytes + clusterBytes - 1) / clusterBytes;

    private uint ClusterAt(long offset) => (uint)((offset - Geometry.DataAt) / Geometry.ClusterBytes) + FatGeometry.FirstCluster;

    private FatRun DataAt(long offset, long length)
    {
        FatGeometry g = Geometry;
        int found = FatTable.Find(_placed, ClusterAt(offset));
        if (found < 0)
        {
            return new FatRun(Math.Min(length, g.DataEnd - offset), null, 0, true); // free clusters lie behind all others
        }
        FatItem item = _placed[found];
        long start = g.OffsetOf(item.FirstCluster), end = start + ((long)item.Clusters * g.ClusterBytes), stored = start + item.Bytes;
        return item is not FatFile file ? new FatRun(Math.Min(length, end - offset), null, 0, false)
            : offset >= stored ? new FatRun(Math.Min(length, end - offset), null, 0, true)
            : new FatRun(Math.Min(length, stored - offset), file, offset - start, false);
    }

    private byte[] BytesOf(FatFolder folder)
    {
        lock (_lock)
        {
            if (!_folders.TryGetValue(folder, out byte[]? bytes))
            {
                bytes = FatFolderBytes.Of(folder, _label);
                if (_order.Count == CachedFolders)
                {
                    _ = _folders.Remove(_order.Dequeue());
                }
                _folders.Add(folder, bytes);
                _order.Enqueue(folder);
            }
            return bytes;
        }
    }

    private static int Copy(byte[] bytes, long at, Span<byte> buffer) => CopyPadded(bytes, at, bytes.Length, buffer);

    private static int CopyPadded(byte[] bytes, long at, long end, Span<byte> buffer)
    {
        int count = (int)Math.Min(buffer.Length, end - at), stored = (int)Math.Clamp(bytes.Length - at, 0, count);
        if (stored > 0)
        {
            bytes.AsSpan((int)at, stored).CopyTo(buffer);
        }
        buffer[stored..count].Clear();
        return count;
    }

    /// <summary>
    /// A number that follows from names, lengths and times, so that the same tree is the same disk. Contents are not read.
    /// </summary>
    private static uint SerialOf(IReadOnlyList<FatItem> items, int rootLength)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> numbers = stackalloc byte[16];
        foreach (FatItem item in items)
        {
            (ushort date, ushort time, _) = FatTime.Of(item is FatFolder { Parent: null } ? DateTime.MinValue : item.Changed);
            LittleEndian.U64(numbers, 0, (ulong)item.Bytes);
            LittleEndian.U32(numbers, 8, ((uint)date << 16) | time);
            LittleEndian.U32(numbers, 12, (uint)item.Attributes);
            hash.AppendData(numbers);
            hash.AppendData(Encoding.UTF8.GetBytes(item.Path[Math.Min(rootLength, item.Path.Length)..].Replace('\\', '/') + "\0"));
        }
        return BitConverter.ToUInt32(hash.GetHashAndReset());
    }
}
