using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What a (sub)cluster is. Spec: qcow2, "Cluster mapping", "Extended L2 Entries".</summary>
internal enum ClusterKind
{
    /// <summary>This image says nothing: the backing file shows through.</summary>
    Unallocated,

    /// <summary>Reads as zeroes; a host cluster may be reserved for it.</summary>
    Zero,

    /// <summary>Stored at its host offset.</summary>
    Normal,

    /// <summary>Stored compressed.</summary>
    Compressed,
}

/// <summary>One L2 entry: 64 bits, and with extended L2 entries the subcluster bitmap. Spec: qcow2, "L2 table entry".</summary>
/// <param name="Raw">The descriptor.</param>
/// <param name="Bitmap">Bits 0-31: subcluster allocated; bits 32-63: subcluster reads as zeroes. Unused without extended L2
/// entries.</param>
internal readonly record struct L2Entry(ulong Raw, ulong Bitmap = 0)
{
    private const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00; // bits 9-55
    private const ulong CopiedFlag = 1UL << 63, CompressedFlag = 1UL << 62, ZeroFlag = 1;

    /// <summary>Bits that are not reserved in an L1 entry.</summary>
    public const ulong L1Bits = OffsetMask | CopiedFlag;

    /// <summary>
    /// The entry without reserved bits. In an extended entry the zero flag is one of them, in a compressed one the bitmap.
    /// </summary>
    public L2Entry WithoutReserved(bool extended)
        => IsCompressed ? this with { Bitmap = 0 } : this with { Raw = Raw & (extended ? L1Bits : L1Bits | ZeroFlag) };

    /// <summary>The offset bits of L1 and refcount table entries as well.</summary>
    public static long OffsetOf(ulong raw) => (long)(raw & OffsetMask);

    /// <summary>An L1 entry or L2 entry with the "refcount is exactly one" flag.</summary>
    public static ulong Copied(HostOffset place) => (ulong)place.Value | CopiedFlag;

    public static L2Entry Normal(HostOffset place, ulong bitmap) => new(Copied(place), bitmap);

    public bool IsCompressed => (Raw & CompressedFlag) != 0;

    /// <summary>Refcount is exactly one: may be written in place.</summary>
    public bool IsCopied => (Raw & CopiedFlag) != 0;

    /// <summary>The host cluster; 0 for none. Meaningless for a compressed cluster.</summary>
    public HostOffset Place => new(OffsetOf(Raw));

    /// <summary>It names a host cluster other than the first, which only an external data file has.</summary>
    public bool HasPlace => (Raw & OffsetMask) != 0;

    /// <summary>What subcluster <paramref name="index"/> is.</summary>
    public ClusterKind KindOf(int index, bool extended)
    {
        if (IsCompressed)
        {
            return ClusterKind.Compressed;
        }
        if (extended)
        {
            return (Bitmap >> (32 + index) & 1) != 0 ? ClusterKind.Zero
                : (Bitmap >> index & 1) != 0 ? ClusterKind.Normal
                : ClusterKind.Unallocated;
        }
        return (Raw & ZeroFlag) != 0 ? ClusterKind.Zero
            : HasPlace || IsCopied ? ClusterKind.Normal // host offset 0 is valid in an external data file, and then "copied" is set
            : ClusterKind.Unallocated;
    }

    /// <summary>What makes an entry one that nothing can be read or written by; null if nothing does.</summary>
    /// <param name="extended">The image has extended L2 entries.</param>
    /// <param name="external">The image's data is in an external data file.</param>
    public string? Fault(bool extended, bool external)
    {
        if (IsCompressed)
        {
            return external ? "is compressed, which an image with an external data file cannot have" : null;
        }
        uint stored = extended ? (uint)Bitmap : 0;
        if ((stored & (uint)(Bitmap >> 32)) != 0)
        {
            return $"has subclusters that are both stored and zero (bitmap {Bitmap:x16})";
        }
        bool isSomewhere = HasPlace || (external && IsCopied);
        return stored == 0 || isSomewhere ? null : $"has stored subclusters but no host cluster (bitmap {Bitmap:x16})";
    }

    /// <summary>How many subclusters from <paramref name="index"/> on are of the same kind.</summary>
    public int RunOf(int index, bool extended)
    {
        if (!extended || IsCompressed)
        {
            return (extended ? 32 : 1) - index;
        }
        uint allocated = (uint)Bitmap, zero = (uint)(Bitmap >> 32);
        uint same = KindOf(index, extended) switch
        {
            ClusterKind.Zero => zero,
            ClusterKind.Normal => allocated & ~zero,
            _ => ~(allocated | zero),
        };
        return Math.Min(BitOperations.TrailingZeroCount(~(same >> index)), 32 - index);
    }

    /// <summary>The bitmap with subclusters [<paramref name="first"/>, <paramref name="end"/>) allocated and not zero.</summary>
    public ulong BitmapWithData(int first, int end)
    {
        ulong mask = Mask(first, end);
        return (Bitmap | mask) & ~(mask << 32);
    }

    /// <summary>The bitmap with subclusters [<paramref name="first"/>, <paramref name="end"/>) reading as zeroes.</summary>
    public ulong BitmapWithZeroes(int first, int end)
    {
        ulong mask = Mask(first, end);
        return (Bitmap & ~mask) | (mask << 32);
    }

    /// <summary>The bitmap with subclusters [<paramref name="first"/>, <paramref name="end"/>) deferring to the backing file.</summary>
    public ulong BitmapWithout(int first, int end)
    {
        ulong mask = Mask(first, end);
        return Bitmap & ~(mask | (mask << 32));
    }

    /// <summary>A cluster that reads as zeroes, and the host cluster that is reserved for it.</summary>
    public static L2Entry Zero(HostOffset? reserved, bool extended)
    {
        ulong place = reserved is { Value: not 0 } host ? Copied(host) : 0;
        return extended ? new(place, 0xFFFF_FFFF_0000_0000) : new(place | ZeroFlag);
    }

    /// <summary>A compressed cluster's descriptor. Spec: qcow2, "Compressed Clusters Descriptor".</summary>
    public static L2Entry Compressed(HostOffset place, int length, int clusterBits)
    {
        long sectors = ((place.Value + length - 1) >> 9) - (place.Value >> 9);
        return new((ulong)place.Value | (ulong)sectors << OffsetBits(clusterBits) | CompressedFlag);
    }

    /// <summary>Where a compressed cluster's data begins, and how many bytes it may take (to the end of its last sector).</summary>
    public (HostOffset Place, int MaxLength) CompressedRange(int clusterBits)
    {
        int x = OffsetBits(clusterBits);
        long offset = (long)(Raw & ((1UL << x) - 1));
        int sectors = (int)((Raw & (CompressedFlag - 1)) >> x) + 1;
        return (new(offset), (sectors * 512) - (int)(offset & 511));
    }

    /// <summary>A compressed cluster's descriptor with as many sectors as a file has; its data must begin inside the file.</summary>
    /// <remarks>QEMU takes one that reaches a cluster or more past the end of the file for an error, though the data ends before.</remarks>
    public L2Entry CompressedWithin(long fileLength, int clusterBits)
    {
        (HostOffset place, int length) = CompressedRange(clusterBits);
        return place.Value + length - fileLength < 1L << clusterBits
            ? this
            : this with { Raw = Compressed(place, (int)(fileLength - place.Value), clusterBits).Raw | (Raw & CopiedFlag) };
    }

    /// <summary>The same entry, with the "refcount is exactly one" flag set or cleared.</summary>
    public L2Entry WithCopied(bool copied) => this with { Raw = copied ? Raw | CopiedFlag : Raw & ~CopiedFlag };

    /// <summary>The same entry, stored elsewhere. Not for a compressed cluster.</summary>
    public L2Entry WithPlace(HostOffset place) => this with { Raw = (Raw & ~OffsetMask) | (ulong)place.Value };

    /// <summary>
    /// How many plain entries of a table, from <paramref name="index"/> on, lead to clusters that follow each other with the same flags.
    /// </summary>
    /// <param name="table">Entries without subclusters, as they are stored.</param>
    /// <param name="index">The first of them.</param>
    /// <param name="raw">That one.</param>
    /// <param name="clusterSize">Bytes of a cluster.</param>
    public static int RunIn(ReadOnlySpan<byte> table, int index, ulong raw, int clusterSize)
    {
        ReadOnlySpan<ulong> entries = MemoryMarshal.Cast<byte, ulong>(table);
        int end = index + 1;
        while (end < entries.Length
            && entries[end] == BinaryPrimitives.ReverseEndianness(raw + ((ulong)(end - index) * (ulong)clusterSize)))
        {
            end++;
        }
        return end - index;
    }

    private static int OffsetBits(int clusterBits) => 62 - (clusterBits - 8);

    private static ulong Mask(int first, int end) => (uint)(((1UL << end) - 1) & ~((1UL << first) - 1));
}
