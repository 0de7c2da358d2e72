using System.Numerics;
using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qed;

/// <summary>Features without which the image cannot be understood. Spec: QED, "Feature bits".</summary>
[Flags]
internal enum QedFeatures : ulong
{
    None = 0,

    /// <summary>There is a backing file.</summary>
    BackingFile = 1,

    /// <summary>The tables have to be checked before the image is used: it was not closed.</summary>
    NeedCheck = 2,

    /// <summary>The backing file is raw, whatever it looks like.</summary>
    BackingFormatNoProbe = 4,
}

/// <summary>The header at the beginning of the file. Spec: QED, "Header". All numbers are little-endian.</summary>
internal sealed record QedHeader
{
    /// <summary>Bytes of the fields.</summary>
    public const int Length = 64;

    /// <summary>Bytes of an entry of a table.</summary>
    public const int EntryBytes = 8;

    /// <summary>Bytes of a backing file's name at most: QEMU's limit.</summary>
    public const int MaxBackingName = 1023;

    /// <summary>Spec: bounds of a cluster and of a table.</summary>
    public const int MinClusterSize = 4096, MaxClusterSize = 64 << 20, MaxTableSize = 16;

    /// <summary>The virtual size is a multiple of it.</summary>
    public const int SectorSize = 512;

    private const uint Magic = 0x0044_4551; // "QED\0"
    private const QedFeatures Known = QedFeatures.BackingFile | QedFeatures.NeedCheck | QedFeatures.BackingFormatNoProbe;
    private const int ClusterSizeAt = 4, TableSizeAt = 8, HeaderSizeAt = 12, FeaturesAt = 16, CompatibleAt = 24, AutoClearAt = 32;
    private const int L1At = 40, SizeAt = 48, NameAt = 56, NameLengthAt = 60;

    /// <summary>Bytes of a cluster.</summary>
    public required int ClusterSize { get; init; }

    /// <summary>Clusters of a table.</summary>
    public required int TableSize { get; init; }

    /// <summary>Clusters of the header.</summary>
    public int HeaderSize { get; init; } = 1;

    /// <summary>What the image needs.</summary>
    public QedFeatures Features { get; init; }

    /// <summary>Features that need not be understood.</summary>
    public ulong Compatible { get; init; }

    /// <summary>Features that whoever does not know them clears before writing.</summary>
    public ulong AutoClear { get; init; }

