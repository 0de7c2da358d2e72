using System.IO.Compression;
using DiskImage.Compression;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>What an image says about a cluster or subcluster; a set of them where several are right.</summary>
[Flags]
internal enum SpecKinds
{
    Unallocated = 1,
    Zero = 2,

    /// <summary>Reads as zeroes, and a host cluster is kept for it.</summary>
    ZeroAllocated = 4,
    Data = 8,
    Compressed = 16,

    /// <summary>Its entry, or the table that should hold its entry, cannot be.</summary>
    Unreachable = 32,

    AnyZero = Zero | ZeroAllocated,
}

/// <summary>One state of the disk: an L1 table and what hangs from it. Spec: "Cluster mapping".</summary>
internal sealed class Qcow2SpecView(Qcow2SpecReader image, long l1, int l1Entries, long size)
{
    private readonly int _entryBytes = image.ExtendedL2 ? 16 : 8;

    public long Size => size;

    public long Units => (size + image.UnitSize - 1) / image.UnitSize;

    private int EntriesPerTable => image.ClusterSize / _entryBytes;

    private int OffsetBitsOfCompressed => 62 - (image.ClusterBits - 8);

    /// <summary>What unit <paramref name="unit"/> of the disk is.</summary>
    public SpecKinds KindOf(long unit) => Find(unit * image.UnitSize, out _, out _);

    /// <summary>The bytes of a unit as this image holds them; null where it cannot be reached or shows the backing file.</summary>
    public byte[]? Read(long unit)
    {
        long guest = unit * image.UnitSize;
        int length = (int)Math.Min(image.UnitSize, size - guest);
        switch (Find(guest, out ulong entry, out _))
        {
            case SpecKinds.Zero or SpecKinds.ZeroAllocated:
                return new byte[length];
            case SpecKinds.Unallocated:
                return image.BackingFile is null ? new byte[length] : null;
            case SpecKinds.Data:
                long host = (long)(entry & Qcow2SpecReader.OffsetBits) + (guest % image.ClusterSize);
                return image.HasDataFile ? FromDataFile(host, length) : image.Bytes(host, length);
            case SpecKinds.Compressed:
                return Inflate(entry)?.AsSpan((int)(guest % image.ClusterSize), length).ToArray();
            default:
                return null;
        }
    }

    /// <summary>The host clusters that a unit's data lies in; none unless it has some.</summary>
    public IEnumerable<long> HostClusters(long unit)
    {
        SpecKinds kind = Find(unit * image.UnitSize, out ulong entry, out _);
        (long offset, long length) = kind == SpecKinds.Compressed
            ? CompressedRange(entry)
            : ((long)(entry & Qcow2SpecReader.OffsetBits), image.ClusterSize);
        if (kind is SpecKinds.Compressed or SpecKinds.Data or SpecKinds.ZeroAllocated && !image.HasDataFile)
        {
            for (long cluster = offset >> image.ClusterBits; cluster << image.ClusterBits < offset + length; cluster++)
            {
                yield return cluster;
            }
        }
    }

    /// <summary>Counts what the tables refer to, and notes entries that cannot stand.</summary>
    public void CountReferences(bool isActive)
    {
        for (int i = 0; i < l1Entries; i++)
        {
            ulong entry = image.U64(l1 + (i * 8L));
            long table = (long)(entry & Qcow2SpecReader.OffsetBits);
            image.Require((entry & ~(Qcow2SpecReader.OffsetBits | Qcow2SpecReader.CopiedBit)) == 0, $"reserved bits of L1 entry {i}");
            image.Require(table != 0 || entry == 0, $"L1 entry {i} without a table is {entry:x}");
            if (table == 0 || !image.AddTable(table, image.ClusterSize, "an L2 table"))
            {
                continue;
            }
            for (int k = 0; k < EntriesPerTable; k++)
            {
                long guest = (((long)i * EntriesPerTable) + k) << image.ClusterBits;
                CountEntry(image.U64(table + (k * _entryBytes)), image.ExtendedL2
                    ? image.U64(table + (k * _entryBytes) + 8)
                    : 0, guest, isActive);
            }
        }
    }

