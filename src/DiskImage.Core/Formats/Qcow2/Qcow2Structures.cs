using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The structures of an image that lie in one piece of several clusters, and the bits of bitmaps: moving them down.</summary>
/// <remarks>
/// Each is referred to by one field of eight bytes, or by the header, so one write switches to the copy. Limits are in clusters.
/// </remarks>
internal sealed class Qcow2Structures
{
    private readonly Qcow2Disk _disk;
    private readonly MetadataSession.Held _held;
    private readonly List<Structure> _all = [];

    private Qcow2Structures(Qcow2Disk disk, MetadataSession.Held held) => (_disk, _held) = (disk, held);

    private Qcow2Geometry Geometry => _disk.Geometry;

    private Qcow2Refcounts Refcounts => _disk.Refcounts;

    /// <summary>Those of an image as it is now.</summary>
    public static async ValueTask<Qcow2Structures> FindAsync(Qcow2Disk disk, MetadataSession.Held held, CancellationToken cancellationToken)
    {
        var structures = new Qcow2Structures(disk, held);
        structures.AddTables();
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(
            disk.File, disk.Header, cancellationToken).ConfigureAwait(false);
        structures.AddSnapshots(snapshots);
        structures.AddBitmaps();
        return structures;
    }

    /// <summary>Clusters of those that end behind a limit that comes down with each of them, the last in the file first.</summary>
    public long ClustersBehind(long limit)
    {
        long start = limit;
        foreach (Structure structure in _all.OrderByDescending(s => s.Place.Value))
        {
            limit -= EndOf(structure) > limit ? Geometry.Clusters(structure.Length) : 0;
        }
        return start - limit;
    }

