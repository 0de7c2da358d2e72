using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Makes a disk's file smaller: blocks of zeroes become states, blocks at the end move into gaps, the rest is cut off.</summary>
/// <remarks>
/// A block is copied, then the BAT points to the copy, by way of the log; its old place is used again only after that. So a crash
/// leaves every block in one of its two places. Contents do not change, and with them the DataWriteGuid.
/// </remarks>
internal sealed class VhdxCompactor(VhdxDisk disk)
{
    private const int BlocksPerRound = 1 << 16; // looked at together, the last in the file; bounds memory. Ours

    private VhdxBat Bat => disk.Bat;

    private VhdxGeometry Geometry => disk.Geometry;

    /// <summary>Compacts the file. Cancelled between two blocks, it leaves a whole disk.</summary>
    public async ValueTask RunAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await disk.BeginAsync(held, isVisible: false).ConfigureAwait(false);
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        if (!disk.Metadata.IsFixed)
        {
            await DropZeroBlocksAsync(held, bytes, cancellationToken).ConfigureAwait(false);
        }
        if (disk.HasParent)
        {
            await Bat.DropBitmapsAsync(held, cancellationToken).ConfigureAwait(false);
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await MoveDownAndCutAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Moves blocks into gaps before them as long as that makes the file shorter, and cuts it.</summary>
    public async ValueTask MoveDownAndCutAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        while (await MoveDownAsync(held, cancellationToken).ConfigureAwait(false))
        {
        }
        await disk.TruncateAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives up blocks that hold nothing but zeroes, and space that a discarded block still has.</summary>
    private async ValueTask DropZeroBlocksAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        for (long block = 0; block < Geometry.Blocks; block++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BatEntry entry = await Bat.PayloadAsync(block, cancellationToken).ConfigureAwait(false);
            BatEntry? instead = entry.State switch
            {
                BlockState.FullyPresent when await IsZeroAsync(entry, block, cancellationToken).ConfigureAwait(false)
                    => new BatEntry(BlockState.Zero),
                BlockState.PartiallyPresent when await Bat.AreAllAsync(block, value: false, cancellationToken).ConfigureAwait(false)
                    => default(BatEntry),
                BlockState.Undefined or BlockState.Unmapped or BlockState.UnmappedOld when entry.FileOffset != 0
                    => new BatEntry(entry.State),
                _ => null,
            };
            if (instead is { } state)
            {
                await Bat.ReplaceAsync(held, block, entry, state).ConfigureAwait(false);
            }
            bytes?.Report(Geometry.StartOf(block) + Geometry.BytesOf(block));
        }
    }

    private ValueTask<bool> IsZeroAsync(BatEntry entry, long block, CancellationToken cancellationToken)
    {
        Bat.RequirePayload(entry, block);
        return StoredBytes.IsZeroAsync(disk.File, entry.FileOffset, Geometry.BytesOf(block), cancellationToken);
    }

    /// <summary>Moves the last blocks of the file into gaps before them; false if none could be moved.</summary>
    private async ValueTask<bool> MoveDownAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (!disk.Space.Gaps().Any())
        {
            return false;
        }
        bool hasMoved = false;
        foreach ((long index, BatEntry entry) in await LastBlocksAsync(cancellationToken).ConfigureAwait(false))
        {
            cancellationToken.ThrowIfCancellationRequested();
            long length = Geometry.IsBitmapIndex(index) ? VhdxLayout.BitmapBlockSize : Geometry.BlockSize;
            long place = disk.Space.AllocateBelow(held, length, entry.FileOffset);
            if (place < 0)
            {
                continue;
            }
            await StoredBytes.CopyAsync(disk.File, entry.FileOffset, place, length, cancellationToken).ConfigureAwait(false);
            await Bat.SetAsync(held, index, new BatEntry(entry.State, new HostOffset(place))).ConfigureAwait(false);
            disk.Space.FreeAfterFlush(held, entry.FileOffset, length);
            await disk.FlushIfMuchWaitsAsync(held, cancellationToken).ConfigureAwait(false);
            hasMoved = true;
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        return hasMoved;
    }

    /// <summary>The stored blocks that lie last in the file, the very last first. The BAT has no changes waiting.</summary>
    private async ValueTask<List<(long Index, BatEntry Entry)>> LastBlocksAsync(CancellationToken cancellationToken)
    {
        var last = new PriorityQueue<(long Index, BatEntry Entry), long>(); // lowest offset first
        await Bat.EachAsync(
            Bat.EntriesInUse,
            (index, entry) =>
            {
                if (!entry.IsStored || !Geometry.IsInUse(index, disk.HasParent))
                {
                    return;
                }
                if (last.Count < BlocksPerRound)
                {
                    last.Enqueue((index, entry), entry.FileOffset);
                }
                else
                {
                    _ = last.EnqueueDequeue((index, entry), entry.FileOffset);
                }
            },
            cancellationToken).ConfigureAwait(false);
        var sorted = new List<(long Index, BatEntry Entry)>(last.Count);
        while (last.TryDequeue(out (long Index, BatEntry Entry) block, out _))
        {
            sorted.Add(block);
        }
        sorted.Reverse();
        return sorted;
    }
}
