using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Zeroing and discarding: whole blocks by their state, parts of a block in the file. Spec: MS-VHDX 2.5.1.1.</summary>
internal sealed partial class VhdxNode
{
    protected override async ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long block = _geometry.BlockOf(offset), end = Math.Min(offset + length, _geometry.StartOf(block) + _geometry.BytesOf(block));
        bool isKept = mode == ZeroWriteMode.KeepAllocated || _metadata.IsFixed;
        BatEntry entry = default;
        long done = 0;
        await UnderGateAsync(async () => (entry, done) = await ZeroStateAsync(block, offset, end, offset + length, mode).ConfigureAwait(false)).ConfigureAwait(false);
        if (done > 0)
        {
            return done;
        }
        await File.WriteZeroesAsync(entry.FileOffset + _geometry.InBlock(offset), end - offset, isKept ? ZeroWriteMode.KeepAllocated : mode, cancellationToken).ConfigureAwait(false);
        if (entry.State == BlockState.PartiallyPresent)
        {
            await UnderGateAsync(() => SetSectorsAsync(entry, block, offset, end)).ConfigureAwait(false);
        }
        return end - offset;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (_metadata.IsFixed)
        {
            return;
        }
        for (long end = offset + length; offset < end;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long block = _geometry.BlockOf(offset), next = Math.Min(end, _geometry.StartOf(block) + _geometry.BytesOf(block));
            BatEntry entry = default;
            bool isWhole = next - offset == _geometry.BytesOf(block);
            await UnderGateAsync(async () =>
            {
                entry = await EntryAsync(_geometry.PayloadIndex(block), cancellationToken).ConfigureAwait(false);
                if (isWhole && entry.IsStored)
                {
                    await BeginChangeAsync().ConfigureAwait(false);
                    await ReplaceAsync(block, entry, new BatEntry(BlockState.Unmapped)).ConfigureAwait(false);
                }
                else if (entry.State == BlockState.FullyPresent)
                {
                    await BeginChangeAsync().ConfigureAwait(false);
                    RequirePayload(entry, block);
                }
            }).ConfigureAwait(false);
            if (!isWhole && entry.State == BlockState.FullyPresent && _options.Discard == VhdxDiscardMode.Unmap)
            {
                await File.DiscardAsync(entry.FileOffset + _geometry.InBlock(offset), next - offset, cancellationToken).ConfigureAwait(false);
            }
            offset = next;
        }
    }

    /// <summary>
    /// Zeroes as far as states can say it: returns the bytes done, or 0 and the entry of a block whose bytes must be zeroed in the file.
    /// </summary>
    private async ValueTask<(BatEntry Entry, long Done)> ZeroStateAsync(long block, long offset, long end, long wanted, ZeroWriteMode mode)
    {
        bool isKept = mode == ZeroWriteMode.KeepAllocated || _metadata.IsFixed;
        (BatEntry entry, int blocks) = await EntryRunAsync(block, CancellationToken.None).ConfigureAwait(false);
        bool isUndecided = entry.State == BlockState.NotPresent && !_metadata.HasParent;
        if (entry.ReadsZero || (isUndecided && mode == ZeroWriteMode.MayUnmap))
        {
            return (default, Math.Min(wanted, _geometry.StartOf(block + blocks)) - offset);
        }
        await BeginChangeAsync().ConfigureAwait(false);
        if (isUndecided)
        {
            // All of it reads as zeroes; with this it does on a parent to come, too.
            await SetEntryAsync(_geometry.PayloadIndex(block), new BatEntry(BlockState.Zero)).ConfigureAwait(false);
            return (default, end - offset);
        }
        bool isWhole = end - offset == _geometry.BytesOf(block);
        if (isWhole && (!isKept || entry.State == BlockState.NotPresent))
        {
            await ReplaceAsync(block, entry, new BatEntry(BlockState.Zero)).ConfigureAwait(false);
            return (default, end - offset);
        }
        if (entry.State == BlockState.NotPresent)
        {
            entry = await AddPartialAsync(block).ConfigureAwait(false);
        }
        if (!entry.IsStored)
        {
            throw Wrong(block, $"has the state {(int)entry.State}, so nothing can be written to it");
        }
        RequirePayload(entry, block);
        return (entry, 0);
    }

    /// <summary>Gives a block another state, and its space back.</summary>
    private async ValueTask ReplaceAsync(long block, BatEntry old, BatEntry entry)
    {
        _ = await SpaceAsync().ConfigureAwait(false);
        await SetEntryAsync(_geometry.PayloadIndex(block), entry).ConfigureAwait(false);
        GiveUp(old);
    }
}
