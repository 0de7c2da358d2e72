using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// The qcow2 header, versions 2 and 3, with its extensions and the backing file's name. All fields are big-endian.
/// Spec: qcow2, "Header", "Header extensions".
/// </summary>
internal sealed record Qcow2Header
{
    public const uint Magic = 0x514649FB; // "QFI\xfb"
    public const int V2Length = 72, V3Length = 104, LengthWithCompressionType = 112;
    public const int MinClusterBits = 9; // spec
    public const int MaxClusterBits = 21; // QEMU's limit
    public const int MinExtendedClusterBits = 14; // spec, "Extended L2 Entries"
    public const int MaxBackingName = 1023; // spec
    public const int MaxL1Bytes = 32 << 20; // QEMU's limit
    public const int MaxRefcountTableBytes = 8 << 20; // QEMU's limit
    public const int MaxSnapshots = 65536; // QEMU's limit
    public const long MaxHostOffset = 1L << 56; // spec: bits 9-55 of an entry

    // Byte offsets of the fields that are rewritten in place.
    public const int SizeAt = 24, L1SizeAt = 36, RefcountTableAt = 48, SnapshotsAt = 60, SnapshotsOffsetAt = 64;
    public const int IncompatibleAt = 72, AutoClearAt = 88;

    public required int Version { get; init; }
    public long BackingFileOffset { get; init; }
    public int BackingFileSize { get; init; }
    public required int ClusterBits { get; init; }
    public required long Size { get; init; }
    public uint CryptMethod { get; init; }
    public required int L1Size { get; init; }
    public required long L1TableOffset { get; init; }
    public required long RefcountTableOffset { get; init; }
    public required int RefcountTableClusters { get; init; }
    public int SnapshotCount { get; init; }
    public long SnapshotsOffset { get; init; }
    public Qcow2Incompatible Incompatible { get; init; }
    public Qcow2Compatible Compatible { get; init; }
    public Qcow2AutoClear AutoClear { get; init; }
    public int RefcountOrder { get; init; } = 4;
    public int HeaderLength { get; init; } = V2Length;
    public Qcow2CompressionType CompressionType { get; init; }

    /// <summary>Header bytes past the fields known here; kept when the header is rewritten.</summary>
    public byte[] UnknownFields { get; init; } = [];

    /// <summary>The extensions in file order, without the end marker.</summary>
    public IReadOnlyList<Qcow2Extension> Extensions { get; init; } = [];

    /// <summary>The backing file's name as it stands in the image.</summary>
    public string? BackingFile { get; init; }

    public int ClusterSize => 1 << ClusterBits;

    public bool Has(Qcow2Incompatible feature) => (Incompatible & feature) != Qcow2Incompatible.None;

    /// <summary>The backing file's format as the image names it.</summary>
    public string? BackingFormat => TextOf(Qcow2Extension.BackingFormat);

    /// <summary>The external data file's name as the image names it.</summary>
    public string? DataFile => TextOf(Qcow2Extension.ExternalDataFile);

    /// <summary>The bytes of an extension, or null. Of two of one type the last counts, as in QEMU.</summary>
    public byte[]? Extension(uint type) => Extensions.LastOrDefault(e => e.Type == type)?.Data;

    /// <summary>A program did not come to the end of what it was doing: refcounts must not be relied on.</summary>
    public bool IsInChange => Has(Qcow2Incompatible.Dirty) || (Version < 3 && Extension(Qcow2Extension.InChange) is not null);

