using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Dmg;

/// <summary>A checksum as it stands in trailers and tables: 136 bytes.</summary>
/// <param name="Kind">2 for CRC-32; 0 for none.</param>
/// <param name="Value">The first 32 bits.</param>
internal readonly record struct DmgChecksum(uint Kind, uint Value)
{
    /// <summary>The kind that is verified here.</summary>
    public const uint Crc32 = 2;

    /// <summary>True if it can be verified.</summary>
    public bool IsCrc32 => Kind == Crc32;

    /// <summary>Reads one.</summary>
    public static DmgChecksum Read(ReadOnlySpan<byte> bytes, int at) => new(BigEndian.U32(bytes, at), BigEndian.U32(bytes, at + 8));
}

/// <summary>The trailer of an image or of a segment of one. Layout: see SPEC.md. All numbers are big-endian.</summary>
internal sealed record DmgTrailer
{
    /// <summary>Bytes of a trailer, and of a sector.</summary>
    public const int Length = 512, SectorSize = 512;

    /// <summary>
    /// Bytes of a property list or resource fork at most: QEMU's limit is 64 MiB. Ours is lower, since a table of 16 MiB maps terabytes.
    /// </summary>
    public const int MaxListBytes = 32 << 20;

    /// <summary>Segments at most. Ours.</summary>
    public const int MaxSegments = 1000;

    private const int RunningAt = 16, DataAt = 24, DataLengthAt = 32, ForkAt = 40, ForkLengthAt = 48, SegmentAt = 56, SegmentsAt = 60;
    private const int IdAt = 64, DataChecksumAt = 80, ListAt = 216, ListLengthAt = 224, ChecksumAt = 352, SectorsAt = 492;

    /// <summary>Where this segment's data fork begins in that of all segments.</summary>
    public required long RunningOffset { get; init; }

    /// <summary>Where the data fork begins in the file.</summary>
    public required long DataOffset { get; init; }

    /// <summary>Bytes of the data fork.</summary>
    public required long DataLength { get; init; }

    /// <summary>The resource fork; no bytes for none.</summary>
    public required (long Offset, long Length) ResourceFork { get; init; }

    /// <summary>The property list; no bytes for none.</summary>
    public required (long Offset, long Length) PropertyList { get; init; }

    /// <summary>The number of this segment, from 1 on; 0 or 1 where there is only one.</summary>
    public required uint Segment { get; init; }

    /// <summary>How many segments there are.</summary>
    public required int Segments { get; init; }

    /// <summary>The image's identifier, the same in all segments.</summary>
    public required Guid Id { get; init; }

    /// <summary>The checksum of the data fork.</summary>
    public required DmgChecksum DataChecksum { get; init; }

    /// <summary>The checksum of the tables' checksums.</summary>
    public required DmgChecksum Checksum { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public required long DiskSize { get; init; }

    /// <summary>True if bytes begin a trailer.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> bytes)
        => bytes.Length >= 12 && bytes.StartsWith("koly"u8) && BigEndian.U32(bytes, 8) == Length;

    /// <summary>Finds the trailer, at the end of the file or at its beginning, and checks it against the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat or Corrupt.</exception>
    public static async ValueTask<DmgTrailer> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        long at = Math.Max(0, file.Length - Length);
        await file.ReadPaddedAsync(at, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            at = 0;
            await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        }
        return IsSigned(bytes)
            ? Parse(file, bytes, at)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: not an Apple disk image (UDIF): 'koly' stands neither in the last {Length} bytes nor at offset 0",
                file.Name);
    }

    private static DmgTrailer Parse(BlockNode file, byte[] bytes, long at)
    {
        uint segments = BigEndian.U32(bytes, SegmentsAt);
        ulong sectors = BigEndian.U64(bytes, SectorsAt);
        if (sectors > (ulong)(long.MaxValue / SectorSize))
        {
            throw Corrupt(SectorsAt, $"{sectors:#,0} sectors; allowed: up to {long.MaxValue / SectorSize:#,0}");
        }
        if (segments > MaxSegments)
        {
            throw Corrupt(SegmentsAt, $"{segments:#,0} segments; allowed: up to {MaxSegments:#,0}");
        }
        (long dataOffset, long dataLength) = Range(DataAt, DataLengthAt, long.MaxValue, "a data fork");
        return new()
        {
            RunningOffset = (long)Math.Min(BigEndian.U64(bytes, RunningAt), long.MaxValue / 2),
            DataOffset = dataOffset,
            DataLength = dataLength,
            ResourceFork = Range(ForkAt, ForkLengthAt, MaxListBytes, "a resource fork"),
            PropertyList = Range(ListAt, ListLengthAt, MaxListBytes, "a property list"),
            Segment = BigEndian.U32(bytes, SegmentAt),
            Segments = (int)Math.Max(segments, 1),
            Id = new Guid(bytes.AsSpan(IdAt, 16), bigEndian: true),
            DataChecksum = DmgChecksum.Read(bytes, DataChecksumAt),
            Checksum = DmgChecksum.Read(bytes, ChecksumAt),
            DiskSize = (long)sectors * SectorSize,
        };

        (long Offset, long Length) Range(int offsetAt, int lengthAt, long most, string what)
        {
            ulong offset = BigEndian.U64(bytes, offsetAt), length = BigEndian.U64(bytes, lengthAt);
            return length == 0 ? (0, 0)
                : offset <= (ulong)file.Length && length <= (ulong)file.Length - offset && length <= (ulong)most
                ? ((long)offset, (long)length)
                : throw Corrupt(
                    offsetAt,
                    $"{what} of {length:#,0} bytes at offset {offset:#,0}; allowed: inside the file of {file.Length:#,0} "
                        + $"bytes{(most < long.MaxValue ? $", up to {most:#,0} bytes" : "")}");
        }

        DiskImageException Corrupt(int field, string what)
            => new(DiskImageErrorKind.Corrupt, $"{file.Name}: the trailer at offset {at + field:#,0} says {what}", file.Name, at + field);
    }
}
