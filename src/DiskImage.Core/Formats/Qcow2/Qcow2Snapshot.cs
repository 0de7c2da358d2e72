using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>One entry of the snapshot table. Spec: qcow2, "Snapshots".</summary>
internal sealed record Qcow2Snapshot
{
    public const int FixedBytes = 40; // before the extra data
    public const int KnownExtraBytes = 24; // VM state size, virtual size, instruction count
    public const int MaxExtraBytes = 1024; // QEMU's limit
    public const int UsualEntryBytes = FixedBytes + KnownExtraBytes + 64; // ours: a guess at what is to be read
    public const int MaxTableBytes = 1024 * Qcow2Header.MaxSnapshots; // QEMU's limit
    private const ulong NoInstructionCount = ulong.MaxValue;

    public required string Id { get; init; }
    public required string Name { get; init; }

    /// <summary>Where its entry begins in the file; 0 if it was not read from one.</summary>
    public long EntryOffset { get; init; }

    public required long L1Offset { get; init; }
    public required int L1Size { get; init; }
    public uint DateSeconds { get; init; }
    public uint DateNanoseconds { get; init; }
    public ulong VmClockNanoseconds { get; init; }
    public ulong VmStateSize { get; init; }

    /// <summary>Virtual size when it was taken; null where the image does not say, then it is today's.</summary>
    public long? VirtualSize { get; init; }

    public ulong? InstructionCount { get; init; }

    /// <summary>
    /// The extra data as it stands in the image: older programs wrote less than is known here, newer ones may write more. Its length and
    /// what is not known of it are kept.
    /// </summary>
    public byte[] Extra { get; init; } = new byte[KnownExtraBytes];

    /// <summary>Bytes of extra data beyond what QEMU takes: they are left out when the table is written.</summary>
    public int LostExtraBytes { get; init; }

    /// <summary>True if its entry has what version 3 demands: the size of the disk.</summary>
    public bool FitsVersion3 => VirtualSize is not null;

    /// <summary>The same with what version 3 demands; a size that it does not record is today's.</summary>
    public Qcow2Snapshot ForVersion3(long size)
        => FitsVersion3 ? this : this with { VirtualSize = size, Extra = new byte[KnownExtraBytes] };

    /// <summary>Reads the snapshot table that a header names.</summary>
    /// <exception cref="DiskImageException">Corrupt; it names the snapshot, the field and the offset.</exception>
    public static async ValueTask<IReadOnlyList<Qcow2Snapshot>> ReadAllAsync(
        BlockNode file, Qcow2Header header, CancellationToken cancellationToken)
    {
        (IReadOnlyList<Qcow2Snapshot> snapshots, DiskImageException? fault) = await ReadReadableAsync(
            file, header, cancellationToken).ConfigureAwait(false);
        return fault is null ? snapshots : throw fault;
    }