    /// <summary>Reads and checks the header of an image.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="forRepair">True to let pass what a repair builds anew: the places of the refcount table and of the snapshot
    /// table.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">InvalidFormat or Unsupported; it names the field, its value and what is allowed.</exception>
    public static async ValueTask<Qcow2Header> ReadAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        byte[] start = new byte[LengthWithCompressionType];
        await file.ReadPaddedAsync(0, start, cancellationToken).ConfigureAwait(false);
        Qcow2Header header = ParseFields(start, file.Name, file.Length, forRepair);
        byte[] cluster = new byte[header.ClusterSize]; // at most 2 MiB: cluster_bits is checked
        await file.ReadPaddedAsync(0, cluster, cancellationToken).ConfigureAwait(false);
        return header.WithVariableParts(cluster, file.Name);
    }

    /// <summary>The fields of fixed length, with the bounds that need nothing else.</summary>
    public static Qcow2Header ParseFields(ReadOnlySpan<byte> bytes, string path, long fileLength, bool forRepair = false)
    {
        var check = new FieldCheck(path);
        check.That(fileLength >= V2Length, 0, "file length", fileLength, $"at least {V2Length} bytes for a header");
        check.That(BigEndian.U32(bytes, 0) == Magic, 0, "magic", $"{BigEndian.U32(bytes, 0):x8}", $"{Magic:x8}");
        uint version = BigEndian.U32(bytes, 4);
        check.That(version is 2 or 3, 4, "version", version, "2 or 3", DiskImageErrorKind.Unsupported);
        uint clusterBits = BigEndian.U32(bytes, 20);
        check.That(
            clusterBits is >= MinClusterBits and <= MaxClusterBits,
            20,
            "cluster_bits",
            clusterBits,
            $"{MinClusterBits} to {MaxClusterBits}");
        bool v3 = version == 3;
        uint headerLength = v3 ? BigEndian.U32(bytes, 100) : V2Length;
        bool isLengthPossible = headerLength >= V3Length && headerLength <= 1u << (int)clusterBits;
        check.That(!v3 || isLengthPossible, 100, "header_length", headerLength, $"{V3Length} to the cluster size");

        var header = new Qcow2Header
        {
            Version = (int)version,
            BackingFileOffset = check.Offset(bytes, 8, "backing_file_offset"),
            BackingFileSize = check.Count(bytes, 16, "backing_file_size", int.MaxValue),
            ClusterBits = (int)clusterBits,
            Size = check.Offset(bytes, 24, "size"),
            CryptMethod = BigEndian.U32(bytes, 32),
            L1Size = check.Count(bytes, L1SizeAt, "l1_size", MaxL1Bytes / 8),
            L1TableOffset = check.Offset(bytes, 40, "l1_table_offset"),
            RefcountTableOffset = forRepair
                ? (long)(BigEndian.U64(bytes, RefcountTableAt) & long.MaxValue)
                : check.Offset(bytes, RefcountTableAt, "refcount_table_offset"),
            RefcountTableClusters = forRepair
                ? (int)Math.Min(BigEndian.U32(bytes, 56), MaxRefcountTableBytes >> (int)clusterBits)
                : check.Count(bytes, 56, "refcount_table_clusters", MaxRefcountTableBytes >> (int)clusterBits),
            SnapshotCount = forRepair
                ? (int)Math.Min(BigEndian.U32(bytes, SnapshotsAt), MaxSnapshots)
                : check.Count(bytes, SnapshotsAt, "nb_snapshots", MaxSnapshots),
            SnapshotsOffset = forRepair ? (long)(BigEndian.U64(bytes, 64) & long.MaxValue) : check.Offset(bytes, 64, "snapshots_offset"),
            Incompatible = v3 ? (Qcow2Incompatible)BigEndian.U64(bytes, IncompatibleAt) : default,
            Compatible = v3 ? (Qcow2Compatible)BigEndian.U64(bytes, 80) : default,
            AutoClear = v3 ? (Qcow2AutoClear)BigEndian.U64(bytes, 88) : default,
            RefcountOrder = v3 ? check.Count(bytes, 96, "refcount_order", 6) : 4,
            HeaderLength = (int)headerLength,
            CompressionType = headerLength > V3Length ? (Qcow2CompressionType)bytes[V3Length] : Qcow2CompressionType.Zlib,
        };
        header.CheckConsistency(check, forRepair);
        return header;
    }

    private void CheckConsistency(FieldCheck check, bool forRepair)
    {
        const string Multiple = "a multiple of the cluster size";
        long cluster = ClusterSize;
        check.That(L1TableOffset % cluster == 0, 40, "l1_table_offset", L1TableOffset, Multiple);
        check.That(forRepair
            || RefcountTableOffset % cluster == 0, RefcountTableAt, "refcount_table_offset", RefcountTableOffset, Multiple);
        check.That(forRepair || SnapshotsOffset % cluster == 0, 64, "snapshots_offset", SnapshotsOffset, Multiple);
        check.That(
            (Incompatible & ~Qcow2Incompatible.Known) != 0 || !Has(Qcow2Incompatible.ExtendedL2) || ClusterBits >= MinExtendedClusterBits,
            20, "cluster_bits", ClusterBits, $"at least {MinExtendedClusterBits} with extended L2 entries");
        int entriesPerTable = ClusterSize / (Has(Qcow2Incompatible.ExtendedL2) ? 16 : 8);
        long needed = Round.Units(Round.Units(Size, cluster), entriesPerTable);
        long reach = MaxL1Bytes / 8 * (long)entriesPerTable * cluster;
        check.That(needed <= MaxL1Bytes / 8, SizeAt, "size", Size, $"at most {reach:#,0} bytes with this cluster size");
        check.That(L1Size >= needed, L1SizeAt, "l1_size", L1Size, $"at least {needed} for a disk of {Size:#,0} bytes");
        if (BackingFileOffset != 0)
        {
            check.That(BackingFileSize <= MaxBackingName, 16, "backing_file_size", BackingFileSize, $"at most {MaxBackingName}");
            check.That(
                BackingFileOffset >= HeaderLength && BackingFileOffset <= cluster - BackingFileSize,
                8, "backing_file_offset", BackingFileOffset, "a place inside the first cluster, after the header");
        }
        if (!forRepair && !Has(Qcow2Incompatible.ExternalDataFile) && (AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None)
        {
            throw check.Wrong(
                AutoClearAt, "autoclear_features", $"{(ulong)AutoClear:x}, which says that the data file is raw,",
                $"without that bit, as the image has no data file. Clear it with {new Remedy(RemedyKind.Repair)}");
        }
        bool typeBit = Has(Qcow2Incompatible.CompressionType);
        check.That(
            CompressionType <= Qcow2CompressionType.Zstd || (Incompatible & ~Qcow2Incompatible.Known) != 0,
            V3Length, "compression_type", (int)CompressionType, "0 (zlib) or 1 (zstd)", DiskImageErrorKind.Unsupported);
        check.That(
            typeBit == (CompressionType != Qcow2CompressionType.Zlib),
            V3Length, "compression_type", (int)CompressionType, typeBit
                ? "not zlib when its feature bit is set"
                : "zlib when its feature bit is not set");
    }

    /// <summary>Extensions, unknown fields and the backing file's name, all inside the first cluster.</summary>
    private Qcow2Header WithVariableParts(byte[] cluster, string path)
    {
        IReadOnlyList<Qcow2Extension> extensions = Qcow2Extension.ParseAll(
            cluster, HeaderLength, BackingFileOffset == 0 ? cluster.Length : (int)BackingFileOffset, path);
        Qcow2Header header = this with
        {
            Extensions = extensions,
            BackingFile = BackingFileOffset == 0 ? null : Encoding.UTF8.GetString(cluster, (int)BackingFileOffset, BackingFileSize),
            UnknownFields = HeaderLength > LengthWithCompressionType ? cluster[LengthWithCompressionType..HeaderLength] : [],
        };
        return string.IsNullOrEmpty(header.BackingFile) ? header with { BackingFile = null } : header;
    }

    /// <summary>Refuses features that are not known, by the names the image gives them.</summary>
    public void RequireKnownFeatures(string path)
    {
        ulong unknown = (ulong)(Incompatible & ~Qcow2Incompatible.Known);
        if (unknown != 0)
        {
            byte[]? names = Extension(Qcow2Extension.FeatureNames);
            IEnumerable<string> list = Enumerable.Range(0, 64).Where(bit => (unknown >> bit & 1) != 0)
                .Select(bit => Qcow2Extension.FeatureName(names, bit) ?? $"unnamed feature (bit {bit})");
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: needs features that this version does not have:"
                    + $" {string.Join(", ", list)} (incompatible_features {(ulong)Incompatible:x})",
                path,
                IncompatibleAt);
        }
    }

    /// <summary>True if header, extensions and backing name fit into the first cluster.</summary>
    public bool Fits => FixedLength + Qcow2Extension.TotalLength(Extensions) + Encoding.UTF8.GetByteCount(BackingFile ?? "") <= ClusterSize;

    private int FixedLength => Version < 3 ? V2Length : LengthWithCompressionType + UnknownFields.Length;

    /// <summary>The whole header as it stands in the first cluster, extensions and backing name included.</summary>
    /// <exception cref="DiskImageException">OutOfRange: it does not fit in one cluster.</exception>
    public byte[] ToCluster(string path)
    {
        byte[] bytes = new byte[ClusterSize];
        bool v3 = Version >= 3;
        int length = FixedLength;
        BigEndian.U32(bytes, 0, Magic);
        BigEndian.U32(bytes, 4, (uint)Version);
        BigEndian.U32(bytes, 20, (uint)ClusterBits);
        BigEndian.U64(bytes, SizeAt, (ulong)Size);
        BigEndian.U32(bytes, 32, CryptMethod);
        BigEndian.U32(bytes, L1SizeAt, (uint)L1Size);
        BigEndian.U64(bytes, 40, (ulong)L1TableOffset);
        BigEndian.U64(bytes, RefcountTableAt, (ulong)RefcountTableOffset);
        BigEndian.U32(bytes, 56, (uint)RefcountTableClusters);
        BigEndian.U32(bytes, SnapshotsAt, (uint)SnapshotCount);
        BigEndian.U64(bytes, 64, (ulong)SnapshotsOffset);
        if (v3)
        {
            BigEndian.U64(bytes, IncompatibleAt, (ulong)Incompatible);
            BigEndian.U64(bytes, 80, (ulong)Compatible);
            BigEndian.U64(bytes, 88, (ulong)AutoClear);
            BigEndian.U32(bytes, 96, (uint)RefcountOrder);
            BigEndian.U32(bytes, 100, (uint)length);
            bytes[V3Length] = (byte)CompressionType;
            UnknownFields.CopyTo(bytes.AsSpan(LengthWithCompressionType));
        }
        byte[] name = BackingFile is null ? [] : Encoding.UTF8.GetBytes(BackingFile);
        if (name.Length > MaxBackingName || !Fits)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{path}: the backing file name of {name.Length} bytes does not fit; at most {MaxBackingName} bytes,"
                    + $" and header and name within one cluster of {bytes.Length}",
                path);
        }
        int at = Qcow2Extension.WriteAll(Extensions, bytes, length);
        if (name.Length > 0)
        {
            BigEndian.U64(bytes, 8, (ulong)at);
            BigEndian.U32(bytes, 16, (uint)name.Length);
            name.CopyTo(bytes, at);
        }
        return bytes;
    }

    private string? TextOf(uint type)
        => Extension(type) is { } data ? Encoding.UTF8.GetString(data) : null;

    /// <summary>Checks fields and says which one is wrong, with its value and what is allowed.</summary>
    private readonly struct FieldCheck(string path)
    {
        public void That(
            bool condition, int at, string field, object value, string allowed, DiskImageErrorKind kind = DiskImageErrorKind.InvalidFormat)
        {
            if (!condition)
            {
                throw Wrong(at, field, value, allowed, kind);
            }
        }

        public DiskImageException Wrong(
            int at, string field, object value, Wording allowed, DiskImageErrorKind kind = DiskImageErrorKind.InvalidFormat)
            => new(kind, $"{path}: qcow2 header field {field} is {value}; allowed: {allowed}", path, at);

        public long Offset(ReadOnlySpan<byte> bytes, int at, string field)
        {
            ulong value = BigEndian.U64(bytes, at);
            That(value <= long.MaxValue, at, field, value, $"at most {long.MaxValue}");
            return (long)value;
        }

        public int Count(ReadOnlySpan<byte> bytes, int at, string field, int maximum)
        {
            uint value = BigEndian.U32(bytes, at);
            That(value <= maximum, at, field, value, $"at most {maximum}");
            return (int)value;
        }
    }
}
