using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow;

/// <summary>The header at the beginning of the file. Layout: see SPEC.md. All numbers are big-endian.</summary>
internal sealed record QcowHeader
{
    /// <summary>Bytes of the fields.</summary>
    public const int Length = 48;

    /// <summary>Bytes of a backing file's name at most: QEMU's limit.</summary>
    public const int MaxBackingName = 1023;

    /// <summary>Bytes of a table's entry, and of a sector, of which the virtual size is a multiple.</summary>
    public const int EntryBytes = 8, SectorSize = 512;

    private const uint Magic = 0x5146_49FB;
    private const int MinClusterBits = 9, MaxClusterBits = 16, MinL2Bits = 6, MaxL2Bits = 13; // QEMU's limits
    private const int MaxL1Entries = 16 << 20; // 128 MiB. Ours
    private const int VersionAt = 4, NameAt = 8, NameLengthAt = 16, TimeAt = 20, SizeAt = 24, ClusterBitsAt = 32, L2BitsAt = 33;
    private const int CryptAt = 36, L1At = 40;

    /// <summary>Bits of an offset inside a cluster.</summary>
    public required int ClusterBits { get; init; }

    /// <summary>Bits of an index into an L2 table.</summary>
    public required int L2Bits { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public required long Size { get; init; }

    /// <summary>Where the L1 table begins.</summary>
    public required long L1Offset { get; init; }

    /// <summary>What the backing file's time was; nobody looks at it.</summary>
    public uint Time { get; init; }

    /// <summary>0 for none, 1 for AES.</summary>
    public uint CryptMethod { get; init; }

    /// <summary>Where the backing file's name stands.</summary>
    public long NameOffset { get; init; }

    /// <summary>The backing file's name; null for none.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Bytes of a cluster.</summary>
    public int ClusterSize => 1 << ClusterBits;

    /// <summary>Entries of an L2 table.</summary>
    public int L2Entries => 1 << L2Bits;

    /// <summary>Bytes of an L2 table.</summary>
    public int L2Bytes => L2Entries * EntryBytes;

    /// <summary>Bytes of the disk that an L2 table maps.</summary>
    public long Span => 1L << (ClusterBits + L2Bits);

    /// <summary>Entries of the L1 table.</summary>
    public int L1Entries => (int)Round.Units(Size, Span);

    /// <summary>The largest virtual size for which the L1 table is not too long.</summary>
    public long MaxSize => Span * MaxL1Entries;

    /// <summary>True if a file's first bytes are those of a qcow image of version 1.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file)
        => file.Length >= 8 && BigEndian.U32(file, 0) == Magic && BigEndian.U32(file, VersionAt) == 1;

    /// <summary>The header of a new image, as QEMU makes it: small clusters over a backing image, so that less of it is copied.</summary>
    public static QcowHeader New(long size, string? backingFile, string path)
    {
        int name = backingFile is null ? 0 : NameBytes(backingFile, path).Length;
        return new()
        {
            ClusterBits = backingFile is null ? 12 : 9,
            L2Bits = backingFile is null ? 9 : 12,
            Size = size,
            NameOffset = backingFile is null ? 0 : Length,
            BackingFile = backingFile,
            L1Offset = Round.Up(Length + name, EntryBytes),
        };
    }

    /// <summary>A backing file's name as it stands in an image.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is too long.</exception>
    public static byte[] NameBytes(string name, string path)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        return bytes.Length <= MaxBackingName
            ? bytes
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: the backing file's name has {bytes.Length:#,0} bytes; allowed: up to {MaxBackingName:#,0}",
                path);
    }

    /// <summary>Reads the header and checks every field by itself and against the others and the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<QcowHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: not a qcow image of version 1: the magic at offset 0 is missing",
                file.Name,
                0);
        }
        int clusterBits = bytes[ClusterBitsAt], l2Bits = bytes[L2BitsAt];
        if (clusterBits is < MinClusterBits or > MaxClusterBits)
        {
            throw Corrupt(ClusterBitsAt, $"clusters of 2^{clusterBits} bytes; allowed: 2^{MinClusterBits} to 2^{MaxClusterBits}");
        }
        if (l2Bits is < MinL2Bits or > MaxL2Bits)
        {
            throw Corrupt(L2BitsAt, $"L2 tables of 2^{l2Bits} entries; allowed: 2^{MinL2Bits} to 2^{MaxL2Bits}");
        }
        ulong size = BigEndian.U64(bytes, SizeAt), l1 = BigEndian.U64(bytes, L1At);
        var header = new QcowHeader
        {
            ClusterBits = clusterBits,
            L2Bits = l2Bits,
            Size = (long)Math.Min(size, long.MaxValue),
            L1Offset = (long)Math.Min(l1, long.MaxValue),
            Time = BigEndian.U32(bytes, TimeAt),
            CryptMethod = BigEndian.U32(bytes, CryptAt),
        };
        if (size > (ulong)header.MaxSize)
        {
            throw Corrupt(SizeAt, $"a virtual size of {size:#,0} bytes; allowed: up to {header.MaxSize:#,0} with tables of this kind");
        }
        header = header with { Size = Round.Down(header.Size, SectorSize) };
        if (header.L1Offset < Length || header.L1Offset % EntryBytes != 0
            || header.L1Offset > file.Length - ((long)header.L1Entries * EntryBytes))
        {
            throw Corrupt(
                L1At,
                $"an L1 table of {header.L1Entries:#,0} entries at offset {l1:#,0}; allowed: a multiple of {EntryBytes} behind the "
                    + $"header, in the file of {file.Length:#,0} bytes");
        }
        ulong nameOffset = BigEndian.U64(bytes, NameAt);
        uint nameLength = BigEndian.U32(bytes, NameLengthAt);
        if (nameOffset == 0 || nameLength == 0)
        {
            return header;
        }
        if (nameLength > MaxBackingName || nameOffset < Length || nameOffset > (ulong)file.Length
            || nameLength > (ulong)file.Length - nameOffset)
        {
            throw Corrupt(
                NameAt,
                $"a backing file's name of {nameLength:#,0} bytes at offset {nameOffset:#,0}; allowed: up to {MaxBackingName:#,0} "
                    + $"bytes, behind the header and in the file");
        }
        byte[] name = new byte[nameLength];
        await file.ReadAsync((long)nameOffset, name, cancellationToken).ConfigureAwait(false);
        return header with { NameOffset = (long)nameOffset, BackingFile = Encoding.UTF8.GetString(name) };

        DiskImageException Corrupt(
            long offset,
            string what) => new(DiskImageErrorKind.Corrupt, $"{file.Name}: the header at offset {offset} says {what}", file.Name, offset);
    }

    /// <summary>The header as it stands in the file: less than a sector, so that writing it is one step.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Length];
        BigEndian.U32(bytes, 0, Magic);
        BigEndian.U32(bytes, VersionAt, 1);
        BigEndian.U64(bytes, NameAt, (ulong)NameOffset);
        BigEndian.U32(bytes, NameLengthAt, BackingFile is null ? 0 : (uint)Encoding.UTF8.GetByteCount(BackingFile));
        BigEndian.U32(bytes, TimeAt, Time);
        BigEndian.U64(bytes, SizeAt, (ulong)Size);
        bytes[ClusterBitsAt] = (byte)ClusterBits;
        bytes[L2BitsAt] = (byte)L2Bits;
        BigEndian.U32(bytes, CryptAt, CryptMethod);
        BigEndian.U64(bytes, L1At, (ulong)L1Offset);
        return bytes;
    }
}

/// <summary>An entry of an L2 table. Layout: see SPEC.md.</summary>
/// <param name="Raw">As it stands in the table.</param>
internal readonly record struct QcowEntry(ulong Raw)
{
    private const ulong CompressedFlag = 1UL << 63;

    /// <summary>True for a cluster that is not in the file.</summary>
    public bool IsNowhere => Raw == 0;

    /// <summary>True for a cluster that is stored compressed.</summary>
    public bool IsCompressed => (Raw & CompressedFlag) != 0;

    /// <summary>True for a cluster that is stored as it is.</summary>
    public bool IsPlain => Raw != 0 && !IsCompressed;

    /// <summary>An entry of a compressed cluster.</summary>
    public static QcowEntry Compressed(long host, int length, int clusterBits)
        => new(CompressedFlag | ((ulong)length << (63 - clusterBits)) | (ulong)host);

    /// <summary>Where the cluster is stored, and how many bytes that takes.</summary>
    public (long Host, int Length) Range(int clusterBits) => IsCompressed
        ? ((long)(Raw & ((1UL << (63 - clusterBits)) - 1)), (int)((Raw >> (63 - clusterBits)) & ((1UL << clusterBits) - 1)))
        : ((long)Raw, 1 << clusterBits);
}
