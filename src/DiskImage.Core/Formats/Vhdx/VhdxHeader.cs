using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>One of the two headers: the root of everything that changes outside the log. Spec: MS-VHDX 2.2.2.</summary>
internal sealed record VhdxHeader
{
    public const int Size = 4096;
    public const uint Signature = 0x64616568; // "head"
    public const ushort SupportedVersion = 1, SupportedLogVersion = 0;
    private const int ChecksumAt = 4, SequenceAt = 8, FileWriteAt = 16, DataWriteAt = 32, LogGuidAt = 48, LogVersionAt = 64, VersionAt = 66;
    private const int LogLengthAt = 68, LogOffsetAt = 72, ReservedAt = 80;

    public required ulong SequenceNumber { get; init; }

    /// <summary>Changes with the first change to the file after each opening.</summary>
    public required Guid FileWriteGuid { get; init; }

    /// <summary>Changes with the first change to what the disk shows after each opening: a child knows its parent by it.</summary>
    public required Guid DataWriteGuid { get; init; }

    /// <summary>Marks the entries of the log that count; empty if the log is.</summary>
    public required Guid LogGuid { get; init; }

    public ushort LogVersion { get; init; } = SupportedLogVersion;

    public ushort Version { get; init; } = SupportedVersion;

    public required long LogLength { get; init; }

    public required long LogOffset { get; init; }

    /// <summary>True if the log holds updates that must be replayed.</summary>
    public bool HasLog => LogGuid != Guid.Empty;

    /// <summary>Where the first (0) and second (1) header lies.</summary>
    public static long PlaceOf(int index) => (64L << 10) << index;

    /// <summary>Reads a header whose signature and checksum are right; else null, and what is wrong with it.</summary>
    public static VhdxHeader? TryParse(ReadOnlySpan<byte> bytes, out string? fault)
    {
        uint signature = LittleEndian.U32(bytes, 0), stored = LittleEndian.U32(bytes, ChecksumAt);
        fault = signature != Signature ? $"its signature is 0x{signature:X8}; allowed: 0x{Signature:X8} (\"head\")"
            : stored != Crc32C.OfAllBut(bytes, ChecksumAt)
            ? $"its checksum is 0x{stored:X8}; computed: 0x{Crc32C.OfAllBut(bytes, ChecksumAt):X8}"
            : null;
        return fault is not null ? null : Parse(bytes);
    }

    /// <summary>Reads a header whatever its checksum says; null if its signature is wrong or a reserved byte is set.</summary>
    public static VhdxHeader? TryParseUnsealed(ReadOnlySpan<byte> bytes)
        => LittleEndian.U32(bytes, 0) == Signature && !bytes[ReservedAt..].ContainsAnyExcept((byte)0) ? Parse(bytes) : null;

    private static VhdxHeader Parse(ReadOnlySpan<byte> bytes) => new()
    {
        SequenceNumber = LittleEndian.U64(bytes, SequenceAt),
        FileWriteGuid = LittleEndian.Guid(bytes, FileWriteAt),
        DataWriteGuid = LittleEndian.Guid(bytes, DataWriteAt),
        LogGuid = LittleEndian.Guid(bytes, LogGuidAt),
        LogVersion = LittleEndian.U16(bytes, LogVersionAt),
        Version = LittleEndian.U16(bytes, VersionAt),
        LogLength = LittleEndian.U32(bytes, LogLengthAt),
        LogOffset = (long)Math.Min(LittleEndian.U64(bytes, LogOffsetAt), long.MaxValue),
    };

    /// <summary>The header as it stands in the file, checksum included.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Size];
        LittleEndian.U32(bytes, 0, Signature);
        LittleEndian.U64(bytes, SequenceAt, SequenceNumber);
        LittleEndian.Guid(bytes, FileWriteAt, FileWriteGuid);
        LittleEndian.Guid(bytes, DataWriteAt, DataWriteGuid);
        LittleEndian.Guid(bytes, LogGuidAt, LogGuid);
        LittleEndian.U16(bytes, LogVersionAt, LogVersion);
        LittleEndian.U16(bytes, VersionAt, Version);
        LittleEndian.U32(bytes, LogLengthAt, (uint)LogLength);
        LittleEndian.U64(bytes, LogOffsetAt, (ulong)LogOffset);
        LittleEndian.U32(bytes, ChecksumAt, Crc32C.OfAllBut(bytes, ChecksumAt));
        return bytes;
    }

    /// <summary>Refuses versions that this program does not know and a log that lies where none can be.</summary>
    public void Require(BlockNode file, long at)
    {
        if (Version != SupportedVersion)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: the header's Version is {Version}; this program knows {SupportedVersion}",
                file.Name,
                at + VersionAt);
        }
        if (HasLog && LogVersion != SupportedLogVersion)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: the log is not empty and its LogVersion is {LogVersion}; this program "
                    + $"can replay version {SupportedLogVersion}",
                file.Name,
                at + LogVersionAt);
        }
        bool isPlaced = LogOffset >= VhdxLayout.MiB && LogOffset % VhdxLayout.MiB == 0 && LogLength > 0 && LogLength % VhdxLayout.MiB == 0
            && LogOffset <= file.Length - LogLength;
        if (!isPlaced)
        {
            throw VhdxLayout.Corrupt(
                file.Name,
                $"the log has {LogLength:#,0} bytes at offset {LogOffset:#,0}; allowed: whole MiB, after the first MiB, "
                    + $"inside the file's {file.Length:#,0} bytes",
                at + LogLengthAt);
        }
    }
}

