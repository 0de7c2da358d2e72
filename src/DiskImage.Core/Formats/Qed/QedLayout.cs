using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qed;

/// <summary>
/// Where tables and clusters lie. An L2 table is a stored block like any other, with the index -1 - (its number in the L1 table); a data
/// cluster has its number on the disk.
/// </summary>
/// <remarks>
/// The file is read as it is, so nothing may be waiting to be written. A table that lies on one that was seen before is not looked into:
/// the work follows the file, not what its tables claim.
/// </remarks>
internal sealed class QedLayout(BlockNode file, QedTables tables) : IBlockLayout
{
    private const int ReadBytes = 1 << 20;
    private const ulong Far = 1UL << 62; // places beyond are all the same: not in any file

    private QedHeader Header => tables.Header;

    public BlockNode File => file;

    public IReadOnlyList<FileRange> Structures =>
    [
        new(0, Header.HeaderEnd, "the header"),
        new(Header.L1Offset, Header.L1Offset + Header.TableBytes, "the L1 table"),
    ];

    public long Limit => file.Length;

    public long BlockBytes => Header.ClusterSize;

    public long Alignment => Header.ClusterSize;

    /// <summary>True for the index of an L2 table.</summary>
    public static bool IsTable(long index) => index < 0;

    /// <summary>The index of an L2 table.</summary>
    public static long TableIndex(int l1Index) => -1L - l1Index;

    /// <summary>The number in the L1 table of a table's index.</summary>
    public static int L1Index(long index) => (int)(-1 - index);

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
        => WalkAsync(
            (index, entry, length) =>
            {
                if (entry % (ulong)Header.ClusterSize == 0)
                {
                    each(new((long)Math.Min(entry, Far), length, index));
                }
            },
            cancellationToken);

    /// <summary>Gives every entry that says it is a place: the index, the entry, the bytes that lie there.</summary>
    public async ValueTask WalkAsync(Action<long, ulong, long> each, CancellationToken cancellationToken)
    {
        var seen = new HashSet<long>(); // clusters that hold tables
        byte[] buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(ReadBytes, Header.TableBytes));
        try
        {
            foreach ((int l1Index, QedEntry table) in tables.L1.Used())
            {
                cancellationToken.ThrowIfCancellationRequested();
                each(TableIndex(l1Index), table.Value, Header.TableBytes);
                if (tables.IsPlace(table.Value, Header.TableBytes) && IsNew(seen, (long)table.Value))
                {
                    await WalkTableAsync(
                        (long)table.Value, (long)l1Index * Header.TableEntries, buffer, each, cancellationToken).ConfigureAwait(false);
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public (long Offset, long Length) GuestRange(long index)
    {
        long offset = IsTable(index) ? L1Index(index) * Header.Span : index * Header.ClusterSize;
        return (offset, Math.Clamp(Header.ImageSize - offset, 0, IsTable(index) ? Header.Span : Header.ClusterSize));
    }

    public string NameOf(long index) => IsTable(index) ? $"L2 table {L1Index(index):#,0}" : $"cluster {index:#,0}";

    public async ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        if (IsTable(index))
        {
            tables.MoveTable(held, L1Index(index), place);
        }
        else
        {
            await tables.SetAsync(held, index, (ulong)place).ConfigureAwait(false);
        }
    }

    public async ValueTask DropAsync(MetadataSession.Held held, long index)
    {
        if (IsTable(index))
        {
            tables.L1.Set(held, L1Index(index), default);
        }
        else
        {
            await tables.SetAsync(held, index, QedTables.Nowhere).ConfigureAwait(false);
        }
    }

    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(limit);

    private bool IsNew(HashSet<long> seen, long table)
    {
        long first = table / Header.ClusterSize;
        for (long cluster = first; cluster < first + Header.TableSize; cluster++)
        {
            if (seen.Contains(cluster))
            {
                return false;
            }
        }
        for (long cluster = first; cluster < first + Header.TableSize; cluster++)
        {
            _ = seen.Add(cluster);
        }
        return true;
    }

    private async ValueTask WalkTableAsync(
        long place, long firstCluster, byte[] buffer, Action<long, ulong, long> each, CancellationToken cancellationToken)
    {
        for (long done = 0; done < Header.TableBytes;)
        {
            BlockExtent extent = await file.GetExtentAsync(place + done, Header.TableBytes - done, cancellationToken).ConfigureAwait(false);
            long count = extent.Length;
            if (!extent.IsZero)
            {
                count = Math.Min(count, Math.Min(ReadBytes, Header.TableBytes));
                count = count < QedHeader.EntryBytes ? QedHeader.EntryBytes : Round.Down(count, QedHeader.EntryBytes);
                await file.ReadAsync(place + done, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                Entries(buffer.AsSpan(0, (int)count), firstCluster + (done / QedHeader.EntryBytes), each);
            }
            else
            {
                count = Math.Max(QedHeader.EntryBytes, Round.Down(count, QedHeader.EntryBytes));
            }
            done += count;
        }
    }

    private void Entries(ReadOnlySpan<byte> bytes, long cluster, Action<long, ulong, long> each)
    {
        for (int at = 0; ;)
        {
            int next = bytes[at..].IndexOfAnyExcept((byte)0);
            if (next < 0)
            {
                return;
            }
            at = (int)Round.Down(at + next, QedHeader.EntryBytes);
            ulong entry = LittleEndian.U64(bytes, at);
            if (entry != QedTables.Zero)
            {
                each(cluster + (at / QedHeader.EntryBytes), entry, Header.ClusterSize);
            }
            at += QedHeader.EntryBytes;
        }
    }
}