    /// <summary>Where the L1 table begins.</summary>
    public required long L1Offset { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public required long ImageSize { get; init; }

    /// <summary>Where the backing file's name stands.</summary>
    public int NameOffset { get; init; }

    /// <summary>The backing file's name; null for none.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Where the header ends and clusters begin.</summary>
    public long HeaderEnd => (long)HeaderSize * ClusterSize;

    /// <summary>Bytes of a table.</summary>
    public long TableBytes => (long)TableSize * ClusterSize;

    /// <summary>Entries of a table.</summary>
    public int TableEntries => (int)(TableBytes / EntryBytes);

    /// <summary>Bytes of the disk that an L2 table maps.</summary>
    public long Span => (long)TableEntries * ClusterSize;

    /// <summary>The largest virtual size that the tables reach.</summary>
    public long MaxImageSize => (long)UInt128.Min((UInt128)TableEntries * (ulong)Span, (ulong)Round.Down(long.MaxValue, SectorSize));

    /// <summary>True if the tables reach so far that QEMU's sum of it, of 64 bits, is zero.</summary>
    public bool OverflowsInQemu => (UInt128)TableEntries * (ulong)Span > ulong.MaxValue;

    /// <summary>True if it was not closed properly.</summary>
    public bool NeedsCheck => (Features & QedFeatures.NeedCheck) != QedFeatures.None;

    /// <summary>The backing file's format: raw or not known.</summary>
    public string? BackingFormat
        => BackingFile is not null && (Features & QedFeatures.BackingFormatNoProbe) != QedFeatures.None ? "raw" : null;

    /// <summary>True if a file's first bytes are a QED image's.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file) => file.Length >= 4 && LittleEndian.U32(file, 0) == Magic;

    /// <summary>Reads the header and checks every field by itself and against the others and the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<QedHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{file.Name}: not a QED image: the magic at offset 0 is missing", file.Name, 0);
        }
        uint cluster = LittleEndian.U32(bytes, ClusterSizeAt), table = LittleEndian.U32(bytes, TableSizeAt);
        uint headerSize = LittleEndian.U32(bytes, HeaderSizeAt);
        var features = (QedFeatures)LittleEndian.U64(bytes, FeaturesAt);
        if ((features & ~Known) != QedFeatures.None)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: needs the features 0x{(ulong)(features & ~Known):X} (header, offset {FeaturesAt}), which are not "
                    + $"known here; known: 0x{(ulong)Known:X}",
                file.Name,
                FeaturesAt);
        }
        if (cluster is < MinClusterSize or > MaxClusterSize || !BitOperations.IsPow2(cluster))
        {
            throw Corrupt(
                ClusterSizeAt,
                $"clusters of {cluster:#,0} bytes; allowed: a power of two from {MinClusterSize:#,0} to {MaxClusterSize:#,0}");
        }
        if (table is 0 or > MaxTableSize || !BitOperations.IsPow2(table))
        {
            throw Corrupt(TableSizeAt, $"tables of {table:#,0} clusters; allowed: a power of two from 1 to {MaxTableSize}");
        }
        if (headerSize == 0 || (long)headerSize * cluster > file.Length)
        {
            throw Corrupt(
                HeaderSizeAt,
                $"a header of {headerSize:#,0} clusters of {cluster:#,0} bytes; allowed: at least one, "
                    + $"in the file of {file.Length:#,0} bytes");
        }
        ulong l1 = LittleEndian.U64(bytes, L1At), size = LittleEndian.U64(bytes, SizeAt);
        var header = new QedHeader
        {
            ClusterSize = (int)cluster,
            TableSize = (int)table,
            HeaderSize = (int)headerSize,
            Features = features,
            Compatible = LittleEndian.U64(bytes, CompatibleAt),
            AutoClear = LittleEndian.U64(bytes, AutoClearAt),
            L1Offset = (long)Math.Min(l1, long.MaxValue),
            ImageSize = (long)Math.Min(size, long.MaxValue),
        };
        if (l1 % cluster != 0 || header.L1Offset < header.HeaderEnd || header.L1Offset > file.Length - header.TableBytes)
        {
            throw Corrupt(
                L1At,
                $"an L1 table at offset {l1:#,0}; allowed: a multiple of {cluster:#,0}, behind the header, with its "
                    + $"{header.TableBytes:#,0} bytes in the file of {file.Length:#,0}");
        }
        if (size % SectorSize != 0 || size > (ulong)header.MaxImageSize)
        {
            throw Corrupt(
                SizeAt,
                $"a virtual size of {size:#,0} bytes; allowed: a multiple of {SectorSize}, up to "
                    + $"{header.MaxImageSize:#,0} with these tables");
        }
        return (features & QedFeatures.BackingFile) == QedFeatures.None
            ? header
            : await WithNameAsync(file, header, bytes, cancellationToken).ConfigureAwait(false);

        DiskImageException Corrupt(
            long offset,
            string what) => new(DiskImageErrorKind.Corrupt,
            $"{file.Name}: the header at offset {offset:#,0} says {what}",
            file.Name,
            offset);
    }

    /// <summary>The header as it stands in the file: less than a sector, so that writing it is one step.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Length];
        LittleEndian.U32(bytes, 0, Magic);
        LittleEndian.U32(bytes, ClusterSizeAt, (uint)ClusterSize);
        LittleEndian.U32(bytes, TableSizeAt, (uint)TableSize);
        LittleEndian.U32(bytes, HeaderSizeAt, (uint)HeaderSize);
        LittleEndian.U64(bytes, FeaturesAt, (ulong)Features);
        LittleEndian.U64(bytes, CompatibleAt, Compatible);
        LittleEndian.U64(bytes, AutoClearAt, AutoClear);
        LittleEndian.U64(bytes, L1At, (ulong)L1Offset);
        LittleEndian.U64(bytes, SizeAt, (ulong)ImageSize);
        LittleEndian.U32(bytes, NameAt, (uint)NameOffset);
        LittleEndian.U32(bytes, NameLengthAt, BackingFile is null ? 0 : (uint)Encoding.UTF8.GetByteCount(BackingFile));
        return bytes;
    }

    /// <summary>
    /// This header with another backing file, or none, and the name's bytes, which stand where the former name does not: so they can be
    /// written first.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: the name is too long.</exception>
    public (QedHeader Header, byte[] Name) WithBacking(string path, string? name, string? format)
    {
        const int First = Length, Second = 2048; // both with room for the longest name in the smallest cluster
        if (string.IsNullOrEmpty(name))
        {
            QedFeatures features = Features & ~(QedFeatures.BackingFile | QedFeatures.BackingFormatNoProbe);
            return (this with { Features = features, NameOffset = 0, BackingFile = null }, []);
        }
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        if (bytes.Length > MaxBackingName)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: the backing file's name has {bytes.Length:#,0} bytes; allowed: up to {MaxBackingName:#,0}",
                path);
        }
        int old = BackingFile is null ? 0 : Encoding.UTF8.GetByteCount(BackingFile);
        bool isFree = old == 0 || NameOffset >= First + bytes.Length || NameOffset + old <= First;
        QedFeatures raw = "raw".Equals(format, StringComparison.OrdinalIgnoreCase) ? QedFeatures.BackingFormatNoProbe : QedFeatures.None;
        return (this with
        {
            Features = (Features & ~QedFeatures.BackingFormatNoProbe) | QedFeatures.BackingFile | raw,
            NameOffset = isFree ? First : Second,
            BackingFile = name,
        }, bytes);
    }

    private static async ValueTask<QedHeader> WithNameAsync(
        BlockNode file, QedHeader header, byte[] bytes, CancellationToken cancellationToken)
    {
        uint offset = LittleEndian.U32(bytes, NameAt), length = LittleEndian.U32(bytes, NameLengthAt);
        if (length is 0 or > MaxBackingName || offset < Length || (long)offset + length > header.HeaderEnd)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: the header at offset {NameAt} says that the backing file's name has "
                    + $"{length:#,0} bytes at offset {offset:#,0};"
                    + $" allowed: 1 to {MaxBackingName:#,0} bytes, behind the fields and inside the header's {header.HeaderEnd:#,0} bytes",
                file.Name,
                NameAt);
        }
        byte[] name = new byte[length];
        await file.ReadAsync(offset, name, cancellationToken).ConfigureAwait(false);
        return header with { NameOffset = (int)offset, BackingFile = Encoding.UTF8.GetString(name) };
    }
}