/// <summary>Both headers, and which of them counts. Spec: MS-VHDX 2.2.2, 2.2.2.1.</summary>
/// <param name="Current">The header that counts.</param>
/// <param name="CurrentIndex">Which of the two it is: 0 or 1.</param>
/// <param name="Faults">What is wrong with each; null for nothing.</param>
/// <param name="IsSealed">False if both checksums are wrong and the rest was believed, for a repair.</param>
internal sealed record VhdxHeaderPair(VhdxHeader Current, int CurrentIndex, IReadOnlyList<string?> Faults, bool IsSealed = true)
{
    /// <summary>Reads both and chooses. Looks at the file type identifier too.</summary>
    /// <param name="file">The file.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="forRepair">True to believe headers under wrong checksums if they fit each other.</param>
    /// <exception cref="DiskImageException">InvalidFormat: not a VHDX file; Corrupt: no header counts; Unsupported: a version.</exception>
    public static async ValueTask<VhdxHeaderPair> ReadAsync(BlockNode file, CancellationToken cancellationToken, bool forRepair = false)
    {
        byte[] bytes = new byte[VhdxHeader.Size];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!bytes.AsSpan().StartsWith(VhdxLayout.FileSignature))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{file.Name}: does not begin with \"vhdxfile\", so it is not a VHDX file", file.Name, 0);
        }
        VhdxHeader?[] headers = new VhdxHeader?[2], unsealed = new VhdxHeader?[2];
        var faults = new string?[2];
        for (int i = 0; i < 2; i++)
        {
            await file.ReadPaddedAsync(VhdxHeader.PlaceOf(i), bytes, cancellationToken).ConfigureAwait(false);
            headers[i] = VhdxHeader.TryParse(bytes, out faults[i]);
            unsealed[i] = VhdxHeader.TryParseUnsealed(bytes);
        }
        bool isSealed = headers is not [null, null], isBelieved = !isSealed && Fit(unsealed[0], unsealed[1]);
        headers = isBelieved && forRepair ? unsealed : headers;
        int current = Choose(headers[0], headers[1]);
        if (current < 0)
        {
            Wording rest = isBelieved ? (Wording)$". All else about them fits: {new Remedy(RemedyKind.Repair)} writes them anew" : "";
            Wording why = headers[0] is null
                ? (Wording)$"neither header can be used: of the first, {faults[0]}; of the second, {faults[1]}{rest}"
                : (Wording)$"both headers have the sequence number {headers[0]!.SequenceNumber} and differ, so neither counts";
            throw VhdxLayout.Corrupt(file.Name, why, VhdxHeader.PlaceOf(0));
        }
        headers[current]!.Require(file, VhdxHeader.PlaceOf(current));
        return new(headers[current]!, current, faults, isSealed);
    }

    /// <summary>True if two headers under wrong checksums are one program's successive writes of the same facts.</summary>
    private static bool Fit(VhdxHeader? first, VhdxHeader? second)
        => first is not null && second is not null
            && Math.Max(first.SequenceNumber, second.SequenceNumber) - Math.Min(first.SequenceNumber, second.SequenceNumber) <= 1
            && first with { SequenceNumber = second.SequenceNumber, FileWriteGuid = second.FileWriteGuid } == second;

    /// <summary>The higher sequence number counts. Disk2vhd writes the same header twice, which is harmless.</summary>
    private static int Choose(VhdxHeader? first, VhdxHeader? second) => (first, second) switch
    {
        (null, null) => -1,
        (null, _) => 1,
        (_, null) => 0,
        _ when first.SequenceNumber != second.SequenceNumber => first.SequenceNumber > second.SequenceNumber ? 0 : 1,
        _ => first == second ? 0 : -1,
    };
}
