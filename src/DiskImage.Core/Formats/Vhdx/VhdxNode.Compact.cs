using System.Buffers;
using System.Runtime.InteropServices;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Making the file smaller: blocks of zeroes become states, blocks at the end move into gaps, the rest is cut off.</summary>
/// <remarks>
/// A block is copied, then the BAT points to the copy, by way of the log; its old place is used again only after that. So a crash
/// leaves every block in one of its two places. Contents do not change, and with them the DataWriteGuid.
/// </remarks>
internal sealed partial class VhdxNode : ICompactable
{
    private const int BlocksPerRound = 1 << 16; // looked at together, the last in the file; bounds memory. Ours

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        long before = File.Length;
        await UnderGateAsync(async () =>
        {
            await BeginAsync(isVisible: false).ConfigureAwait(false);
            _ = await SpaceAsync().ConfigureAwait(false);
        }).ConfigureAwait(false);
        if (!_metadata.IsFixed)
        {
            await DropZeroBlocksAsync(bytes, cancellationToken).ConfigureAwait(false);
        }
        await UnderGateAsync(async () =>
        {
            await DropBitmapsAsync(cancellationToken).ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        await MoveDownAndCutAsync(cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    });

    /// <summary>Moves blocks into gaps before them as long as that makes the file shorter, and cuts it.</summary>
    private async ValueTask MoveDownAndCutAsync(CancellationToken cancellationToken)
    {
        while (await MoveDownAsync(cancellationToken).ConfigureAwait(false))
        {
        }
        await UnderGateAsync(() => TruncateAsync(cancellationToken)).ConfigureAwait(false);
    }

    /// <summary>Gives up blocks that hold nothing but zeroes, and space that a discarded block still has.</summary>
    private async ValueTask DropZeroBlocksAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        for (long block = 0; block < _geometry.Blocks; block++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long current = block;
            BatEntry entry = default;
            await UnderGateAsync(async () => entry = await EntryAsync(_geometry.PayloadIndex(current), cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            BatEntry? instead = entry.State switch
            {
                BlockState.FullyPresent when await IsZeroInFileAsync(entry, block, cancellationToken).ConfigureAwait(false) => new BatEntry(BlockState.Zero),
                BlockState.PartiallyPresent when await HasNoSectorAsync(block, cancellationToken).ConfigureAwait(false) => default(BatEntry),
                BlockState.Undefined or BlockState.Unmapped or BlockState.UnmappedOld when entry.FileOffset != 0 => new BatEntry(entry.State),
                _ => null,
            };
            if (instead is { } state)
            {
                await UnderGateAsync(() => ReplaceAsync(current, entry, state)).ConfigureAwait(false);
            }
            bytes?.Report(_geometry.StartOf(block) + _geometry.BytesOf(block));
        }
    }

    private async ValueTask<bool> IsZeroInFileAsync(BatEntry entry, long block, CancellationToken cancellationToken)
    {
        RequirePayload(entry, block);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            for (long at = entry.FileOffset, end = at + _geometry.BytesOf(block); at < end;)
            {
                BlockExtent extent = await File.GetExtentAsync(at, end - at, cancellationToken).ConfigureAwait(false);
                if (!extent.IsZero)
                {
                    Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, extent.Length));
                    await File.ReadAsync(at, part, cancellationToken).ConfigureAwait(false);
                    if (!ZeroDetection.IsZero(part.Span))
                    {
                        return false;
                    }
                    extent = extent with { Length = part.Length };
                }
                at += extent.Length;
            }
            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async ValueTask<bool> HasNoSectorAsync(long block, CancellationToken cancellationToken)
    {
        bool isEmpty = true;
        await UnderGateAsync(async () =>
        {
            for (long at = _geometry.StartOf(block), end = at + _geometry.BytesOf(block); at < end && isEmpty;)
            {
                (bool isHere, long run) = await SectorRunAsync(block, at, end, cancellationToken).ConfigureAwait(false);
                isEmpty = !isHere;
                at += run;
            }
        }).ConfigureAwait(false);
        return isEmpty;
    }

    /// <summary>Gives up sector bitmaps of chunks that have no partially present block.</summary>
    private async ValueTask DropBitmapsAsync(CancellationToken cancellationToken)
    {
        for (long chunk = 0; chunk < _geometry.Chunks && _metadata.HasParent && HasEntry(_geometry.BitmapIndex(chunk)); chunk++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BatEntry bitmap = await EntryAsync(_geometry.BitmapIndex(chunk), cancellationToken).ConfigureAwait(false);
            bool isUsed = bitmap.State != BlockState.FullyPresent;
            for (long block = chunk * _geometry.ChunkRatio, end = Math.Min(_geometry.Blocks, block + _geometry.ChunkRatio); block < end && !isUsed; block++)
            {
                isUsed = (await EntryAsync(_geometry.PayloadIndex(block), cancellationToken).ConfigureAwait(false)).State == BlockState.PartiallyPresent;
            }
            if (!isUsed)
            {
                await SetEntryAsync(_geometry.BitmapIndex(chunk), default).ConfigureAwait(false);
                _space!.FreeAfterFlush(bitmap.FileOffset, VhdxLayout.BitmapBlockSize);
            }
        }
    }

    /// <summary>Moves the last blocks of the file into gaps before them; false if none could be moved.</summary>
    private async ValueTask<bool> MoveDownAsync(CancellationToken cancellationToken)
    {
        if (!_space!.Gaps().Any())
        {
            return false;
        }
        bool hasMoved = false;
        foreach ((long index, BatEntry entry) in await LastBlocksAsync(cancellationToken).ConfigureAwait(false))
        {
            cancellationToken.ThrowIfCancellationRequested();
            long length = _geometry.IsBitmapIndex(index) ? VhdxLayout.BitmapBlockSize : _geometry.BlockSize;
            long place = _space.AllocateBelow(length, entry.FileOffset);
            if (place < 0)
            {
                continue;
            }
            await File.WriteZeroesAsync(place, Math.Min(length, File.Length - place), ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            await CopyAsync(entry.FileOffset, place, length, cancellationToken).ConfigureAwait(false);
            await UnderGateAsync(async () =>
            {
                await SetEntryAsync(index, new BatEntry(entry.State, place)).ConfigureAwait(false);
                _space.FreeAfterFlush(entry.FileOffset, length);
                if (_space.Waiting > MaxWaiting)
                {
                    await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
                }
            }).ConfigureAwait(false);
            hasMoved = true;
        }
        await UnderGateAsync(() => FlushLockedAsync(cancellationToken)).ConfigureAwait(false);
        return hasMoved;
    }

    /// <summary>The stored blocks that lie last in the file, the very last first. The BAT has no changes waiting.</summary>
    private async ValueTask<List<(long Index, BatEntry Entry)>> LastBlocksAsync(CancellationToken cancellationToken)
    {
        var last = new PriorityQueue<(long Index, BatEntry Entry), long>(); // lowest offset first
        await EachBatPartAsync(EntriesInUse, (firstIndex, entries) =>
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(entries.Span);
            for (int i = 0; i < words.Length; i++)
            {
                var entry = new BatEntry(LittleEndian.U64(entries.Span, i * VhdxGeometry.EntryBytes));
                if (!entry.IsStored || !_geometry.IsInUse(firstIndex + i, _metadata.HasParent))
                {
                    continue;
                }
                if (last.Count < BlocksPerRound)
                {
                    last.Enqueue((firstIndex + i, entry), entry.FileOffset);
                }
                else
                {
                    _ = last.EnqueueDequeue((firstIndex + i, entry), entry.FileOffset);
                }
            }
        }, cancellationToken).ConfigureAwait(false);
        var sorted = new List<(long Index, BatEntry Entry)>(last.Count);
        while (last.TryDequeue(out (long Index, BatEntry Entry) block, out _))
        {
            sorted.Add(block);
        }
        sorted.Reverse();
        return sorted;
    }
}
