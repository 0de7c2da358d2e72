using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>The hard disk footer. Spec: "Hard Disk Footer Format". All fields are big-endian; what is not known is kept.</summary>
internal sealed record VpcFooter
{
    /// <summary>Bytes of a footer.</summary>
    public const int Length = 512;

    /// <summary>Bytes of the footer that versions before Virtual PC 2004 wrote: the last one is missing. Spec: the same section.</summary>
    public const int ShortLength = 511;

    /// <summary>The data offset of a disk without a dynamic header.</summary>
    public const ulong NoDataOffset = ulong.MaxValue;

    /// <summary>The only version: 1.0.</summary>
    public const uint Version1 = 0x0001_0000;

    private const int ChecksumAt = 64;

    private static readonly byte[] Cookie = "conectix"u8.ToArray();
    private static readonly DateTimeOffset Epoch = new(2000, 1, 1, 0, 0, 0, TimeSpan.Zero);

    /// <summary>1: temporary; 2: reserved, always set.</summary>
    public uint Features { get; init; } = 2;

    public uint FormatVersion { get; init; } = Version1;

    /// <summary>Where the dynamic header is; <see cref="NoDataOffset"/> for a fixed disk.</summary>
    public ulong DataOffset { get; init; } = NoDataOffset;

    /// <summary>When the disk was made, in seconds since 2000-01-01 UTC.</summary>
    public uint TimeStamp { get; init; }

    /// <summary>Four characters that tell the program that made the disk.</summary>
    public string CreatorApplication { get; init; } = VpcSize.QemuGeometry;

    /// <summary>Major version in the high half, minor in the low half.</summary>
    public uint CreatorVersion { get; init; } = 0x0005_0003; // Virtual PC 2007, as QEMU writes

    /// <summary>"Wi2k" or "Mac ".</summary>
    public string CreatorHostOs { get; init; } = "Wi2k";

    public long OriginalSize { get; init; }

    public long CurrentSize { get; init; }

    public VpcGeometry Geometry { get; init; }

    public VpcDiskType DiskType { get; init; }

    public Guid UniqueId { get; init; }

    /// <summary>A virtual machine that uses the disk is saved.</summary>
    public bool SavedState { get; init; }

    /// <summary>The reserved bytes from 85 on, as they were read.</summary>
    public ReadOnlyMemory<byte> Reserved { get; init; }

    /// <summary>True if there is a table of blocks.</summary>
    public bool IsDynamic => DiskType is VpcDiskType.Dynamic or VpcDiskType.Differencing;

    public static bool HasCookie(ReadOnlySpan<byte> bytes) => bytes.StartsWith(Cookie);

    /// <summary>One's complement of the sum of all bytes but the checksum's own four. Spec: "Checksum".</summary>
    public static uint Checksum(ReadOnlySpan<byte> bytes, int checksumAt)
    {
        uint sum = 0;
        for (int i = 0; i < bytes.Length; i++)
        {
            sum += i >= checksumAt && i < checksumAt + 4 ? 0u : bytes[i];
        }
        return ~sum;
    }

    /// <summary>The checksum that stands in a footer, and the one that should.</summary>
    public static (uint Found, uint Right) Checksums(ReadOnlySpan<byte> bytes)
        => (BigEndian.U32(bytes, ChecksumAt), Checksum(bytes, ChecksumAt));

    /// <summary>A footer whose cookie and checksum are right; else null.</summary>
    public static VpcFooter? Parse(ReadOnlySpan<byte> bytes)
        => bytes.Length < Length || (Checksums(bytes[..Length]) is var (found, right) && found != right) ? null : ParseUnsealed(bytes);

