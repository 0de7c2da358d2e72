using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>Flags of a hosted sparse extent. Spec: Virtual Disk Format 5.0, "Hosted Sparse Extent Header".</summary>
[Flags]
internal enum VmdkFlags : uint
{
    None = 0,
    NewLineTest = 1 << 0,
    Redundant = 1 << 1,
    ZeroedGrains = 1 << 2,
    Compressed = 1 << 16,
    Markers = 1 << 17,
}

/// <summary>
/// The header of a hosted sparse extent, in sectors as it stands there. Spec: Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
/// </summary>
internal sealed record VmdkHeader
{
    public const int SectorSize = 512;

    /// <summary>"KDMV".</summary>
    public const uint Magic = 0x564D_444B;

    /// <summary>Sectors of a disk at most: its bytes fit a signed number of 64 bits many times over. Ours.</summary>
    public const long MaxSectors = 1L << 46;

    /// <summary>Entries of a grain table. Spec: 512.</summary>
    public const int DefaultTableEntries = 512;

    /// <summary>Sectors of a grain that VMware's and QEMU's images have.</summary>
    public const int DefaultGrainSectors = 128;

    /// <summary>The grain directory's sector in the header of a stream: it is in the footer.</summary>
    public const ulong AtEnd = ulong.MaxValue;

    private const int MaxGrainSectors = (64 << 20) / SectorSize, MaxCompressedGrainSectors = (16 << 20) / SectorSize; // ours
    private const int MaxTableEntries = 4096, MaxDirectoryEntries = 4 << 20; // ours: 16 MiB of memory
    private const uint LatestVersion = 3;
    private const ushort Deflate = 1;

    public required uint Version { get; init; }

    public required VmdkFlags Flags { get; init; }

    /// <summary>Sectors of the disk.</summary>
    public required long Capacity { get; init; }

    public required long GrainSectors { get; init; }

    public long DescriptorSector { get; init; }

    public long DescriptorSectors { get; init; }

    public required int TableEntries { get; init; }

    public ulong RedundantSector { get; init; }

    public required ulong DirectorySector { get; init; }

    /// <summary>Sectors before the first grain.</summary>
    public required long Overhead { get; init; }

    /// <summary>Somebody has it open for writing, or did not close it.</summary>
    public bool IsUnclean { get; init; }

    public ushort Compression { get; init; }

    /// <summary>Bytes of the header in the file.</summary>
    public int Bytes { get; init; } = SectorSize;

    /// <summary>Of an extent of ESX: the sector that the next grain or table may have; 0 for others.</summary>
    public long FreeSector { get; init; }

    /// <summary>False for an extent of ESX that is part of a child, whatever describes it: what it does not hold is not zero.</summary>
    public bool IsRoot { get; init; } = true;

    public bool IsCompressed => (Flags & VmdkFlags.Compressed) != 0;

    public bool HasMarkers => (Flags & VmdkFlags.Markers) != 0;

    public bool HasRedundant => (Flags & VmdkFlags.Redundant) != 0;

    public bool HasZeroedGrains => (Flags & VmdkFlags.ZeroedGrains) != 0;

    public bool IsStream => DirectorySector == AtEnd;

    public int GrainBytes => (int)GrainSectors * SectorSize;

    public long Length => Capacity * SectorSize;

    /// <summary>Bytes of the disk that a grain table covers.</summary>
    public long Span => (long)GrainBytes * TableEntries;

    /// <summary>Entries of the grain directory.</summary>
    public int DirectoryEntries => (int)UnitsOf(Capacity, GrainSectors * TableEntries);

    /// <summary>True if a file begins with such a header.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> bytes) => bytes.Length >= sizeof(uint) && LittleEndian.U32(bytes, 0) == Magic;

    /// <summary>Whole units that cover a count.</summary>
    public static long UnitsOf(long count, long unit) => (count / unit) + (count % unit == 0 ? 0 : 1);

