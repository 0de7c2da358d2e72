using System.Numerics;
using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Bochs;

/// <summary>What a redolog is for.</summary>
internal enum BochsSubtype
{
    /// <summary>A disk of its own.</summary>
    Growing,

    /// <summary>Changes to a base image that are kept.</summary>
    Undoable,

    /// <summary>Changes to a base image that go when the machine stops.</summary>
    Volatile,
}

/// <summary>The header, the first 512 bytes of the file. Layout: see SPEC.md. All numbers are little-endian.</summary>
internal sealed record BochsHeader
{
    /// <summary>Bytes of a header, and of a sector.</summary>
    public const int Length = 512, SectorSize = 512;

    /// <summary>Entries of a catalog and bytes of an extent at most: QEMU's limits, beyond what Bochs makes.</summary>
    public const int MaxCatalog = 1 << 20, MaxExtent = 8 << 20;

    private const uint Version1 = 0x0001_0000, Version2 = 0x0002_0000;
    private const int TypeAt = 32, SubtypeAt = 48, TextBytes = 16, VersionAt = 64, HeaderAt = 68, CatalogAt = 72, BitmapAt = 76;
    private const int ExtentAt = 80, DiskV1At = 84, TimeAt = 84, DiskV2At = 88;

    /// <summary>What it is for.</summary>
    public required BochsSubtype Subtype { get; init; }

    /// <summary>1 or 2.</summary>
    public int Version { get; init; } = 2;

    /// <summary>Where the catalog begins.</summary>
    public int CatalogOffset { get; init; } = Length;

    /// <summary>Entries of the catalog.</summary>
    public required int Catalog { get; init; }

    /// <summary>Bytes of a bitmap that mean something.</summary>
    public required int Bitmap { get; init; }

    /// <summary>Bytes of an extent.</summary>
    public required int Extent { get; init; }

    /// <summary>The base image's time as FAT spells it; 0 for none.</summary>
    public uint Time { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public required long DiskSize { get; init; }

    /// <summary>Where extent 0 of the file begins.</summary>
    public long DataOffset => CatalogOffset + ((long)Catalog * sizeof(uint));

    /// <summary>Bytes in front of an extent's sectors.</summary>
    public int BitmapBytes => (int)Round.Up(Bitmap, SectorSize);

    /// <summary>Bytes that an extent takes in the file.</summary>
    public int BlockBytes => BitmapBytes + Extent;

    /// <summary>Sectors of an extent.</summary>
    public int Sectors => Extent / SectorSize;

    private static ReadOnlySpan<byte> Magic => "Bochs Virtual HD Image\0"u8;

    /// <summary>True if a file's first bytes are those of a redolog of Bochs.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file)
        => file.Length >= SubtypeAt && file.StartsWith(Magic) && TextAt(file, TypeAt).Equals("Redolog", StringComparison.Ordinal);

    /// <summary>The header of a new disk: extents and catalog grow in turns until the disk fits, as bximage does it.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the disk is too large.</exception>
    public static BochsHeader Plan(long size, string name)
    {
        int entries = 512, bitmap = 1;
        for (bool turn = false; (long)entries * bitmap * 8 * SectorSize < size; turn = !turn)
        {
            (entries, bitmap) = turn ? (entries * 2, bitmap) : (entries, bitmap * 2);
            if (entries > MaxCatalog || bitmap * 8L * SectorSize > MaxExtent)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{name}: a disk of Bochs cannot have {size:#,0} bytes; allowed: up to "
                        + $"{(long)MaxCatalog / 2 * MaxExtent:#,0}, as far as QEMU reads it",
                    name);
            }
        }
        return new()
        {
            Subtype = BochsSubtype.Growing,
            Catalog = entries,
            Bitmap = bitmap,
            Extent = bitmap * 8 * SectorSize,
            DiskSize = Round.Up(size, SectorSize),
        };
    }

