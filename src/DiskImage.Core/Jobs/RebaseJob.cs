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
public sealed class RebaseJob(BlockNode disk, BlockNode? newBacking, bool compress = false) : BlockJob<ConvertResult>
{
    private const int Chunk = 1 << 20;

    /// <inheritdoc/>
    public override async Task<ConvertResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        long started = System.Diagnostics.Stopwatch.GetTimestamp(), copied = 0, zero = 0, skipped = 0;
        int unit = Math.Max(512, disk.Limits.AllocationUnit);
        int chunk = Math.Max(Chunk, unit);
        byte[] present = GC.AllocateUninitializedArray<byte>(chunk), future = GC.AllocateUninitializedArray<byte>(chunk);
        CompressedChunk? packed = compress && disk is ICompressedWritable writable ? new CompressedChunk(writable, chunk) : null;
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
                for (int at = 0; at < length; at += unit)
                {
                    Memory<byte> data = present.AsMemory(at, Math.Min(unit, length - at));
                    if (data.Span.SequenceEqual(future.AsSpan(at, data.Length)))
                    {
                        skipped += data.Length;
                        continue;
                    }
                    await StoreAsync(offset + at, data, packed, cancellationToken).ConfigureAwait(false);
                    copied += data.Length;
                }
                offset += length;
                progress?.Report(new JobProgress("Rebase", offset, disk.Length));
            }
        }
        await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
        return new ConvertResult(copied, zero, skipped, System.Diagnostics.Stopwatch.GetElapsedTime(started));
    }

    private async ValueTask StoreAsync(long offset, ReadOnlyMemory<byte> data, CompressedChunk? packed, CancellationToken cancellationToken)
    {
        if (ZeroDetection.IsZero(data.Span))
        {
            // Zeroes that come from the present backing image must become the disk's own.
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
            await ((ICompressedWritable)disk).WriteCompressedAsync(offset, packed[0], cancellationToken).ConfigureAwait(false);
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