    /// <summary>Reads the header, or in a stream the footer that takes its place.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Unsupported, Corrupt.</exception>
    public static VmdkHeader Parse(ReadOnlySpan<byte> bytes, string imageName, long at)
    {
        if (bytes.Length < SectorSize || !IsSigned(bytes))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidFormat,
                $"{imageName}: no VMDK sparse header at offset {at:#,0}: it does not begin with 'KDMV'", imageName, at);
        }
        uint version = LittleEndian.U32(bytes, 4);
        if (version is 0 or > LatestVersion)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{imageName}: its sparse extent has version {version}; known: 1 to"
                    + $" {LatestVersion}", imageName, at + 4);
        }
        var header = new VmdkHeader
        {
            Version = version,
            Flags = (VmdkFlags)LittleEndian.U32(bytes, 8),
            Capacity = Field(bytes, 12, "the capacity", MaxSectors, imageName, at),
            GrainSectors = Field(bytes, 20, "the grain size", MaxGrainSectors, imageName, at),
            DescriptorSector = Field(bytes, 28, "the descriptor's sector", MaxSectors, imageName, at),
            DescriptorSectors = Field(bytes, 36, "the descriptor's length", MaxSectors, imageName, at),
            TableEntries = (int)Math.Min(LittleEndian.U32(bytes, 44), int.MaxValue),
            RedundantSector = LittleEndian.U64(bytes, 48),
            DirectorySector = LittleEndian.U64(bytes, 56),
            Overhead = Field(bytes, 64, "the overhead", MaxSectors, imageName, at),
            IsUnclean = bytes[72] != 0,
            Compression = LittleEndian.U16(bytes, 77),
        };
        header.Require(bytes, imageName, at);
        return header;
    }

    /// <summary>The header as it stands in a file.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[SectorSize];
        LittleEndian.U32(bytes, 0, Magic);
        LittleEndian.U32(bytes, 4, Version);
        LittleEndian.U32(bytes, 8, (uint)Flags);
        LittleEndian.U64(bytes, 12, (ulong)Capacity);
        LittleEndian.U64(bytes, 20, (ulong)GrainSectors);
        LittleEndian.U64(bytes, 28, (ulong)DescriptorSector);
        LittleEndian.U64(bytes, 36, (ulong)DescriptorSectors);
        LittleEndian.U32(bytes, 44, (uint)TableEntries);
        LittleEndian.U64(bytes, 48, RedundantSector);
        LittleEndian.U64(bytes, 56, DirectorySector);
        LittleEndian.U64(bytes, 64, (ulong)Overhead);
        bytes[72] = (byte)(IsUnclean ? 1 : 0);
        "\n \r\n"u8.CopyTo(bytes.AsSpan(73));
        LittleEndian.U16(bytes, 77, Compression);
        return bytes;
    }

    private static long Field(ReadOnlySpan<byte> bytes, int offset, string what, long most, string imageName, long at)
        => LittleEndian.U64(bytes, offset) is var value && value <= (ulong)most ? (long)value
            : throw Corrupt(imageName, at + offset, what, value, $"up to {most:#,0} sectors");

    private static DiskImageException Corrupt(string imageName, long at, string what, object value, string allowed)
        => new(DiskImageErrorKind.Corrupt, $"{imageName}: {what} is {value:#,0}; allowed: {allowed}", imageName, at);

    private void Require(ReadOnlySpan<byte> bytes, string imageName, long at)
    {
        long most = IsCompressed ? MaxCompressedGrainSectors : MaxGrainSectors;
        if (GrainSectors < 1 || GrainSectors > most || !long.IsPow2(GrainSectors))
        {
            throw Corrupt(imageName, at + 20, "the grain size", GrainSectors, $"a power of two of sectors, up to {most:#,0}");
        }
        if (TableEntries < 1 || TableEntries > MaxTableEntries || !int.IsPow2(TableEntries))
        {
            throw Corrupt(imageName, at + 44, "the number of entries of a grain table", TableEntries,
                $"a power of two, up to {MaxTableEntries:#,0}");
        }
        if (UnitsOf(Capacity, GrainSectors * TableEntries) is var entries && entries > MaxDirectoryEntries)
        {
            throw Corrupt(imageName, at + 12, "the number of grain tables for the capacity", entries, $"up to {MaxDirectoryEntries:#,0}");
        }
        if ((Flags & VmdkFlags.NewLineTest) != 0 && !bytes.Slice(73, 4).SequenceEqual("\n \r\n"u8))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{imageName}: its line ends were changed, as by a transfer of text: the four bytes at offset {at + 73} of a"
                    + " VMDK are 0A 20 0D 0A. Transfer it again as binary.",
                imageName,
                at + 73);
        }
        if (IsCompressed && Compression != Deflate)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{imageName}: its grains are compressed by method {Compression}; known:"
                    + $" {Deflate} (deflate)", imageName, at + 77);
        }
    }
}
