using System.Numerics;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What follows from a header: how offsets split into indices, and how large things are.</summary>
internal sealed class Qcow2Geometry
{
    public Qcow2Geometry(int clusterBits, int refcountOrder, bool extendedL2)
    {
        ClusterBits = clusterBits;
        ClusterSize = 1 << clusterBits;
        L2EntryBytes = extendedL2 ? 16 : 8;
        L2Bits = clusterBits - (extendedL2 ? 4 : 3);
        SubclustersPerCluster = extendedL2 ? 32 : 1;
        SubclusterSize = ClusterSize / SubclustersPerCluster;
        HasSubclusters = extendedL2;
        RefcountOrder = refcountOrder;
        RefcountsPerBlockBits = clusterBits + 3 - refcountOrder;
    }

    public Qcow2Geometry(Qcow2Header header)
        : this(header.ClusterBits, header.RefcountOrder, header.Has(Qcow2Incompatible.ExtendedL2))
    {
    }

    public int ClusterBits { get; }

    public int ClusterSize { get; }

    /// <summary>8, or 16 with extended L2 entries.</summary>
    public int L2EntryBytes { get; }

    /// <summary>log2 of the entries in an L2 table.</summary>
    public int L2Bits { get; }

    public int L2Entries => 1 << L2Bits;

    /// <summary>32 with extended L2 entries; else the cluster is its own only subcluster.</summary>
    public int SubclustersPerCluster { get; }

    public int SubclusterSize { get; }

    public bool HasSubclusters { get; }

    /// <summary>log2 of the bits of a refcount.</summary>
    public int RefcountOrder { get; }

    /// <summary>log2 of the refcounts in a refcount block.</summary>
    public int RefcountsPerBlockBits { get; }

    public ulong MaxRefcount => RefcountOrder == 6 ? ulong.MaxValue : (1UL << (1 << RefcountOrder)) - 1;

    /// <summary>Guest bytes that one L2 table maps.</summary>
    public long L2Span => 1L << (L2Bits + ClusterBits);

    public int L1Index(GuestOffset guest) => (int)(guest.Value >> (L2Bits + ClusterBits));

    public int L2Index(GuestOffset guest) => (int)(guest.Value >> ClusterBits) & (L2Entries - 1);

    public int InCluster(long offset) => (int)offset & (ClusterSize - 1);

    public int InCluster(GuestOffset guest) => InCluster(guest.Value);

    public int InCluster(HostOffset place) => InCluster(place.Value);

    public GuestOffset ClusterStart(GuestOffset guest) => new(ClusterStart(guest.Value));

    public HostOffset ClusterStart(HostOffset place) => new(ClusterStart(place.Value));

    /// <summary>A place's cluster, counted from the start of the file.</summary>
    public long ClusterOf(HostOffset place) => place.Value >> ClusterBits;

    /// <summary>Where a cluster is, counted from the start of the file.</summary>
    public HostOffset PlaceOf(long cluster) => new(cluster << ClusterBits);

    /// <summary>The first offset of the disk that an L1 entry stands for.</summary>
    public GuestOffset StartOf(int l1Index) => new(l1Index * L2Span); // counts of entries are bounded, so this fits

    /// <summary>Clusters that cover a number of bytes.</summary>
    public long Clusters(long bytes) => Binary.Round.Units(bytes, ClusterSize);

    /// <summary>L1 entries for a disk of a size.</summary>
    public long L1EntriesFor(long size) => Binary.Round.Units(Clusters(size), L2Entries);

    /// <summary>L1 entries for a disk of a size that a new image is to have.</summary>
    /// <exception cref="DiskImageException">InvalidOption: more than QEMU opens.</exception>
    public long RequireL1For(long size, string? path)
    {
        long entries = L1EntriesFor(size), most = Qcow2Header.MaxL1Bytes / 8;
        return entries <= most ? entries : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{(path is null ? "A" : $"{path}: a")} size of {size:#,0} bytes is too large for clusters of {ClusterSize:#,0} bytes,"
                + $" which reach {most * L2Span:#,0}. Choose larger clusters.",
            path);
    }

    /// <summary>log2 of a power of two.</summary>
    public static int Log2(long value) => BitOperations.Log2((ulong)value);

    private long ClusterStart(long offset) => offset & ~(long)(ClusterSize - 1);
}
