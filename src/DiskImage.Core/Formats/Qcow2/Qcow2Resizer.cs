using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changes the disk's size.</summary>
/// <remarks>
/// Growing. The host space that is to be claimed is claimed first, so that a full disk is found before anything changes; then the L1 table;
/// then what lies past the old end is made to read as zeroes and gets its places; the size in the header comes last. Until then the image
/// has its old size, also after a crash, and a failure cuts everything behind it off again. Shrinking: the size first, then what lies past
/// it goes.
/// </remarks>
/// <param name="disk">The image.</param>
/// <param name="node">Its face: what a guest would write is written there.</param>
internal sealed class Qcow2Resizer(Qcow2Disk disk, Qcow2Node node)
{
    private const int Sector = 512;

    private readonly Qcow2L1Tables _l1Tables = new(disk);
    private readonly Qcow2Bitmaps _bitmaps = new(disk);

    private Qcow2Geometry Geometry => disk.Geometry;

    private string Name => disk.Name;

    /// <summary>
    /// Resizes the disk and its bitmaps, which cover only what it has both before and after: what a resize zeroes is no change, as in QEMU.
    /// </summary>
    public async ValueTask RunAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        RequirePossible(length);
        if (disk.Bitmaps.All is not { Count: > 0 } || length == disk.Length)
        {
            await ResizeAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            return;
        }
        await node.ChangeAloneAsync(held => _bitmaps.BeginResizeAsync(held, length), cancellationToken).ConfigureAwait(false);
        bool isDone = false;
        try
        {
            await ResizeAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            isDone = true;
        }
        finally
        {
            await node.ChangeAloneAsync(
                held => _bitmaps.EndResizeAsync(held, length, isDone), CancellationToken.None).ConfigureAwait(false);
        }
    }

    private void RequirePossible(long length)
    {
        if (length % Sector != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: a size of {length:#,0} bytes is not possible; allowed:"
                    + $" multiples of {Sector}", Name);
        }
        if (disk.Header.SnapshotCount > 0 && disk.Header.Version < 3)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: a version 2 image with snapshots cannot be resized: they do not record their size. Make it version 3 first,"
                    + $" or remove the snapshots.",
                Name);
        }
        if (Geometry.L1EntriesFor(length) * 8 > Qcow2Header.MaxL1Bytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: a size of {length:#,0} bytes is too large; allowed with clusters of {Geometry.ClusterSize:#,0}:"
                    + $" at most {Qcow2Header.MaxL1Bytes / 8 * Geometry.L2Span:#,0}",
                Name);
        }
    }

    private ValueTask ResizeAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => length < disk.Length
            ? ShrinkAsync(length, preallocation, cancellationToken)
            : GrowAsync(length, preallocation, claimed, cancellationToken);

    private async ValueTask GrowAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long old = disk.Length, dataLength = disk.DataNode.Length;
        if (length == old)
        {
            return;
        }
        await node.ChangeAloneAsync(
            held => _l1Tables.GrowAsync(held, (int)Geometry.L1EntriesFor(length), cancellationToken),
            cancellationToken).ConfigureAwait(false);
        disk.GrownTo = length;
        try
        {
            if (disk.IsExternal && dataLength < length)
            {
                PreallocationMode mode = Qcow2Preallocator.HostMode(preallocation);
                await disk.DataNode.ResizeAsync(length, mode, claimed, cancellationToken).ConfigureAwait(false);
            }
            await HideOldBytesAsync(old, length, cancellationToken).ConfigureAwait(false);
            if (disk.IsRawData && preallocation == PreallocationMode.Off)
            {
                preallocation = PreallocationMode.Metadata; // its tables are complete
            }
            if (preallocation != PreallocationMode.Off)
            {
                await StoreLastClusterAsync(old, length, cancellationToken).ConfigureAwait(false);
                var start = new GuestOffset(Round.Up(old, Geometry.ClusterSize));
                await new Qcow2Preallocator(disk, node).RunAsync(
                    start, new(length), preallocation, dataLength, claimed, cancellationToken).ConfigureAwait(false);
            }
            await node.ChangeAloneAsync(
                async held =>
                {
                    await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                    await disk.UpdateHeaderAsync(held, disk.Header with { Size = length }).ConfigureAwait(false);
                },
                cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await UndoGrowthAsync(old, disk.IsExternal ? dataLength : long.MaxValue).ConfigureAwait(false);
            throw;
        }
        finally
        {
            disk.GrownTo = 0;
        }
    }

    /// <summary>
    /// Makes what a disk gains read as zeroes: neither a backing file that is longer than it was may show through, nor what another program
    /// left behind its end, in the last cluster or in tables.
    /// </summary>
    private async ValueTask HideOldBytesAsync(long old, long length, CancellationToken cancellationToken)
    {
        bool hasBacking = disk.Header.BackingFile is not null;
        long shown = !hasBacking ? old : disk.Backing is null ? length : Math.Clamp(disk.Backing.Length, old, length);
        shown = Math.Max(shown, Math.Min(length, Round.Up(old, Geometry.ClusterSize)));
        if (shown > old)
        {
            bool isUnseen = hasBacking && disk.Backing is null; // then what reads as zeroes now need not when it is there
            ZeroWriteMode mode = isUnseen ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap;
            await node.WriteZeroesAsync(old, shown - old, mode, cancellationToken).ConfigureAwait(false);
        }
        await node.RunAloneAsync(
            () => disk.Eraser.DropAsync(new(Round.Up(shown, Geometry.ClusterSize)), new(length)), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Has the cluster that the old end lies in stored, so that it, too, has a place.</summary>
    private async ValueTask StoreLastClusterAsync(long old, long length, CancellationToken cancellationToken)
    {
        int gained = (int)(Math.Min(length, Round.Up(old, Geometry.ClusterSize)) - old);
        if (gained > 0)
        {
            await node.WriteAsync(old, new byte[gained], cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>What a growth has done before it failed is cut off again, as far as the file lets us.</summary>
    private async ValueTask UndoGrowthAsync(long old, long dataLength)
    {
        try
        {
            disk.GrownTo = 0;
            await node.ChangeAloneAsync(held => CutAsync(held, old, CancellationToken.None), CancellationToken.None).ConfigureAwait(false);
            if (disk.DataNode.Length > dataLength)
            {
                await disk.DataNode.ResizeAsync(dataLength).ConfigureAwait(false);
            }
        }
        catch (DiskImageException)
        {
            // The size in the header is the old one; what lies past it is unused at worst.
        }
    }

    private async ValueTask ShrinkAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: preallocation has no meaning when an image is made smaller", Name);
        }
        long tail = Math.Min(Round.Up(length, Geometry.ClusterSize), disk.Length) - length;
        if (tail > 0)
        {
            // or growing again would bring it back
            await node.WriteZeroesAsync(length, tail, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
        }
        await node.ChangeAloneAsync(held => CutAsync(held, length, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives the disk a size, not above its own, and lets go of everything past it.</summary>
    private async ValueTask CutAsync(MetadataSession.Held held, long length, CancellationToken cancellationToken)
    {
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        var lastCluster = new GuestOffset(Round.Up(length, Geometry.ClusterSize));
        byte[] whole = _l1Tables.CopyOfActive();
        int keep = (int)Geometry.L1EntriesFor(length);
        whole.AsSpan(0, Math.Min(keep * 8, whole.Length)).Clear();
        Qcow2Ranges unused = await _l1Tables.CollectAsync(whole, cancellationToken).ConfigureAwait(false);
        // from here on the rest is leaked, not lost
        await disk.UpdateHeaderAsync(held, disk.Header with { Size = length }).ConfigureAwait(false);
        PointerTable active = disk.Tables.L1;
        await disk.TellAsync(DebugEvent.L1ShrinkWriteTable).ConfigureAwait(false);
        for (int i = keep; i < active.Count; i++)
        {
            if (active[i] != 0)
            {
                active[i] = 0;
            }
        }
        await disk.TellAsync(DebugEvent.L1ShrinkFreeL2Clusters).ConfigureAwait(false);
        disk.Refcounts.FreeAfterFlush(held, unused);
        if (lastCluster.Value < Geometry.StartOf(keep).Value && active[keep - 1] != 0)
        {
            await disk.Eraser.DropInTableAsync(held, lastCluster, Geometry.StartOf(keep)).ConfigureAwait(false);
        }
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await disk.TrimAsync(held, cancellationToken).ConfigureAwait(false);
    }
}
