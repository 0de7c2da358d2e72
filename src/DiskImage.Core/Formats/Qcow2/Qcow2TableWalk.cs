using System.Runtime.CompilerServices;
using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The L2 tables of the disk and of all its snapshots, each once.</summary>
internal sealed class Qcow2TableWalk(Qcow2Disk disk, MetadataSession.Held held)
{
    private const int BatchEntryBytes = 64; // about what a reference, or a table's place, takes in memory

    /// <summary>References, or tables, that are kept in memory together: as many as the L2 cache has room for.</summary>
    public int MaxBatch => (int)Math.Clamp(disk.Tables.L2.MaxBytes / BatchEntryBytes, 1, 1 << 24);

    public async ValueTask<long> CountAsync(CancellationToken cancellationToken)
    {
        long count = 0;
        await foreach (var _ in TablesAsync(cancellationToken).ConfigureAwait(false))
        {
            count++;
        }
        return count;
    }

    /// <summary>Every L2 table of the disk and its snapshots once, with how many L1 entries lead to it.</summary>
    public async IAsyncEnumerable<(HostOffset Table, ulong References)> TablesAsync(
        [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var shared = new HashSet<HostOffset>();
        foreach (Qcow2Snapshot? snapshot in (Qcow2Snapshot?[])[null, .. await SnapshotsAsync(cancellationToken).ConfigureAwait(false)])
        {
            byte[] l1 = snapshot is null
                ? disk.Tables.L1.Bytes.ToArray()
                : await ReadL1Async(snapshot, cancellationToken).ConfigureAwait(false);
            for (int at = 0; at < l1.Length; at += 8)
            {
                var table = new HostOffset(L2Entry.OffsetOf(BigEndian.U64(l1, at)));
                if (table.Value == 0)
                {
                    continue;
                }
                cancellationToken.ThrowIfCancellationRequested();
                ulong references = await disk.Refcounts.GetAsync(table, cancellationToken).ConfigureAwait(false);
                if (references == 1 || (references > 1 && shared.Add(table))) // 0: given up meanwhile
                {
                    yield return (table, references);
                }
            }
        }
    }

    /// <summary>
    /// Puts other places of L2 tables, or 0 for none, into all L1 tables. What they lead to must be durable. Afterwards the entries of
    /// snapshots are durable; those of the disk are with the next flush. Not to be stopped half way: that would leak.
    /// </summary>
    public async ValueTask ReplaceAsync(Func<HostOffset, HostOffset> placeOf)
    {
        disk.Session.Require(held);
        PointerTable active = disk.Tables.L1;
        for (int i = active.NextUsed(0); i < active.Count; i = active.NextUsed(i + 1))
        {
            if (Replaced(active[i]) is { } entry)
            {
                active[i] = entry;
            }
        }
        foreach (Qcow2Snapshot snapshot in await SnapshotsAsync(CancellationToken.None).ConfigureAwait(false))
        {
            byte[] l1 = await ReadL1Async(snapshot, CancellationToken.None).ConfigureAwait(false);
            int first = l1.Length, end = 0;
            for (int at = 0; at < l1.Length; at += 8)
            {
                if (Replaced(BigEndian.U64(l1, at)) is { } entry)
                {
                    BigEndian.U64(l1, at, entry);
                    (first, end) = (Math.Min(first, at), at + 8);
                }
            }
            if (first < end)
            {
                await disk.File.WriteAsync(
                    snapshot.L1Offset + first, l1.AsMemory(first..end), CancellationToken.None).ConfigureAwait(false);
            }
        }
        await disk.File.FlushAsync(CancellationToken.None).ConfigureAwait(false);

        ulong? Replaced(ulong raw)
        {
            var table = new HostOffset(L2Entry.OffsetOf(raw));
            HostOffset place = table.Value == 0 ? default : placeOf(table);
            return place == table ? null : place.Value == 0 ? 0 : (raw & L2Entry.Copied(default)) | (ulong)place.Value;
        }
    }

    private ValueTask<IReadOnlyList<Qcow2Snapshot>> SnapshotsAsync(CancellationToken cancellationToken)
        => Qcow2Snapshot.ReadAllAsync(disk.File, disk.Header, cancellationToken);

    private async ValueTask<byte[]> ReadL1Async(Qcow2Snapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] l1 = new byte[snapshot.L1Size * 8];
        await disk.File.ReadAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
        return l1;
    }
}
