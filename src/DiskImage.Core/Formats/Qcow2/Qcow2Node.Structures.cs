using System.Buffers;
using DiskImage.Binary;

namespace DiskImage.Formats.Qcow2;

/// <summary>Moving the structures that lie in one piece of several clusters, and the bits of bitmaps.</summary>
/// <remarks>Each is referred to by one field of eight bytes, or by the header, so one write switches to the copy.</remarks>
internal sealed partial class Qcow2Node
{
    /// <summary>A table that lies in one piece.</summary>
    /// <param name="Offset">Where it begins; a multiple of the cluster size.</param>
    /// <param name="Length">Its bytes.</param>
    /// <param name="SwitchAsync">Makes the image use a copy at another place, and waits until that is durable.</param>
    private sealed record Structure(long Offset, long Length, Func<long, ValueTask> SwitchAsync);

    private long EndOf(Structure structure) => _geometry.Clusters(structure.Offset + structure.Length);

    private async ValueTask<IReadOnlyList<Structure>> StructuresAsync(CancellationToken cancellationToken)
    {
        List<Structure> list =
        [
            new(_refcounts.TableOffset, (long)_refcounts.TableClusters << _geometry.ClusterBits, place =>
            {
                _refcounts.TableMoved(place);
                return UpdateHeaderAsync(_header);
            }),
            new(_l1.HostOffset, _l1.Count * 8L, place => SwitchL1Async(place, CopyOfL1(), _header.Size)),
            new(_header.SnapshotsOffset, _guard.SnapshotTable.Length, async place =>
            {
                await UpdateHeaderAsync(_header with { SnapshotsOffset = place }).ConfigureAwait(false);
                _guard.SnapshotTable = (place, _guard.SnapshotTable.Length);
            }),
        ];
        foreach (Qcow2Snapshot snapshot in await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false))
        {
            long within = snapshot.EntryOffset - _header.SnapshotsOffset; // the table may move first
            list.Add(new(snapshot.L1Offset, snapshot.L1Size * 8L, place =>
            {
                _guard.AddTables(place, snapshot.L1Size * 8L);
                return WriteFieldAsync(_header.SnapshotsOffset + within, (ulong)place);
            }));
        }
        long at = 0;
        foreach (Qcow2BitmapEntry bitmap in _bitmaps!.Select(b => b.Entry))
        {
            long within = at;
            list.Add(new(bitmap.TableOffset, bitmap.TableSize * 8L, place => WriteFieldAsync(_guard.BitmapDirectory.Offset + within, (ulong)place)));
            at += Round.Up(bitmap.Length, 8);
        }
        list.Add(new(_guard.BitmapDirectory.Offset, _guard.BitmapDirectory.Length, SwitchDirectoryAsync));
        return [.. list.Where(s => s.Length > 0)];
    }

    /// <summary>Moves the bits of bitmaps, and then every structure that ends behind the limit to the lowest place that holds it in one piece.</summary>
    private async ValueTask MoveStructuresAsync(long limit, IReadOnlyList<Structure> structures, CancellationToken cancellationToken)
    {
        try
        {
            foreach (Qcow2BitmapEntry bitmap in _bitmaps!.Select(b => b.Entry))
            {
                await MoveBitsAsync(bitmap, limit, cancellationToken).ConfigureAwait(false);
            }
            foreach (Structure structure in structures.Where(s => EndOf(s) > limit).OrderBy(s => s.Offset))
            {
                await MoveStructureAsync(structure, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            await LoadBitmapsAsync(CancellationToken.None).ConfigureAwait(false); // their tables may be elsewhere
        }
    }

    private async ValueTask MoveStructureAsync(Structure structure, CancellationToken cancellationToken)
    {
        long length = _geometry.Clusters(structure.Length) << _geometry.ClusterBits;
        long place = await _refcounts.AllocateRunBelowAsync(length >> _geometry.ClusterBits, structure.Offset >> _geometry.ClusterBits).ConfigureAwait(false);
        if (place == 0)
        {
            return;
        }
        try
        {
            await RequireNotMetadataAsync(place, length).ConfigureAwait(false);
            await _order.FlushAsync(cancellationToken).ConfigureAwait(false); // it may have been changed by taking the place
            await CopyStructureAsync(structure.Offset, place, length, cancellationToken).ConfigureAwait(false);
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await TakeBackAsync(place, length, 1).ConfigureAwait(false);
            throw;
        }
        await structure.SwitchAsync(place).ConfigureAwait(false);
        _refcounts.FreeAfterFlush(structure.Offset, structure.Length);
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask CopyStructureAsync(long from, long to, long length, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(length, CopyBytes));
        try
        {
            for (long done = 0; done < length;)
            {
                Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(length - done, CopyBytes));
                await File.ReadPaddedAsync(from + done, part, cancellationToken).ConfigureAwait(false);
                await File.WriteAsync(to + done, part, cancellationToken).ConfigureAwait(false);
                done += part.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Moves the clusters of bits that one bitmap table points to.</summary>
    private async ValueTask MoveBitsAsync(Qcow2BitmapEntry bitmap, long limit, CancellationToken cancellationToken)
    {
        byte[] table = new byte[bitmap.TableSize * 8]; // bounded when the directory was read
        await File.ReadPaddedAsync(bitmap.TableOffset, table, cancellationToken).ConfigureAwait(false);
        var moved = new List<(long From, long To)>();
        byte[] buffer = new byte[_geometry.ClusterSize];
        int first = table.Length, end = 0;
        try
        {
            for (int at = 0; at < table.Length; at += 8)
            {
                long from = L2Entry.OffsetOf(BigEndian.U64(table, at));
                if (from >> _geometry.ClusterBits < limit)
                {
                    continue;
                }
                (long place, int count) = await _refcounts.AllocateBelowAsync(1, limit).ConfigureAwait(false);
                if (count == 0)
                {
                    break;
                }
                moved.Add((from, place));
                await RequireNotMetadataAsync(place, buffer.Length).ConfigureAwait(false);
                await File.ReadPaddedAsync(from, buffer, cancellationToken).ConfigureAwait(false);
                await File.WriteAsync(place, buffer, cancellationToken).ConfigureAwait(false);
                BigEndian.U64(table, at, (ulong)place);
                (first, end) = (Math.Min(first, at), at + 8);
            }
            _order.DataWritten();
            await _order.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            foreach ((_, long place) in moved)
            {
                await TakeBackAsync(place, _geometry.ClusterSize, 1).ConfigureAwait(false);
            }
            throw;
        }
        if (first < end)
        {
            await File.WriteAsync(bitmap.TableOffset + first, table.AsMemory(first..end), CancellationToken.None).ConfigureAwait(false);
            moved.ForEach(m => _refcounts.FreeAfterFlush(m.From, _geometry.ClusterSize));
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    private async ValueTask SwitchDirectoryAsync(long place)
    {
        long length = _guard.BitmapDirectory.Length;
        Qcow2Extension extension = Qcow2BitmapDirectory.ToExtension(_bitmaps!.Count, place, length);
        await SwitchHeaderAsync(_header with { Extensions = [.. _header.Extensions.Select(e => e.Type == Qcow2Extension.Bitmaps ? extension : e)] }).ConfigureAwait(false);
        _guard.BitmapDirectory = (place, length);
    }

    /// <summary>Writes one field of a table, which no cache holds, and waits until it is durable.</summary>
    private async ValueTask WriteFieldAsync(long offset, ulong value)
    {
        byte[] field = new byte[8];
        BigEndian.U64(field, 0, value);
        await File.WriteAsync(offset, field).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
    }
}