    /// <summary>
    /// Moves the bits of bitmaps, and then every structure that ends behind the limit to the lowest place that holds it in one piece.
    /// </summary>
    public async ValueTask MoveAsync(long limit, CancellationToken cancellationToken)
    {
        try
        {
            foreach (Qcow2BitmapEntry bitmap in _disk.Bitmaps.All!.Select(b => b.Entry))
            {
                await MoveBitsAsync(bitmap, limit, cancellationToken).ConfigureAwait(false);
            }
            foreach (Structure structure in _all.Where(s => EndOf(s) > limit).OrderBy(s => s.Place.Value))
            {
                await MoveAsync(structure, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            await _disk.Bitmaps.LoadAsync(_held, CancellationToken.None).ConfigureAwait(false); // their tables may be elsewhere
        }
    }

    private void AddTables()
    {
        var l1Tables = new Qcow2L1Tables(_disk);
        Add(Refcounts.TablePlace, (long)Refcounts.TableClusters << Geometry.ClusterBits, place =>
        {
            Refcounts.ReplaceTable(_held, place, Refcounts.Table.Bytes.ToArray());
            return _disk.UpdateHeaderAsync(_held, _disk.Header);
        });
        Add(
            _disk.Tables.L1Place,
            _disk.Tables.L1.Count * 8L,
            place => l1Tables.SwitchAsync(_held, place, l1Tables.CopyOfActive(), _disk.Header.Size));
    }

    private void AddSnapshots(IReadOnlyList<Qcow2Snapshot> snapshots)
    {
        Add(new(_disk.Header.SnapshotsOffset), _disk.Guard.SnapshotTable.Length, async place =>
        {
            await _disk.UpdateHeaderAsync(_held, _disk.Header with { SnapshotsOffset = place.Value }).ConfigureAwait(false);
            _disk.Guard.SnapshotTable = (place, _disk.Guard.SnapshotTable.Length);
        });
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            long within = snapshot.EntryOffset - _disk.Header.SnapshotsOffset, length = snapshot.L1Size * 8L; // the table may move first
            Add(new(snapshot.L1Offset), length, place =>
            {
                _disk.Guard.AddTables(place, length);
                return WriteFieldAsync(_disk.Header.SnapshotsOffset + within, place);
            });
        }
    }

    private void AddBitmaps()
    {
        long at = 0;
        foreach (Qcow2BitmapEntry bitmap in _disk.Bitmaps.All!.Select(b => b.Entry))
        {
            long within = at;
            Add(
                new(bitmap.TableOffset),
                bitmap.TableSize * 8L,
                place => WriteFieldAsync(_disk.Guard.BitmapDirectory.Place.Value + within, place));
            at += Round.Up(bitmap.Length, 8);
        }
        (HostOffset directory, long directoryLength) = _disk.Guard.BitmapDirectory;
        Add(directory, directoryLength, place => _disk.Bitmaps.MoveDirectoryAsync(_held, place));
    }

    private void Add(HostOffset place, long length, Func<HostOffset, ValueTask> switchAsync)
    {
        if (length > 0)
        {
            _all.Add(new(place, length, switchAsync));
        }
    }

    private long EndOf(Structure structure) => Geometry.Clusters((structure.Place + structure.Length).Value);

    private async ValueTask MoveAsync(Structure structure, CancellationToken cancellationToken)
    {
        long clusters = Geometry.Clusters(structure.Length), length = clusters << Geometry.ClusterBits;
        long limit = Geometry.ClusterOf(structure.Place);
        if (await _disk.Allocator.AllocateRunBelowAsync(_held, clusters, limit).ConfigureAwait(false) is not { } place)
        {
            return;
        }
        try
        {
            await _disk.RequireNotMetadataAsync(_held, place, length).ConfigureAwait(false);
            await _disk.Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false); // it may have been changed by taking the place
            await StoredBytes.CopyAsync(_disk.File, structure.Place.Value, place.Value, length, cancellationToken).ConfigureAwait(false);
            await _disk.File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Refcounts.AddAsync(_held, place, length, -1).ConfigureAwait(false);
            throw;
        }
        await structure.SwitchAsync(place).ConfigureAwait(false);
        Refcounts.FreeAfterFlush(_held, structure.Place, structure.Length);
        await _disk.FlushAsync(_held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Moves the clusters of bits that one bitmap table points to.</summary>
    private async ValueTask MoveBitsAsync(Qcow2BitmapEntry bitmap, long limit, CancellationToken cancellationToken)
    {
        byte[] table = new byte[bitmap.TableSize * 8]; // bounded when the directory was read
        await _disk.File.ReadPaddedAsync(bitmap.TableOffset, table, cancellationToken).ConfigureAwait(false);
        var moved = new List<(HostOffset From, HostOffset To)>();
        byte[] buffer = new byte[Geometry.ClusterSize];
        int first = table.Length, end = 0;
        try
        {
            for (int at = 0; at < table.Length; at += 8)
            {
                var from = new HostOffset(L2Entry.OffsetOf(BigEndian.U64(table, at)));
                if (Geometry.ClusterOf(from) < limit)
                {
                    continue;
                }
                (HostOffset place, int count) = await _disk.Allocator.AllocateBelowAsync(_held, 1, limit).ConfigureAwait(false);
                if (count == 0)
                {
                    break;
                }
                moved.Add((from, place));
                await _disk.RequireNotMetadataAsync(_held, place, buffer.Length).ConfigureAwait(false);
                await _disk.File.ReadPaddedAsync(from.Value, buffer, cancellationToken).ConfigureAwait(false);
                await _disk.File.WriteAsync(place.Value, buffer, cancellationToken).ConfigureAwait(false);
                BigEndian.U64(table, at, (ulong)place.Value);
                (first, end) = (Math.Min(first, at), at + 8);
            }
            _disk.Session.Order.DataWritten();
            await _disk.Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            foreach ((_, HostOffset place) in moved)
            {
                await Refcounts.AddAsync(_held, place, Geometry.ClusterSize, -1).ConfigureAwait(false);
            }
            throw;
        }
        if (first < end)
        {
            await _disk.File.WriteAsync(
                bitmap.TableOffset + first, table.AsMemory(first..end), CancellationToken.None).ConfigureAwait(false);
            moved.ForEach(m => Refcounts.FreeAfterFlush(_held, m.From, Geometry.ClusterSize));
            await _disk.FlushAsync(_held, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Writes one field of a table, which no cache holds, and waits until it is durable.</summary>
    private async ValueTask WriteFieldAsync(long offset, HostOffset value)
    {
        byte[] field = new byte[8];
        BigEndian.U64(field, 0, (ulong)value.Value);
        await _disk.File.WriteAsync(offset, field).ConfigureAwait(false);
        await _disk.File.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>A table that lies in one piece.</summary>
    /// <param name="Place">Where it begins; the start of a cluster.</param>
    /// <param name="Length">Its bytes.</param>
    /// <param name="SwitchAsync">Makes the image use a copy at another place, and waits until that is durable.</param>
    private sealed record Structure(HostOffset Place, long Length, Func<HostOffset, ValueTask> SwitchAsync);
}
