using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Partitions;

/// <summary>
/// The master boot record: four entries in a disk's first sector. An extended partition holds a chain of such sectors, each with a logical
/// partition and the way to the next. Spec: UEFI 5.2.1; for the chain, what DOS, Linux and Windows do.
/// </summary>
internal sealed class MbrTable
{
    /// <summary>Bytes that the table takes, whatever the sector; and the usual sector.</summary>
    public const int Sector = 512;

    private const int EntriesAt = 446, EntryBytes = 16, Entries = 4, SignatureAt = 510;
    private const int MostLogical = 256; // bounds the work; Linux names no more than 60, Windows has letters for fewer. Ours
    private const int LookBytes = 68 << 10; // the first bytes of a file system: those of btrfs are at 64 KiB
    private const byte Protective = 0xEE;

    private static readonly byte[] s_extended = [0x05, 0x0F, 0x85];

    private readonly List<Entry> _entries;

    private MbrTable(List<Entry> entries) => _entries = entries;

    /// <summary>It announces a GPT.</summary>
    public bool IsProtective => _entries.Exists(e => e.Type == Protective);

    /// <summary>The table in a disk's first sector; null if there is none.</summary>
    public static async ValueTask<MbrTable?> ReadAsync(BlockNode disk, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Sector];
        await disk.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return Parse(bytes) is { Count: > 0 } entries ? new MbrTable(entries) : null;
    }

    /// <summary>
    /// The sector that the table counts in where nothing says it: that of 4096 bytes if the first partition's place in sectors of 512 bytes
    /// holds nothing and the one in the larger sectors something.
    /// </summary>
    public async ValueTask<int> SectorSizeAsync(BlockNode disk, CancellationToken cancellationToken)
    {
        const int Large = 4096;
        IEnumerable<Entry> own = _entries.Where(e => e.Type != Protective && !s_extended.Contains(e.Type));
        if (own.MinBy(e => e.Start) is not { Count: > 0 } first || _entries.Max(e => (long)e.Start + e.Count) * Large > disk.Length)
        {
            return Sector;
        }
        return await HoldsNothingAsync((long)first.Start * Sector).ConfigureAwait(false)
            && !await HoldsNothingAsync((long)first.Start * Large).ConfigureAwait(false)
            ? Large
            : Sector;

        async ValueTask<bool> HoldsNothingAsync(long offset)
        {
            byte[] bytes = new byte[LookBytes];
            await disk.ReadPaddedAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
            return !bytes.AsSpan().ContainsAnyExcept((byte)0);
        }
    }

    /// <summary>The partitions, without what only protects a GPT.</summary>
    /// <exception cref="DiskImageException">Corrupt: one is not on the disk, or the chain of logical ones leads astray.</exception>
    public async ValueTask<IReadOnlyList<DiskPartition>> PartitionsAsync(
        BlockNode disk, int sectorSize, CancellationToken cancellationToken)
    {
        var partitions = new List<DiskPartition>();
        foreach (Entry entry in _entries.Where(e => e.Type != Protective))
        {
            DiskPartition partition = Located(disk, entry, 0, sectorSize, 0);
            partitions.Add(partition);
            if (partition.IsExtended)
            {
                await AddLogicalAsync(disk, partition, sectorSize, partitions, cancellationToken).ConfigureAwait(false);
            }
        }
        return partitions;
    }

    /// <summary>
    /// Has the entry that protects a GPT say the disk's size, if it is the only one and did say a size. Spec: UEFI 5.2.3, SizeInLBA.
    /// </summary>
    public static async ValueTask SetProtectiveSizeAsync(BlockNode disk, long sectors)
    {
        byte[] bytes = new byte[Sector];
        await disk.ReadPaddedAsync(0, bytes, CancellationToken.None).ConfigureAwait(false);
        if (Parse(bytes) is not [{ Type: Protective, Count: not uint.MaxValue }])
        {
            return;
        }
        for (int i = 0; i < Entries; i++)
        {
            int at = EntriesAt + (i * EntryBytes);
            if (bytes[at + 4] == Protective)
            {
                LittleEndian.U32(bytes, at + 12, (uint)Math.Min(sectors - 1, uint.MaxValue));
            }
        }
        await disk.WriteAsync(0, bytes).ConfigureAwait(false);
    }

    /// <summary>
    /// The entries of a table that are used; null if it is none. A file system's first sector has the same mark, but code in their place.
    /// </summary>
    private static List<Entry>? Parse(ReadOnlySpan<byte> bytes)
    {
        if (bytes[SignatureAt] != 0x55 || bytes[SignatureAt + 1] != 0xAA)
        {
            return null;
        }
        var entries = new List<Entry>();
        for (int i = 0; i < Entries; i++)
        {
            ReadOnlySpan<byte> bare = bytes.Slice(EntriesAt + (i * EntryBytes), EntryBytes);
            if (bare[0] is not (0 or 0x80))
            {
                return null;
            }
            var entry = new Entry(bare[4], LittleEndian.U32(bare, 8), LittleEndian.U32(bare, 12));
            if (entry is { Type: not 0, Count: not 0 })
            {
                entries.Add(entry);
            }
        }
        return entries;
    }

    private static DiskPartition Located(BlockNode disk, Entry entry, long from, int sectorSize, long tableAt)
    {
        long offset = from + ((long)entry.Start * sectorSize), length = (long)entry.Count * sectorSize;
        return offset == 0 || length > disk.Length - offset
            ? throw PartitionTable.Corrupt(
                disk,
                $"a partition of type {entry.Type:x2} has {length:#,0} bytes at offset {offset:#,0}; "
                    + $"allowed: behind the first sector and within the {disk.Length:#,0} bytes of the disk",
                tableAt)
            : new DiskPartition(offset, length, entry.Type.ToString("x2", null), s_extended.Contains(entry.Type));
    }

    private static async ValueTask AddLogicalAsync(
        BlockNode disk, DiskPartition extended, int sectorSize, List<DiskPartition> partitions, CancellationToken cancellationToken)
    {
        var seen = new HashSet<long>();
        byte[] bytes = new byte[Sector];
        for (long? at = extended.Offset; at is long here;)
        {
            if (!seen.Add(here) || seen.Count > MostLogical)
            {
                string what = seen.Count > MostLogical ? $"has more than {MostLogical}" : $"leads back to offset {here:#,0}";
                throw PartitionTable.Corrupt(disk, $"the chain of logical partitions {what}", here);
            }
            await disk.ReadPaddedAsync(here, bytes, cancellationToken).ConfigureAwait(false);
            if (Parse(bytes) is not { } entries)
            {
                throw PartitionTable.Corrupt(
                    disk, $"the chain of logical partitions leads to offset {here:#,0}, where none is described", here);
            }
            at = null;
            foreach (Entry entry in entries)
            {
                bool leadsOn = s_extended.Contains(entry.Type);
                DiskPartition found = Located(disk, entry, leadsOn ? extended.Offset : here, sectorSize, here);
                if (!leadsOn)
                {
                    partitions.Add(found);
                }
                else
                {
                    at ??= found.Offset;
                }
            }
        }
    }

    /// <summary>An entry that is used.</summary>
    /// <param name="Type">What it is for.</param>
    /// <param name="Start">Its first sector.</param>
    /// <param name="Count">How many it has.</param>
    private sealed record Entry(byte Type, uint Start, uint Count);
}
