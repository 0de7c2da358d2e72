using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Claims space ahead of its use.</summary>
/// <param name="disk">The image.</param>
/// <param name="node">Its face, which no request may be in flight on.</param>
internal sealed class Qcow2Preallocator(Qcow2Disk disk, Qcow2Node node)
{
    private const int ZeroBytes = 1 << 20; // written at once where every byte is to be written. Ours

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>How the host claims space: places without contents are holes.</summary>
    public static PreallocationMode HostMode(PreallocationMode mode) => mode == PreallocationMode.Metadata ? PreallocationMode.Off : mode;

    /// <summary>
    /// Reserves a host cluster for every guest cluster of a range in which nothing was ever written, and claims host space for it as the
    /// mode says. With subclusters a backing file goes on to show through; without, the range reads as zeroes.
    /// </summary>
    /// <param name="offset">Where the range begins.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="mode">How space is claimed; not off.</param>
    /// <param name="fresh">An external data file's space behind this is claimed, and reads as zeroes, already.</param>
    /// <param name="claimed">Told how many bytes are claimed.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask RunAsync(
        GuestOffset offset,
        GuestOffset end,
        PreallocationMode mode,
        long fresh,
        IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        if (!disk.IsExternal)
        {
            fresh = disk.File.Length;
        }
        if (!disk.IsExternal && offset.Value < end.Value)
        {
            long length = Round.Up(fresh, Geometry.ClusterSize) + HostBytesFor(offset, end);
            await disk.File.ResizeAsync(length, HostMode(mode), claimed, cancellationToken).ConfigureAwait(false);
        }
        await node.RunAloneAsync(
            () => GivePlacesAsync(offset, end, mode, fresh, cancellationToken), cancellationToken).ConfigureAwait(false);
        if (disk.Encryption is not null && offset.Value < end.Value)
        {
            // what is claimed holds noise
            await node.WriteZeroesAsync(
                offset.Value, end.Value - offset.Value, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
        }
        if (!disk.IsExternal)
        {
            await node.ChangeAloneAsync(held => disk.TrimAsync(held, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Most bytes that places for a range take, with their L2 tables and refcount blocks.</summary>
    private long HostBytesFor(GuestOffset offset, GuestOffset end)
    {
        long clusters = Geometry.Clusters(end.Value) - (offset.Value >> Geometry.ClusterBits);
        clusters += Geometry.L1EntriesFor(end.Value) - Geometry.L1Index(offset);
        clusters += (clusters >> Geometry.RefcountsPerBlockBits) + 2;
        return clusters << Geometry.ClusterBits;
    }

    private async ValueTask GivePlacesAsync(
        GuestOffset offset, GuestOffset end, PreallocationMode mode, long fresh, CancellationToken cancellationToken)
    {
        while (offset.Value < end.Value)
        {
            cancellationToken.ThrowIfCancellationRequested();
            WriteMapping mapping = await disk.Session.RunAsync(
                held => disk.Writer.EnsureMappedAsync(held, offset, end.Value - offset.Value), cancellationToken).ConfigureAwait(false);
            if (mapping.IsNew)
            {
                try
                {
                    await ClaimAsync(mapping, mode, fresh, cancellationToken).ConfigureAwait(false);
                }
                catch
                {
                    await disk.Session.RunAsync(
                        held => disk.Writer.AbandonAsync(held, mapping), CancellationToken.None).ConfigureAwait(false);
                    throw;
                }
                bool holdsData = disk.IsRawData || !Geometry.HasSubclusters;
                await disk.Session.RunAsync(
                    held => disk.Writer.PointToAsync(held, mapping, holdsData), CancellationToken.None).ConfigureAwait(false);
            }
            offset += mapping.Length;
        }
    }

    private async ValueTask ClaimAsync(WriteMapping mapping, PreallocationMode mode, long fresh, CancellationToken cancellationToken)
    {
        BlockNode data = disk.DataNode;
        long start = mapping.HostStart, end = start + (mapping.CopyEnd - mapping.CopyStart);
        long used = Math.Min(end, Math.Min(fresh, data.Length));
        byte[] zeroes = used > start && mode == PreallocationMode.Full ? new byte[Math.Min(used - start, ZeroBytes)] : [];
        for (long at = start; at < used && zeroes.Length > 0; at += zeroes.Length)
        {
            await data.WriteAsync(at, zeroes.AsMemory(0, (int)Math.Min(zeroes.Length, used - at)), cancellationToken).ConfigureAwait(false);
        }
        if (used > start && zeroes.Length == 0)
        {
            ZeroWriteMode how = mode == PreallocationMode.Metadata ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated;
            await data.WriteZeroesAsync(start, used - start, how, cancellationToken).ConfigureAwait(false);
        }
        if (end > data.Length && !disk.IsRawData) // a raw data file is as long as the disk
        {
            await data.ResizeAsync(end, HostMode(mode), cancellationToken).ConfigureAwait(false);
        }
    }
}
