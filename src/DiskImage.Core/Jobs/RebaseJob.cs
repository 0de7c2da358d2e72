using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>
/// Prepares a disk for another backing image: wherever the disk defers to its present one and the new one reads otherwise, the present
/// contents are written into the disk. Afterwards its reference can be changed and it reads the same.
/// </summary>
/// <param name="disk">The disk, opened for writing over its present chain.</param>
/// <param name="newBacking">The new backing image; null for none.</param>
/// <param name="compress">Store what is written compressed, where the format can.</param>
internal sealed class RebaseJob(BlockNode disk, BlockNode? newBacking, bool compress = false) : BlockJob<ConvertResult>
{
    private const int Chunk = 1 << 20;

    private long _copied, _zero, _skipped, _decided;

    /// <inheritdoc/>
    public override async Task<ConvertResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        long started = System.Diagnostics.Stopwatch.GetTimestamp();
        int chunk = Math.Max(Chunk, Math.Max(512, disk.Limits.AllocationUnit));
        using var cursor = new ExtentCursor(disk, disk.Length, chunk, grain: 512, layers: 1) // finer than a cluster: subclusters count
        {
            PartsBelow = true,
        };
        // Compressed units are stored one behind the other.
        int workers = compress ? 1 : ParallelWork.WorkersFor(newBacking is null ? [disk] : [disk, newBacking]);
        await ParallelWork.RunAsync(workers, token => WorkAsync(cursor, chunk, progress, token), cancellationToken).ConfigureAwait(false);
        await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
        return new ConvertResult(_copied, _zero, _skipped, System.Diagnostics.Stopwatch.GetElapsedTime(started));
    }

    private async Task WorkAsync(ExtentCursor cursor, int chunk, IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        int unit = Math.Max(512, disk.Limits.AllocationUnit);
        byte[] present = GC.AllocateUninitializedArray<byte>(chunk), future = GC.AllocateUninitializedArray<byte>(chunk);
        CompressedChunk? packed = compress && disk.As<ICompressedWritable>() is { } writable ? new CompressedChunk(writable, chunk) : null;
        while (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is { } piece)
        {
            if (piece.Kind != PieceKind.Below)
            {
                Report(ref _decided, piece.Length);
                continue;
            }
            (long offset, int length) = (piece.Offset, (int)piece.Length);
            if (await IsZeroAsync(disk, offset, length, cancellationToken).ConfigureAwait(false)
                && (newBacking is null || await IsZeroAsync(newBacking, offset, length, cancellationToken).ConfigureAwait(false)))
            {
                Report(ref _zero, length);
                continue;
            }
            await disk.ReadAsync(offset, present.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            future.AsSpan(0, length).Clear();
            if (newBacking is not null)
            {
                await newBacking.ReadPaddedAsync(offset, future.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            }
            for (int at = 0; at < length;)
            {
                (int run, bool? isZero) = NextRun(present.AsSpan(at..length), future.AsSpan(at..length), unit, joins: packed is null);
                if (isZero is bool zeroes)
                {
                    await StoreAsync(offset + at, present.AsMemory(at, run), zeroes, packed, cancellationToken).ConfigureAwait(false);
                }
                Report(ref isZero is null ? ref _skipped : ref _copied, run);
                at += run;
            }
        }

        void Report(ref long counter, long bytes)
        {
            _ = Interlocked.Add(ref counter, bytes);
            long done = Interlocked.Read(ref _copied) + Interlocked.Read(ref _zero)
                + Interlocked.Read(ref _skipped) + Interlocked.Read(ref _decided);
            progress?.Report(new JobProgress("Rebase", done, disk.Length));
        }
    }

    /// <summary>
    /// The units from the start on that are alike: equal to the new backing image (null), or to be stored as zeroes or as data.
    /// </summary>
    private static (int Length, bool? IsZero) NextRun(ReadOnlySpan<byte> present, ReadOnlySpan<byte> future, int unit, bool joins)
    {
        (int length, bool? kind) = (0, null);
        do
        {
            ReadOnlySpan<byte> data = present.Slice(length, Math.Min(unit, present.Length - length));
            bool? isZero = data.SequenceEqual(future.Slice(length, data.Length)) ? null : ZeroDetection.IsZero(data);
            if (length > 0 && isZero != kind)
            {
                break;
            }
            (length, kind) = (length + data.Length, isZero);
        }
        while (joins && length < present.Length);
        return (length, kind);
    }

    private async ValueTask StoreAsync(
        long offset, ReadOnlyMemory<byte> data, bool isZero, CompressedChunk? packed, CancellationToken cancellationToken)
    {
        if (isZero)
        {
            // Whoever decides these zeroes now, or nobody: the disk must, or the new backing image would show.
            await disk.WriteZeroesAsync(offset, data.Length, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            return;
        }
        bool whole = packed is not null && offset % packed.Unit == 0 && (data.Length == packed.Unit || offset + data.Length == disk.Length);
        if (whole)
        {
            packed!.Compress(data.Span);
        }
        if (whole && packed is { Count: 1 } && !packed[0].IsEmpty)
        {
            await disk.As<ICompressedWritable>()!.WriteCompressedAsync(offset, packed[0], cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await disk.WriteAsync(offset, data, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>True if a disk is known to read as zeroes in a range, as it does behind its end.</summary>
    private static async ValueTask<bool> IsZeroAsync(BlockNode node, long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = Math.Min(offset + length, node.Length); offset < end;)
        {
            BlockExtent extent = await node.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (!extent.IsZero)
            {
                return false;
            }
            offset += extent.Length;
        }
        return true;
    }
}
