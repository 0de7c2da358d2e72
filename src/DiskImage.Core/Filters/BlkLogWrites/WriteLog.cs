using System.Runtime.CompilerServices;
using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Filters.BlkLogWrites;

/// <summary>What an entry of a write log says; a write if nothing is said.</summary>
[Flags]
internal enum WriteLogFlags
{
    /// <summary>A write of data.</summary>
    None = 0,

    /// <summary>All before it is durable.</summary>
    Flush = 1,

    /// <summary>It is durable itself.</summary>
    Durable = 2,

    /// <summary>The range holds nothing any more.</summary>
    Discard = 4,

    /// <summary>A name for this moment.</summary>
    Mark = 8,

    /// <summary>The data is a file system's own.</summary>
    Metadata = 16,
}

/// <summary>An entry of a write log.</summary>
/// <param name="Number">1 for the first.</param>
/// <param name="Offset">Bytes, on the disk.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Flags">What it is.</param>
/// <param name="Mark">The name of the moment, of a mark; null for others.</param>
/// <param name="DataAt">Where its data is in the log.</param>
internal readonly record struct WriteLogEntry(
    long Number, long Offset, long Length, WriteLogFlags Flags, string? Mark, long DataAt)
{
    /// <summary>Data of its length follows it in the log.</summary>
    public bool HasData => (Flags & (WriteLogFlags.Discard | WriteLogFlags.Mark)) == WriteLogFlags.None && Length > 0;

    /// <summary>Offset in the log of what comes after it.</summary>
    public long End => DataAt + (HasData ? Length : 0);
}

/// <summary>Up to where a log was replayed.</summary>
/// <param name="Entries">Entries that were replayed.</param>
/// <param name="Bytes">Bytes that were written, zeroes of discards among them.</param>
/// <param name="Mark">The last mark that was passed; null for none.</param>
internal readonly record struct WriteLogReplay(long Entries, long Bytes, string? Mark);

/// <summary>
/// A log of writes in the form of Linux's dm-log-writes, to be read: its entries, and the disk as it was after any of them.
/// </summary>
/// <remarks>
/// The first sector of the log is the superblock: magic, version 1, number of entries, sector size (64, 64, 64 and 32 bits, little endian).
/// Each entry is a sector: first sector and number of sectors on the disk, flags, and bytes of a mark's name (64 bits each), then that
/// name. The data of a write follows in whole sectors; a flush, a discard and a mark have none. Source: Linux,
/// Documentation/admin-guide/device-mapper/log-writes.rst, and the structures of drivers/md/dm-log-writes.c. Nothing in the log is trusted:
/// an entry that reaches outside the log ends the reading with its number and offset.
/// </remarks>
internal sealed class WriteLog
{
    internal const ulong Magic = 0x6A736677736872, Version = 1;
    internal const int LargestSector = 1 << 20; // QEMU's is 8 MiB; a header has a sector. Ours
    private const int SmallestSector = 512, HeaderBytes = 32, LongestMark = SmallestSector - HeaderBytes;
    private const int Piece = 1 << 20;

    private readonly BlockNode _log;

    private WriteLog(BlockNode log, int sector, long entries) => (_log, SectorSize, Entries) = (log, sector, entries);

    /// <summary>Entries that the log counts.</summary>
    public long Entries { get; }

    /// <summary>Bytes of its sectors.</summary>
    public int SectorSize { get; }