    /// <summary>Spec: bit 63 says that the refcount is exactly one. It is accurate in the active tables only.</summary>
    public void CheckCopiedFlags()
    {
        for (int i = 0; i < l1Entries; i++)
        {
            ulong entry = image.U64(l1 + (i * 8L));
            long table = (long)(entry & Qcow2SpecReader.OffsetBits);
            if (table == 0)
            {
                continue;
            }
            RequireCopied(entry, image.References(table >> image.ClusterBits) == 1, $"L1 entry {i}");
            for (int k = 0; k < EntriesPerTable; k++)
            {
                ulong inner = image.U64(table + (k * _entryBytes));
                long host = (long)(inner & Qcow2SpecReader.OffsetBits);
                if ((inner & Qcow2SpecReader.CompressedBit) == 0 && host != 0 && !image.HasDataFile)
                {
                    RequireCopied(inner, image.References(host >> image.ClusterBits) == 1, $"L2 entry {k} of L1 entry {i}");
                }
            }
        }
    }

    private void RequireCopied(ulong entry, bool expected, string what)
        => image.Require(
            (entry & Qcow2SpecReader.CopiedBit) != 0 == expected,
            $"{what} is {entry:x}, its \"refcount is exactly one\" flag should be {(expected ? "set" : "clear")}");

    /// <summary>Spec: "Standard Cluster Descriptor", "Compressed Clusters Descriptor", "Extended L2 Entries".</summary>
    private void CountEntry(ulong entry, ulong bitmap, long guest, bool isActive)
    {
        if ((entry & Qcow2SpecReader.CompressedBit) != 0)
        {
            (long offset, long length) = CompressedRange(entry);
            image.Require(!image.HasDataFile, $"a compressed cluster at guest offset {guest} and an external data file");
            image.Require((entry & Qcow2SpecReader.CopiedBit) == 0, $"bit 63 of the compressed cluster at guest offset {guest}");
            image.Require(bitmap == 0, $"subcluster bits of the compressed cluster at guest offset {guest}");
            image.AddData(offset, length, guest);
            return;
        }
        bool zeroBitAllowed = image.Version >= 3 && !image.ExtendedL2;
        image.Require(
            (entry & ~(Qcow2SpecReader.OffsetBits | Qcow2SpecReader.CopiedBit | (zeroBitAllowed ? 1UL : 0))) == 0,
            $"reserved bits of the entry {entry:x} at guest offset {guest}");
        image.Require(
            ((uint)bitmap & (uint)(bitmap >> 32)) == 0, $"subclusters at guest offset {guest} are both stored and zero: {bitmap:x}");
        long host = (long)(entry & Qcow2SpecReader.OffsetBits);
        bool hasHost = host != 0 || (image.HasDataFile && (entry & Qcow2SpecReader.CopiedBit) != 0);
        image.Require(hasHost || (entry & Qcow2SpecReader.CopiedBit) == 0, $"bit 63 without a host cluster at guest offset {guest}");
        image.Require(hasHost || (uint)bitmap == 0, $"stored subclusters without a host cluster at guest offset {guest}: {bitmap:x}");
        if (!hasHost)
        {
            return;
        }
        image.Require(host % image.ClusterSize == 0, $"alignment of the entry {entry:x} at guest offset {guest}");
        if (image.HasDataFile)
        {
            image.Require(host == guest, $"guest offset {guest} is at {host} of the data file");
            image.Require(!isActive
                || (entry & Qcow2SpecReader.CopiedBit) != 0, $"bit 63 of guest offset {guest}, which is in the data file");
        }
        else
        {
            image.AddData(host, image.ClusterSize, guest);
            image.Require(!image.IsTable(host >> image.ClusterBits), $"the data of guest offset {guest} lies on a table at {host}");
        }
    }

