using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>Making the file smaller: blocks that say nothing are dropped, the last ones move into the gaps, the file is cut.</summary>
internal sealed partial class VpcNode
{
    private const long MoveBytes = 64 << 20; // moved between two flushes. Ours

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(async () =>
        {
            long old = File.Length;
            await UnderGateAsync(() => CompactLockedAsync(dropEmpty: true, bytes, cancellationToken)).ConfigureAwait(false);
            return Math.Max(0, old - File.Length);
        });

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(() => UnderGateAsync(async () =>
    {
        await RequireNothingBehindAsync("emptied", ClaimedEnd, cancellationToken).ConfigureAwait(false);
        VpcSpace space = await SpaceAsync().ConfigureAwait(false);
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        for (int block = _bat.NextUsed(0); block < DiskBlocks; block = _bat.NextUsed(block + 1))
        {
            Drop(space, block);
        }
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        if (HasParent && Backing is { } parent && VpcParent.InfoOf(parent) is { } info && info.UniqueId == _header.ParentUniqueId)
        {
            await WriteHeaderAsync(_header with { ParentTimeStamp = VpcFooter.Seconds(new DateTimeOffset(info.Created)) }).ConfigureAwait(false); // whatever was written to the parent fits an empty disk
            _space = null;
        }
        await (await SpaceAsync().ConfigureAwait(false)).TrimAsync(Footer).ConfigureAwait(false);
    }));

    private async ValueTask CompactLockedAsync(bool dropEmpty, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        VpcSpace space = await SpaceAsync().ConfigureAwait(false);
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        if (dropEmpty)
        {
            await DropEmptyAsync(space, bytes, cancellationToken).ConfigureAwait(false);
        }
        await MoveLocatorsAsync(space).ConfigureAwait(false);
        await MoveDownAsync(cancellationToken).ConfigureAwait(false);
        _space = null;
        await (await SpaceAsync().ConfigureAwait(false)).TrimAsync(Footer).ConfigureAwait(false);
    }

    /// <summary>Drops blocks that can be missing: without a bit; or all zeroes, where nothing but zeroes could show through.</summary>
    private async ValueTask DropEmptyAsync(VpcSpace space, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(BlockSize, 1 << 20));
        try
        {
            for (int block = _bat.NextUsed(0); block < DiskBlocks; block = _bat.NextUsed(block + 1))
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (await IsEmptyAsync(block, buffer, cancellationToken).ConfigureAwait(false))
                {
                    Drop(space, block);
                }
                bytes?.Report(block * BlockSize);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask<bool> IsEmptyAsync(int block, byte[] buffer, CancellationToken cancellationToken)
    {
        long place = _bat.OffsetOf(block)!.Value, count = Math.Min(BlockSize, Round.Up(ClaimedEnd, VpcGeometry.SectorSize) - (block * BlockSize));
        for (long within = 0; within < count;)
        {
            (bool isSet, long run) = await RunAsync(place, within, count - within, cancellationToken).ConfigureAwait(false);
            run = Math.Min(run, count - within);
            if (isSet && !(await BelowIsZeroAsync((block * BlockSize) + within, run, cancellationToken).ConfigureAwait(false)
                && await IsZeroInFileAsync(place + _layout.BitmapBytes + within, run, buffer, cancellationToken).ConfigureAwait(false)))
            {
                return false;
            }
            within += run;
        }
        return true;
    }

    private async ValueTask<bool> BelowIsZeroAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!HasParent)
        {
            return true;
        }
        if (Backing is null)
        {
            return false;
        }
        for (long end = Math.Min(offset + length, Backing.Length); offset < end;)
        {
            BlockExtent extent = await Backing.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (!extent.IsZero)
            {
                return false;
            }
            offset = extent.End;
        }
        return true;
    }

    private async ValueTask<bool> IsZeroInFileAsync(long offset, long length, byte[] buffer, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            BlockExtent extent = await File.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (extent.IsZero)
            {
                offset = extent.End;
                continue;
            }
            int count = (int)Math.Min(extent.Length, buffer.Length);
            await File.ReadAsync(offset, buffer.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            if (!ZeroDetection.IsZero(buffer.AsSpan(0, count)))
            {
                return false;
            }
            offset += count;
        }
        return true;
    }

    /// <summary>Moves the locators' data to the lowest place, so that they do not keep the file long.</summary>
    private async ValueTask MoveLocatorsAsync(VpcSpace space)
    {
        if (!HasParent || !_header.Locators.Any(l => l.IsUsed && l.DataLength > 0 && l.Fault(File.Length) is null))
        {
            return;
        }
        VpcLocator[] locators = [.. _header.Locators];
        for (int i = 0; i < locators.Length; i++)
        {
            if (!locators[i].IsUsed || locators[i].DataLength == 0 || locators[i].Fault(File.Length) is not null)
            {
                continue;
            }
            (long start, long end) = locators[i].Extent;
            long place = await space.AllocateSectorsAsync(end - start, VpcFooter.Length, Footer).ConfigureAwait(false);
            if (place < start)
            {
                await File.WriteZeroesAsync(place, end - start).ConfigureAwait(false);
                await CopyAsync(start, place, end - start).ConfigureAwait(false);
                await File.FlushAsync().ConfigureAwait(false);
                locators[i] = locators[i] with { DataOffset = (ulong)place };
                await WriteHeaderAsync(_header with { Locators = [.. locators] }).ConfigureAwait(false);
                space = await NewSpaceAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>The highest block goes into the lowest gap that holds one, until there is none below it.</summary>
    private async ValueTask MoveDownAsync(CancellationToken cancellationToken)
    {
        VpcSpace space = await NewSpaceAsync().ConfigureAwait(false);
        var highest = new PriorityQueue<int, long>();
        for (int block = _bat.NextUsed(0); block < _bat.Count; block = _bat.NextUsed(block + 1))
        {
            highest.Enqueue(block, -_bat.OffsetOf(block)!.Value);
        }
        long[] blocks = space.SortedBlocks();
        long at = 0, moved = 0;
        foreach ((long start, long end) in space.Used(blocks).ToArray())
        {
            while (start - Place(at, start) >= _layout.Span && highest.TryPeek(out int block, out long key) && -key > start - 1)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long place = Place(at, start);
                _ = highest.Dequeue();
                await File.WriteZeroesAsync(place, _layout.Span, cancellationToken: CancellationToken.None).ConfigureAwait(false);
                await MoveAsync(block, place).ConfigureAwait(false);
                at = place + _layout.Span;
                moved += _layout.Span;
                if (moved >= MoveBytes)
                {
                    await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
                    moved = 0;
                }
            }
            at = Math.Max(at, end);
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);

        long Place(long from, long limit) // the aligned one, if it fits
            => _layout.PlaceAt(from) is var aligned && aligned + _layout.Span <= limit ? aligned : Round.Up(from, VpcGeometry.SectorSize);
    }

    private ValueTask<VpcSpace> NewSpaceAsync()
    {
        _space = null;
        return SpaceAsync();
    }
}