    /// <summary>Reads the superblock. The node stays its owner's.</summary>
    /// <exception cref="DiskImageException">InvalidFormat: it is no log. Unsupported: one of another version or unit.</exception>
    public static async ValueTask<WriteLog> OpenAsync(BlockNode log, CancellationToken cancellationToken)
    {
        byte[] block = new byte[HeaderBytes];
        await log.ReadPaddedAsync(0, block, cancellationToken).ConfigureAwait(false);
        ulong magic = LittleEndian.U64(block, 0), version = LittleEndian.U64(block, 8), entries = LittleEndian.U64(block, 16);
        uint sector = LittleEndian.U32(block, 24);
        if (magic != Magic)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{log.Name}: is no log of writes: its first bytes are 0x{magic:x}, and those of a log of dm-log-writes 0x{Magic:x}",
                log.Name,
                0);
        }
        if (version != Version || sector is < SmallestSector or > LargestSector || !uint.IsPow2(sector))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{log.Name}: the log of writes has version {version} and sectors of {sector:#,0} bytes; known are version {Version} and "
                    + $"powers of two from {SmallestSector:#,0} to {LargestSector:#,0}",
                log.Name,
                8);
        }
        return entries <= (ulong)(log.Length / sector)
            ? new WriteLog(log, (int)sector, (long)entries)
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{log.Name}: the log of writes counts {entries:#,0} entries, more than its {log.Length:#,0} bytes hold",
                log.Name,
                16);
    }

    /// <summary>The entries, in their order.</summary>
    /// <exception cref="DiskImageException">Corrupt: an entry that reaches outside the log, or outside any disk.</exception>
    public async IAsyncEnumerable<WriteLogEntry> ReadAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        byte[] header = new byte[SmallestSector];
        long at = SectorSize;
        for (long number = 1; number <= Entries; number++)
        {
            if (at > _log.Length - SectorSize)
            {
                throw Bad(number, at, "begins past its end");
            }
            await _log.ReadAsync(at, header, cancellationToken).ConfigureAwait(false);
            ulong first = LittleEndian.U64(header, 0), count = LittleEndian.U64(header, 8), named = LittleEndian.U64(header, 24);
            var flags = (WriteLogFlags)(LittleEndian.U64(header, 16) & 0x1F);
            ulong most = (ulong)(long.MaxValue / SectorSize);
            if (first > most || count > most - first)
            {
                throw Bad(number, at, $"is of {count:#,0} sectors from {first:#,0} on, which no disk has");
            }
            bool isMark = flags.HasFlag(WriteLogFlags.Mark);
            if (isMark && named > LongestMark)
            {
                throw Bad(number, at, $"is a mark with a name of {named:#,0} bytes; at most {LongestMark} are allowed");
            }
            var entry = new WriteLogEntry(
                number,
                (long)first * SectorSize,
                (long)count * SectorSize,
                flags,
                isMark ? Encoding.UTF8.GetString(header, HeaderBytes, (int)named) : null,
                at + SectorSize);
            if (entry.HasData && entry.Length > _log.Length - entry.DataAt)
            {
                throw Bad(number, at, $"has {entry.Length:#,0} bytes of data, which reach past its end");
            }
            at = entry.End;
            yield return entry;
        }
    }

    /// <summary>
    /// Does to a disk what the log says, from its beginning up to an entry or a mark. A discard becomes zeroes, so that the same log always
    /// makes the same disk. Nothing is flushed.
    /// </summary>
    /// <param name="disk">The disk as it was when the log began.</param>
    /// <param name="entries">How many entries are done; null for all.</param>
    /// <param name="mark">The mark to end with, its first; null for none.</param>
    /// <param name="cancellationToken">Stops between two pieces.</param>
    /// <exception cref="DiskImageException">NotFound: there is no such mark. OutOfRange: the disk is too short. Corrupt.</exception>
    public async ValueTask<WriteLogReplay> ReplayAsync(BlockNode disk, long? entries, string? mark, CancellationToken cancellationToken)
    {
        byte[] piece = new byte[Math.Max(Piece, SectorSize)];
        var done = new WriteLogReplay(0, 0, null);
        await foreach (WriteLogEntry entry in ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            if (entry.Number > (entries ?? Entries))
            {
                break;
            }
            long length = disk.GrowsOnWrite ? entry.Length : Math.Min(entry.Length, Math.Max(0, disk.Length - entry.Offset));
            if (entry.Length - length >= SectorSize) // less is the rest of the disk's last sector
            {
                throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange,
                    $"{_log.Name}: entry {entry.Number:#,0} changes {entry.Length:#,0} bytes at offset {entry.Offset:#,0}, and {disk.Name} "
                        + $"has {disk.Length:#,0} bytes. Replay it on a disk of the length that the log was made with",
                    disk.Name,
                    entry.Offset);
            }
            for (long at = 0; entry.HasData && at < length; at += piece.Length)
            {
                Memory<byte> part = piece.AsMemory(0, (int)Math.Min(piece.Length, length - at));
                await _log.ReadAsync(entry.DataAt + at, part, cancellationToken).ConfigureAwait(false);
                await disk.WriteAsync(entry.Offset + at, part, cancellationToken).ConfigureAwait(false);
            }
            if (entry.Flags.HasFlag(WriteLogFlags.Discard) && length > 0)
            {
                await disk.WriteZeroesAsync(entry.Offset, length, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            }
            done = new WriteLogReplay(entry.Number, done.Bytes + length, entry.Mark ?? done.Mark);
            if (mark is not null && mark.Equals(entry.Mark, StringComparison.Ordinal))
            {
                return done;
            }
        }
        return mark is null || entries is not null
            ? done
            : throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"{_log.Name}: none of the {Entries:#,0} entries of the log is the mark '{mark}'", _log.Name);
    }

    private DiskImageException Bad(long number, long offset, string what) => new(
        DiskImageErrorKind.Corrupt,
        $"{_log.Name}: entry {number:#,0} of {Entries:#,0} of the log of writes, at offset {offset:#,0}, {what}. The entries before it can "
            + "be replayed",
        _log.Name,
        offset);
}