    private SpecKinds Find(long guest, out ulong entry, out ulong bitmap)
    {
        (entry, bitmap) = (0, 0);
        long cluster = guest >> image.ClusterBits;
        if (cluster / EntriesPerTable >= l1Entries)
        {
            return SpecKinds.Unreachable;
        }
        long table = (long)(image.U64(l1 + (cluster / EntriesPerTable * 8)) & Qcow2SpecReader.OffsetBits);
        if (table == 0)
        {
            return image.U64(l1 + (cluster / EntriesPerTable * 8)) == 0 ? SpecKinds.Unallocated : SpecKinds.Unreachable;
        }
        if (table % image.ClusterSize != 0 || table >= image.FileLength)
        {
            return SpecKinds.Unreachable;
        }
        long at = table + (cluster % EntriesPerTable * _entryBytes);
        entry = image.U64(at);
        bitmap = image.ExtendedL2 ? image.U64(at + 8) : 0;
        long host = (long)(entry & Qcow2SpecReader.OffsetBits);
        bool hasHost = host != 0 || (image.HasDataFile && (entry & Qcow2SpecReader.CopiedBit) != 0);
        if ((entry & Qcow2SpecReader.CompressedBit) != 0)
        {
            (long offset, long length) = CompressedRange(entry);
            return image.HasDataFile || offset < image.ClusterSize || offset + length > image.FileLength + image.ClusterSize
                ? SpecKinds.Unreachable : SpecKinds.Compressed;
        }
        if (hasHost && (host % image.ClusterSize != 0 || (!image.HasDataFile && host >= image.FileLength)))
        {
            return SpecKinds.Unreachable;
        }
        if (!image.ExtendedL2)
        {
            bool isZero = image.Version >= 3 && (entry & 1) != 0;
            return isZero ? (hasHost ? SpecKinds.ZeroAllocated : SpecKinds.Zero) : hasHost ? SpecKinds.Data : SpecKinds.Unallocated;
        }
        int index = (int)(guest % image.ClusterSize / image.UnitSize);
        return (bitmap >> index & 1, bitmap >> (32 + index) & 1) switch
        {
            (0, 0) => SpecKinds.Unallocated,
            (0, 1) => hasHost ? SpecKinds.ZeroAllocated : SpecKinds.Zero,
            (1, 0) when hasHost => SpecKinds.Data,
            _ => SpecKinds.Unreachable,
        };
    }

    private (long Offset, long Length) CompressedRange(ulong entry)
    {
        long offset = (long)(entry & ((1UL << OffsetBitsOfCompressed) - 1));
        long sectors = (long)((entry & (Qcow2SpecReader.CompressedBit - 1)) >> OffsetBitsOfCompressed) + 1;
        return (offset, (sectors * 512) - (offset % 512));
    }

    private byte[] FromDataFile(long offset, int length)
    {
        byte[] bytes = new byte[length];
        byte[] data = image.Data ?? throw new InvalidOperationException("The external data file is not at hand.");
        data.AsSpan((int)Math.Min(offset, data.Length)..(int)Math.Min(offset + length, data.Length)).CopyTo(bytes);
        return bytes;
    }

    private byte[]? Inflate(ulong entry)
    {
        (long offset, long length) = CompressedRange(entry);
        byte[] packed = image.Bytes(offset, (int)length), cluster = new byte[image.ClusterSize];
        if (image.CompressionType == 1)
        {
            return ZstdCodec.Instance.TryDecompress(packed, cluster) ? cluster : null; // the codec is tested against libzstd elsewhere
        }
        try
        {
            using var inflater = new DeflateStream(new MemoryStream(packed), CompressionMode.Decompress);
            inflater.ReadExactly(cluster);
            return cluster;
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            return null;
        }
    }
}
