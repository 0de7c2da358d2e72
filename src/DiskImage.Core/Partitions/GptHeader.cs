using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Partitions;

/// <summary>A GUID partition table: its header, which is right by its checksums, and its entries. Spec: UEFI 5.3.2, 5.3.3.</summary>
internal sealed class GptHeader
{
    private const int LengthAt = 12, CrcAt = 16, MyAt = 24, OtherAt = 32, FirstUsableAt = 40, LastUsableAt = 48;
    private const int EntriesAt = 72, EntriesCrcAt = 88, MinBytes = 92;
    private const int MinEntry = 128;
    private const int MostEntryBytes = 1 << 20; // 8192 entries of the usual 128 bytes; everybody writes 128. Ours

    private static readonly byte[] s_signature = "EFI PART"u8.ToArray();
    private static readonly int[] s_sectors = [512, 4096];

    private readonly byte[] _header, _entries;
    private readonly int _entryBytes;

    private GptHeader(byte[] header, byte[] entries, int entryBytes, int sectorSize, bool isBackup)
        => (_header, _entries, _entryBytes, SectorSize, IsBackup) = (header, entries, entryBytes, sectorSize, isBackup);

    public int SectorSize { get; }

    /// <summary>This is the copy at the disk's end.</summary>
    public bool IsBackup { get; }

    /// <summary>Bytes of the copy: the entries, then the header in the disk's last sector.</summary>
    public long BackupBytes => Round.Up(_entries.Length, SectorSize) + SectorSize;

    /// <summary>
    /// Where the table at the disk's beginning ends, with one sector for a partition: the specification has no disk without room for one.
    /// </summary>
    public long PrimaryEnd => Math.Max(
        ((IsBackup ? 2 : (long)LittleEndian.U64(_header, EntriesAt)) * SectorSize) + Round.Up(_entries.Length, SectorSize),
        (long)LittleEndian.U64(_header, FirstUsableAt) * SectorSize) + SectorSize;