    /// <summary>A footer whose cookie is right, whatever its checksum; else null.</summary>
    public static VpcFooter? ParseUnsealed(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < Length || !HasCookie(bytes))
        {
            return null;
        }
        ulong original = BigEndian.U64(bytes, 40), current = BigEndian.U64(bytes, 48);
        return current > long.MaxValue ? null : new VpcFooter
        {
            Features = BigEndian.U32(bytes, 8),
            FormatVersion = BigEndian.U32(bytes, 12),
            DataOffset = BigEndian.U64(bytes, 16),
            TimeStamp = BigEndian.U32(bytes, 24),
            CreatorApplication = Encoding.Latin1.GetString(bytes.Slice(28, 4)),
            CreatorVersion = BigEndian.U32(bytes, 32),
            CreatorHostOs = Encoding.Latin1.GetString(bytes.Slice(36, 4)),
            OriginalSize = (long)Math.Min(original, long.MaxValue),
            CurrentSize = (long)current,
            Geometry = new VpcGeometry(BigEndian.U16(bytes, 56), bytes[58], bytes[59]),
            DiskType = (VpcDiskType)BigEndian.U32(bytes, 60),
            UniqueId = new Guid(bytes.Slice(68, 16), bigEndian: true),
            SavedState = bytes[84] != 0,
            Reserved = bytes[85..Length].ToArray(),
        };
    }

    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Length];
        Cookie.CopyTo(bytes, 0);
        BigEndian.U32(bytes, 8, Features);
        BigEndian.U32(bytes, 12, FormatVersion);
        BigEndian.U64(bytes, 16, DataOffset);
        BigEndian.U32(bytes, 24, TimeStamp);
        _ = Encoding.Latin1.GetBytes(CreatorApplication, bytes.AsSpan(28, 4));
        BigEndian.U32(bytes, 32, CreatorVersion);
        _ = Encoding.Latin1.GetBytes(CreatorHostOs, bytes.AsSpan(36, 4));
        BigEndian.U64(bytes, 40, (ulong)OriginalSize);
        BigEndian.U64(bytes, 48, (ulong)CurrentSize);
        BigEndian.U16(bytes, 56, Geometry.Cylinders);
        (bytes[58], bytes[59]) = (Geometry.Heads, Geometry.SectorsPerTrack);
        BigEndian.U32(bytes, 60, (uint)DiskType);
        _ = UniqueId.TryWriteBytes(bytes.AsSpan(68, 16), bigEndian: true, out _);
        bytes[84] = SavedState ? (byte)1 : (byte)0;
        Reserved.Span.CopyTo(bytes.AsSpan(85));
        BigEndian.U32(bytes, ChecksumAt, Checksum(bytes, ChecksumAt));
        return bytes;
    }

    /// <summary>Seconds since the format's epoch, rounded down.</summary>
    public static uint Seconds(DateTimeOffset time) => (uint)Math.Clamp((long)Math.Floor((time - Epoch).TotalSeconds), 0, uint.MaxValue);

    /// <summary>The time of a stamp.</summary>
    public static DateTimeOffset Time(uint seconds) => Epoch.AddSeconds(seconds);

    /// <summary>True if nothing contradicts the specification: what a footer must show to be believed under a wrong checksum.</summary>
    public bool IsPlausible
        => (Features & ~1u) == 2 && FormatVersion == Version1 && CurrentSize > 0 && CurrentSize % VpcGeometry.SectorSize == 0
        && Geometry.Sectors > 0
        && Geometry.Sectors <= Math.Max(VpcGeometry.Covering(CurrentSize / VpcGeometry.SectorSize).Sectors, VpcGeometry.Largest.Sectors)
        && DiskType is VpcDiskType.Fixed or VpcDiskType.Dynamic or VpcDiskType.Differencing
        && DiskType == VpcDiskType.Fixed == (DataOffset == NoDataOffset) && UniqueId != Guid.Empty
        && !Reserved.Span.ContainsAnyExcept((byte)0);

    /// <summary>Refuses versions and types that this program does not have.</summary>
    public void RequireKnown(string path)
    {
        if (FormatVersion >> 16 != 1)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: the footer's format version is {FormatVersion >> 16}.{FormatVersion & 0xFFFF}; known: 1.0",
                path);
        }
        if (DiskType is not (VpcDiskType.Fixed or VpcDiskType.Dynamic or VpcDiskType.Differencing))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: the footer's disk type is {(uint)DiskType}; known: 2 (fixed), 3 (dynamic), 4 (differencing)",
                path);
        }
    }
}
