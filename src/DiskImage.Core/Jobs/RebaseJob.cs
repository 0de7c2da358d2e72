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

    /// <inheritdoc/>
    public override async Task<ConvertResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        long started = System.Diagnostics.Stopwatch.GetTimestamp(), copied = 0, zero = 0, skipped = 0;
        int unit = Math.Max(512, disk.Limits.AllocationUnit);
        int chunk = Math.Max(Chunk, unit);
        byte[] present = GC.AllocateUninitializedArray<byte>(chunk), future = GC.AllocateUninitializedArray<byte>(chunk);
        CompressedChunk? packed = compress && disk.As<ICompressedWritable>() is { } writable ? new CompressedChunk(writable, chunk) : null;
        using var cursor = new ExtentCursor(disk, disk.Length, chunk, grain: 512, byLayer: true); // finer than a cluster: subclusters count
        while (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is { } piece)
        {
            for (long offset = piece.Offset; piece.Kind == PieceKind.Below && offset < piece.End;)
            {
                int length = (int)Math.Min(chunk, piece.End - offset);
                if (newBacking is null && await IsZeroAsync(offset, length, cancellationToken).ConfigureAwait(false))
                {
                    zero += length;
                    offset += length;
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
                    copied += isZero is null ? 0 : run;
                    skipped += isZero is null ? run : 0;
                    at += run;
                }
                offset += length;
                progress?.Report(new JobProgress("Rebase", offset, disk.Length));
            }
        }
        await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
        return new ConvertResult(copied, zero, skipped, System.Diagnostics.Stopwatch.GetElapsedTime(started));
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

    private async ValueTask<bool> IsZeroAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            BlockExtent extent = await disk.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (!extent.IsZero)
            {
                return false;
            }
            offset += extent.Length;
        }
        return true;
    }
}