    /// <summary>The table at a disk's beginning; if that is damaged, its copy at the end. Null if there is none.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="sectorSize">Its logical sector; null to try those there are.</param>
    /// <param name="isAnnounced">The disk's first sector says that there is one. Else a copy alone is what a former user left.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<GptHeader?> FindAsync(
        BlockNode disk, int? sectorSize, bool isAnnounced, CancellationToken cancellationToken)
    {
        int[] sectors = sectorSize is int known ? [known, .. s_sectors.Where(s => s != known)] : s_sectors;
        foreach (bool isBackup in isAnnounced ? [false, true] : new[] { false })
        {
            foreach (int sector in sectors)
            {
                long at = isBackup ? (disk.Length / sector) - 1 : 1;
                if (at >= 1 && await ReadAsync(disk, at, sector, isBackup, cancellationToken).ConfigureAwait(false) is { } found)
                {
                    return found;
                }
            }
        }
        return null;
    }

    /// <summary>The partitions.</summary>
    /// <exception cref="DiskImageException">Corrupt: one is not on the disk.</exception>
    public IReadOnlyList<DiskPartition> Partitions(BlockNode disk)
    {
        var partitions = new List<DiskPartition>();
        for (int at = 0; at <= _entries.Length - _entryBytes; at += _entryBytes)
        {
            Guid type = LittleEndian.Guid(_entries, at);
            if (type == Guid.Empty)
            {
                continue;
            }
            ulong first = LittleEndian.U64(_entries, at + 32), last = LittleEndian.U64(_entries, at + 40);
            ulong sectors = (ulong)(disk.Length / SectorSize);
            if (first < 1 || first > last || last >= sectors)
            {
                throw PartitionTable.Corrupt(
                    disk,
                    $"partition {(at / _entryBytes) + 1} goes from sector {first:#,0} to {last:#,0}; "
                        + $"allowed: within the disk's {sectors:#,0} of {SectorSize} bytes",
                    SectorSize);
            }
            partitions.Add(new DiskPartition((long)first * SectorSize, (long)(last - first + 1) * SectorSize, type.ToString()));
        }
        return partitions;
    }

    /// <summary>Puts the copy where a disk of a size ends, then has the first table name it: each is durable before the next.</summary>
    public async ValueTask MoveBackupAsync(BlockNode disk, long size)
    {
        long last = (size / SectorSize) - 1, entriesAt = last - (Round.Up(_entries.Length, SectorSize) / SectorSize);
        byte[] entries = new byte[Round.Up(_entries.Length, SectorSize)];
        _entries.CopyTo(entries, 0);
        await disk.WriteAsync(entriesAt * SectorSize, entries).ConfigureAwait(false);
        await disk.WriteAsync(last * SectorSize, Header(last, 1, entriesAt)).ConfigureAwait(false);
        await disk.FlushAsync().ConfigureAwait(false);
        await disk.WriteAsync(SectorSize, Header(1, last, (long)LittleEndian.U64(_header, EntriesAt))).ConfigureAwait(false);
        await disk.FlushAsync().ConfigureAwait(false);

        byte[] Header(long mine, long other, long entriesAtSector)
        {
            byte[] header = (byte[])_header.Clone();
            LittleEndian.U64(header, MyAt, (ulong)mine);
            LittleEndian.U64(header, OtherAt, (ulong)other);
            LittleEndian.U64(header, LastUsableAt, (ulong)(entriesAt - 1));
            LittleEndian.U64(header, EntriesAt, (ulong)entriesAtSector);
            LittleEndian.U32(header, CrcAt, 0);
            LittleEndian.U32(header, CrcAt, Crc32.Of(header.AsSpan(0, (int)LittleEndian.U32(header, LengthAt))));
            return header;
        }
    }

    /// <summary>The header in a sector with its entries; null if anything is wrong with either.</summary>
    private static async ValueTask<GptHeader?> ReadAsync(
        BlockNode disk, long at, int sector, bool isBackup, CancellationToken cancellationToken)
    {
        byte[] header = new byte[sector];
        await disk.ReadPaddedAsync(at * sector, header, cancellationToken).ConfigureAwait(false);
        if (!header.AsSpan().StartsWith(s_signature) || !IsSealed(header) || LittleEndian.U64(header, MyAt) != (ulong)at)
        {
            return null;
        }
        long sectors = disk.Length / sector;
        uint count = LittleEndian.U32(header, 80), entryBytes = LittleEndian.U32(header, 84);
        ulong entriesAt = LittleEndian.U64(header, EntriesAt);
        bool isSane = entryBytes is >= MinEntry and <= MostEntryBytes && entryBytes % MinEntry == 0 && count <= MostEntryBytes / entryBytes
            && entriesAt >= 2 && entriesAt <= (ulong)sectors && count * (long)entryBytes <= disk.Length - ((long)entriesAt * sector)
            && LittleEndian.U64(header, FirstUsableAt) <= (ulong)sectors;
        if (!isSane)
        {
            return null;
        }
        byte[] entries = new byte[count * entryBytes];
        await disk.ReadAsync((long)entriesAt * sector, entries, cancellationToken).ConfigureAwait(false);
        return Crc32.Of(entries) == LittleEndian.U32(header, EntriesCrcAt)
            ? new GptHeader(header, entries, (int)entryBytes, sector, isBackup)
            : null;
    }

    private static bool IsSealed(ReadOnlySpan<byte> header)
    {
        uint length = LittleEndian.U32(header, LengthAt);
        if (length < MinBytes || length > header.Length)
        {
            return false;
        }
        byte[] bare = header[..(int)length].ToArray();
        LittleEndian.U32(bare, CrcAt, 0);
        return Crc32.Of(bare) == LittleEndian.U32(header, CrcAt);
    }
}