    /// <summary>
    /// Reads the snapshot table that a header names, as far as its entries can be told apart; where not all can, says why.
    /// </summary>
    public static async ValueTask<(IReadOnlyList<Qcow2Snapshot> Snapshots, DiskImageException? Fault)> ReadReadableAsync(
        BlockNode file, Qcow2Header header, CancellationToken cancellationToken)
    {
        if (header.SnapshotCount == 0)
        {
            return ([], null);
        }
        if (header.SnapshotsOffset < header.ClusterSize) // what the header's bytes say would pass for a snapshot
        {
            return ([], new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{file.Name}: the snapshot table is said to be at host offset"
                    + $" {header.SnapshotsOffset:#,0}, where the header is", file.Name, Qcow2Header.SnapshotsAt));
        }
        int most = (int)Math.Clamp(file.Length - header.SnapshotsOffset, 0, MaxTableBytes); // 0: the place is past the end of the file
        long usual = Math.Min(most, header.SnapshotCount * (long)UsualEntryBytes);
        byte[] table = await ReadTableAsync(file, header.SnapshotsOffset, usual, cancellationToken).ConfigureAwait(false);
        var snapshots = new List<Qcow2Snapshot>(header.SnapshotCount);
        int at = 0;
        for (int i = 0; i < header.SnapshotCount; i++)
        {
            while (table.Length < most && !IsWhole(table.AsSpan(Math.Min(at, table.Length))))
            {
                table = await ReadTableAsync(
                    file, header.SnapshotsOffset, Math.Min(most, table.Length * 2L), cancellationToken).ConfigureAwait(false);
            }
            ReadOnlySpan<byte> entry = table.AsSpan(Math.Min(at, table.Length));
            if (FaultOf(entry) is { } what)
            {
                long offset = header.SnapshotsOffset + at;
                return (snapshots, new DiskImageException(DiskImageErrorKind.Corrupt, $"{file.Name}:"
                    + $" snapshot table entry {i} at offset {offset:#,0}: {what}", file.Name, offset));
            }
            snapshots.Add(Parse(entry, out int length) with { EntryOffset = header.SnapshotsOffset + at });
            at += length;
        }
        return (snapshots, null);
    }

    private static async ValueTask<byte[]> ReadTableAsync(BlockNode file, long offset, long length, CancellationToken cancellationToken)
    {
        byte[] table = new byte[length];
        if (length > 0)
        {
            await file.ReadAsync(offset, table, cancellationToken).ConfigureAwait(false);
        }
        return table;
    }

    /// <summary>Bytes of its entry in the table it was read from, with the padding behind it.</summary>
    public int StoredLength { get; init; }

    /// <summary>Bytes of the table that these snapshots, all of them, were read from.</summary>
    public static int StoredTableLength(IEnumerable<Qcow2Snapshot> snapshots) => snapshots.Sum(s => s.StoredLength);

    /// <summary>Bytes that the table of some snapshots takes.</summary>
    public static long TableLength(IEnumerable<Qcow2Snapshot> snapshots) => snapshots.Sum(s => Round.Up(s.Length, 8));

    /// <summary>The table as it stands in the file.</summary>
    public static byte[] ToTable(IReadOnlyCollection<Qcow2Snapshot> snapshots)
    {
        byte[] table = new byte[TableLength(snapshots)];
        int at = 0;
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            snapshot.Write(table.AsSpan(at));
            at += (int)Round.Up(snapshot.Length, 8);
        }
        return table;
    }

    private int Length => FixedBytes + Extra.Length + Encoding.UTF8.GetByteCount(Id) + Encoding.UTF8.GetByteCount(Name);

    /// <summary>What keeps an entry from being read; null if nothing.</summary>
    private static string? FaultOf(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < FixedBytes)
        {
            return "it lies past the end of the file";
        }
        uint l1Size = BigEndian.U32(bytes, 8), extraSize = BigEndian.U32(bytes, 36);
        int idLength = BigEndian.U16(bytes, 12), nameLength = BigEndian.U16(bytes, 14);
        if (l1Size > Qcow2Header.MaxL1Bytes / 8)
        {
            return $"its L1 table has {l1Size} entries; allowed: at most {Qcow2Header.MaxL1Bytes / 8}";
        }
        return IsWhole(bytes)
            ? null
            : $"its extra data of {extraSize} bytes, id of {idLength} and name of {nameLength} reach past the {bytes.Length:#,0} bytes"
                + $" that follow; allowed: all inside the file, and the table at most {MaxTableBytes:#,0} long";
    }

    /// <summary>True if an entry, as long as it says it is, lies in some bytes.</summary>
    private static bool IsWhole(ReadOnlySpan<byte> bytes)
        => bytes.Length >= FixedBytes
            && (long)FixedBytes + BigEndian.U32(bytes, 36) + BigEndian.U16(bytes, 12) + BigEndian.U16(bytes, 14) <= bytes.Length;

    private static Qcow2Snapshot Parse(ReadOnlySpan<byte> bytes, out int length)
    {
        int extraSize = (int)BigEndian.U32(bytes, 36), idLength = BigEndian.U16(bytes, 12), nameLength = BigEndian.U16(bytes, 14);
        ReadOnlySpan<byte> extra = bytes.Slice(FixedBytes, extraSize);
        int idAt = FixedBytes + extraSize;
        ulong instructions = extra.Length >= 24 ? BigEndian.U64(extra, 16) : NoInstructionCount;
        length = (int)Round.Up(idAt + idLength + nameLength, 8);
        return new Qcow2Snapshot
        {
            StoredLength = length,
            L1Offset = (long)BigEndian.U64(bytes, 0),
            L1Size = (int)BigEndian.U32(bytes, 8),
            DateSeconds = BigEndian.U32(bytes, 16),
            DateNanoseconds = BigEndian.U32(bytes, 20),
            VmClockNanoseconds = BigEndian.U64(bytes, 24),
            VmStateSize = extra.Length >= 8 ? BigEndian.U64(extra, 0) : BigEndian.U32(bytes, 32),
            VirtualSize = extra.Length >= 16 ? (long)BigEndian.U64(extra, 8) : null,
            InstructionCount = instructions == NoInstructionCount ? null : instructions,
            Extra = extra[..Math.Min(extra.Length, MaxExtraBytes)].ToArray(),
            LostExtraBytes = Math.Max(0, extra.Length - MaxExtraBytes),
            Id = Encoding.UTF8.GetString(bytes.Slice(idAt, idLength)),
            Name = Encoding.UTF8.GetString(bytes.Slice(idAt + idLength, nameLength)),
        };
    }

    private void Write(Span<byte> bytes)
    {
        byte[] id = Encoding.UTF8.GetBytes(Id), name = Encoding.UTF8.GetBytes(Name);
        BigEndian.U64(bytes, 0, (ulong)L1Offset);
        BigEndian.U32(bytes, 8, (uint)L1Size);
        BigEndian.U16(bytes, 12, (ushort)id.Length);
        BigEndian.U16(bytes, 14, (ushort)name.Length);
        BigEndian.U32(bytes, 16, DateSeconds);
        BigEndian.U32(bytes, 20, DateNanoseconds);
        BigEndian.U64(bytes, 24, VmClockNanoseconds);
        BigEndian.U32(bytes, 32, VmStateSize > uint.MaxValue ? 0 : (uint)VmStateSize);
        BigEndian.U32(bytes, 36, (uint)Extra.Length);
        Span<byte> extra = bytes.Slice(FixedBytes, Extra.Length);
        Extra.CopyTo(extra);
        if (extra.Length >= 8)
        {
            BigEndian.U64(extra, 0, VmStateSize);
        }
        if (extra.Length >= 16)
        {
            BigEndian.U64(extra, 8, (ulong)(VirtualSize ?? 0)); // known wherever there is a field for it
        }
        if (extra.Length >= 24)
        {
            BigEndian.U64(extra, 16, InstructionCount ?? NoInstructionCount);
        }
        int at = FixedBytes + Extra.Length;
        id.CopyTo(bytes[at..]);
        name.CopyTo(bytes[(at + id.Length)..]);
    }
}