    /// <summary>Reads the header and checks every field by itself and against the others and the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<BochsHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{file.Name}: not a redolog of Bochs: the magic at offset 0 is missing", file.Name, 0);
        }
        uint version = LittleEndian.U32(bytes, VersionAt), headerBytes = LittleEndian.U32(bytes, HeaderAt);
        string subtype = TextAt(bytes, SubtypeAt);
        if (version is not (Version1 or Version2))
        {
            throw Failed(
                DiskImageErrorKind.Unsupported, VersionAt, $"the version {version >> 16}.{version & 0xFFFF}; supported: 1.0 and 2.0");
        }
        if (!Enum.TryParse(subtype, out BochsSubtype known) || !known.ToString().Equals(subtype, StringComparison.Ordinal))
        {
            throw Failed(
                DiskImageErrorKind.Unsupported,
                SubtypeAt,
                $"the subtype '{subtype}'; supported: {string.Join(", ", Enum.GetNames<BochsSubtype>())}");
        }
        uint catalog = LittleEndian.U32(bytes, CatalogAt), bitmap = LittleEndian.U32(bytes, BitmapAt);
        uint extent = LittleEndian.U32(bytes, ExtentAt);
        ulong size = LittleEndian.U64(bytes, version == Version1 ? DiskV1At : DiskV2At);
        if (extent is < SectorSize or > MaxExtent || !BitOperations.IsPow2(extent))
        {
            throw Failed(
                DiskImageErrorKind.Corrupt,
                ExtentAt,
                $"extents of {extent:#,0} bytes; allowed: a power of two from {SectorSize} to {MaxExtent:#,0}");
        }
        if (bitmap > MaxExtent || bitmap * 8L < extent / SectorSize)
        {
            throw Failed(
                DiskImageErrorKind.Corrupt,
                BitmapAt,
                $"bitmaps of {bitmap:#,0} bytes; allowed: a bit for each sector of an extent of "
                    + $"{extent:#,0} bytes, up to {MaxExtent:#,0} bytes");
        }
        if (catalog > MaxCatalog || size / SectorSize > (ulong)catalog * (extent / SectorSize))
        {
            throw Failed(
                DiskImageErrorKind.Corrupt,
                CatalogAt,
                $"a catalog of {catalog:#,0} extents of {extent:#,0} bytes for a disk of {size:#,0} bytes; allowed: as many "
                    + $"as hold it, at most {MaxCatalog:#,0}");
        }
        if (headerBytes is < Length or > MaxExtent || headerBytes + ((long)catalog * sizeof(uint)) > file.Length)
        {
            throw Failed(
                DiskImageErrorKind.Corrupt,
                HeaderAt,
                $"a catalog of {catalog:#,0} entries at offset {headerBytes:#,0}; allowed: behind the header, "
                    + $"in the file of {file.Length:#,0} bytes");
        }
        return new()
        {
            Subtype = known,
            Version = version == Version1 ? 1 : 2,
            CatalogOffset = (int)headerBytes,
            Catalog = (int)catalog,
            Bitmap = (int)bitmap,
            Extent = (int)extent,
            Time = version == Version1 ? 0 : LittleEndian.U32(bytes, TimeAt),
            DiskSize = Round.Down((long)size, SectorSize),
        };

        DiskImageException Failed(DiskImageErrorKind kind, long offset, string what)
            => new(kind, $"{file.Name}: the header at offset {offset} says {what}", file.Name, offset);
    }

    /// <summary>The header as it stands in the file.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Length];
        Magic.CopyTo(bytes);
        "Redolog"u8.CopyTo(bytes.AsSpan(TypeAt));
        Encoding.ASCII.GetBytes(Subtype.ToString()).CopyTo(bytes, SubtypeAt);
        LittleEndian.U32(bytes, VersionAt, Version == 1 ? Version1 : Version2);
        LittleEndian.U32(bytes, HeaderAt, Length);
        LittleEndian.U32(bytes, CatalogAt, (uint)Catalog);
        LittleEndian.U32(bytes, BitmapAt, (uint)Bitmap);
        LittleEndian.U32(bytes, ExtentAt, (uint)Extent);
        LittleEndian.U64(bytes, Version == 1 ? DiskV1At : DiskV2At, (ulong)DiskSize);
        return bytes;
    }

    private static string TextAt(ReadOnlySpan<byte> bytes, int at) => Encoding.Latin1.GetString(bytes.Slice(at, TextBytes)).Split('\0')[0];
}
