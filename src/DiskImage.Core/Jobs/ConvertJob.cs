using System.Diagnostics;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>How a conversion goes about it.</summary>
public sealed record ConvertOptions
{
    /// <summary>Runs of zeroes of at least this many bytes become holes; 0 stores everything, holes included.</summary>
    public long SparseSize { get; init; } = 4096;

    /// <summary>Workers; 0 for as many as suit the machine.</summary>
    public int Workers { get; init; }

    /// <summary>Store data compressed.</summary>
    public bool Compress { get; init; }

    /// <summary>The target is written from front to back: each piece when those before it are written.</summary>
    public bool InOrder { get; init; }

    /// <summary>
    /// Compressed data is stored as soon as it is ready, wherever it belongs: the image is not the same bytes each time. It has no effect
    /// where the target is written from front to back, or stores nothing but compressed data. Other data is always written in any order.
    /// </summary>
    public bool AnyOrder { get; init; }

    /// <summary>
    /// Data that lie as they are in files of a file system that can have it are taken over without being moved, zeroes in them as well.
    /// </summary>
    public bool Shares { get; init; } = true;

    /// <summary>The target reads as zeroes now, so zeroes need not be written.</summary>
    public bool TargetReadsZero { get; init; } = true;

    /// <summary>
    /// The target has already what lies below so many layers of the source: only what these decide is written. 0 for one that gets
    /// everything, 1 for one with the same backing image.
    /// </summary>
    public int Layers { get; init; }

    /// <summary>
    /// The target is what lies below those layers, so what one of them hides by being short is zeroes to be written. Data are not looked
    /// through for zeroes: the space that the target has for them is its own.
    /// </summary>
    public bool TargetIsBelow { get; init; }

    /// <summary>What is being done, for whoever watches.</summary>
    public string Activity { get; init; } = "Convert";
}

/// <summary>What a conversion did.</summary>
/// <param name="BytesCopied">Bytes of data written.</param>
/// <param name="BytesZero">Bytes that read as zeroes.</param>
/// <param name="BytesSkipped">Bytes left to the target's backing image.</param>
/// <param name="Elapsed">Time taken.</param>
public sealed record ConvertResult(long BytesCopied, long BytesZero, long BytesSkipped, TimeSpan Elapsed)
{
    /// <summary>How many of the bytes copied have their storage in common with the source.</summary>
    public long BytesShared { get; init; }

    /// <summary>How many of the bytes copied the host moved itself.</summary>
    public long BytesMoved { get; init; }
}

/// <summary>
/// Copies a disk: workers take pieces in order, read, look for zeroes, write. Holes are never read. The target must be at least
/// as long as the source and is not flushed.
/// </summary>
public sealed class ConvertJob(BlockNode source, BlockNode target, ConvertOptions options) : BlockJob<ConvertResult>
{
    private const int Chunk = 1 << 20; // long enough to amortise a request, short enough to stay in the cache between read and write
    private const long ZeroChunk = 1L << 30; // between two looks at the cancellation token

    private const long LargestShared = 256 << 20; // bytes of storage taken over at once, between two looks at the cancellation token
    private const int ShareGrain = 1 << 16; // with sharing, pieces are no coarser: the larger ones would seldom be plain as a whole

    private long _copied, _shared, _moved, _zero, _skipped;

    /// <inheritdoc/>
    public override async Task<ConvertResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        long started = Stopwatch.GetTimestamp();
        if (target.Length < source.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{target.Name}: its {target.Length:#,0} bytes cannot hold the {source.Length:#,0} bytes of {source.Name}",
                target.Name);
        }
        // What the target has already is not written with what is beside it, however large its units are.
        int unit = options.TargetIsBelow ? 1 : Math.Max(1, target.Limits.AllocationUnit);
        int chunk = options.TargetIsBelow ? Chunk : Math.Max(Chunk, Math.Max(source.Limits.AllocationUnit, unit));
        int grain = System.Numerics.BitOperations.IsPow2(unit) ? unit : 1;
        bool shares = MayShare;
        grain = shares ? Math.Min(grain, ShareGrain) : grain;
        using var cursor = new ExtentCursor(source, source.Length, chunk, grain, options.Layers, zeroesAreData: StoresZeroes)
        {
            LargestPlain = shares ? LargestShared : 0, UndecidedIsZero = options.TargetIsBelow,
        };
        var order = new InOrder();
        int workers = options.Workers > 0 ? options.Workers : ParallelWork.WorkersFor(source, target);
        await ParallelWork.RunAsync(
            workers, token => WorkAsync(cursor, order, chunk, progress, token), cancellationToken).ConfigureAwait(false);
        return new ConvertResult(_copied, _zero, _skipped, Stopwatch.GetElapsedTime(started))
        {
            BytesShared = _shared, BytesMoved = _moved,
        };
    }

    private bool StoresZeroes => options.SparseSize == 0;

    private bool KeepsData => StoresZeroes || options.TargetIsBelow;

    private ICompressedWritable? Compressor => options.Compress || target.As<ICompressedWritable>()?.IsAlwaysCompressed == true
        ? target.As<ICompressedWritable>()
        ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported, $"{target.Name}: its format cannot store compressed data", target.Name)
        : null;

    private async Task WorkAsync(
        ExtentCursor cursor, InOrder order, int chunk, IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(chunk);
        CompressedChunk? packed = Compressor is { } compressor ? new CompressedChunk(compressor, chunk, StoresZeroes) : null;
        bool isFree = options is { AnyOrder: true, InOrder: false } && packed is not null
            && target.As<ICompressedWritable>() is { IsAlwaysCompressed: false };
        var runs = new List<(int Length, bool IsZero)>();
        while (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is { } piece)
        {
            if (piece.Kind == PieceKind.Plain)
            {
                await order.WaitAsync(piece.Number, cancellationToken).ConfigureAwait(false);
                await TakeOverAsync(piece, cursor, buffer, runs, cancellationToken).ConfigureAwait(false);
                order.Done(piece.Number);
                progress?.Report(new JobProgress(options.Activity, Done, source.Length));
                continue;
            }
            Memory<byte> data = piece.Kind == PieceKind.Data ? buffer.AsMemory(0, (int)piece.Length) : default;
            if (!data.IsEmpty)
            {
                await source.ReadAsync(piece.Offset, data, cancellationToken).ConfigureAwait(false);
            }
            packed?.Compress(data.Span);
            FindRuns(data.Span, runs);

            // What decides places in the target happens in order, so that the image is the same bytes with any number of workers.
            if (!isFree)
            {
                await order.WaitAsync(piece.Number, cancellationToken).ConfigureAwait(false);
            }
            if (piece.Kind == PieceKind.Below)
            {
                _ = Interlocked.Add(ref _skipped, piece.Length);
            }
            else if (piece.Kind == PieceKind.Zero)
            {
                await ZeroAsync(piece.Offset, piece.Length, cancellationToken).ConfigureAwait(false);
            }
            else if (packed is not null)
            {
                await StoreCompressedAsync(piece.Offset, data, packed, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await ReserveAsync(piece.Offset, runs, cancellationToken).ConfigureAwait(false);
            }
            bool isToBeWritten = packed is null && piece.Kind == PieceKind.Data;
            if (isToBeWritten && options.InOrder)
            {
                await WriteAsync(piece.Offset, data, runs, cancellationToken).ConfigureAwait(false);
            }
            order.Done(piece.Number);
            if (isToBeWritten && !options.InOrder)
            {
                await WriteAsync(piece.Offset, data, runs, cancellationToken).ConfigureAwait(false);
            }
            progress?.Report(new JobProgress(options.Activity, Done, source.Length));
        }
    }

    // Extents lead past filters to the bytes below, which are not to be had there: whoever reads through one means it.
    private bool MayShare => options.Shares && !options.InOrder && Compressor is null && source.IsReadOnly
        && !source.SelfAndBelow().Any(n => n is FilterNode and not BorrowedNode)
        && target.SelfAndBelow().OfType<ISharing>().Any(
            t => source.SelfAndBelow().OfType<ISharing>().Any(s => KeepsData || t.MayShareWith(s)));

    /// <summary>Has the host put plain data in their places in the target; what it cannot is copied here.</summary>
    private async ValueTask TakeOverAsync(
        Piece piece, ExtentCursor cursor, Memory<byte> buffer, List<(int Length, bool IsZero)> runs, CancellationToken cancellationToken)
    {
        CopyOffload how = KeepsData ? CopyOffload.ShareOrMove : CopyOffload.Share;
        for (long at = piece.Offset; at < piece.End;)
        {
            BlockExtent extent = await source.GetExtentAsync(at, piece.End - at, cancellationToken).ConfigureAwait(false);
            CopyOutcome outcome = extent is { Node: { } node, HostOffset: long host }
                ? await target.CopyFromAsync(at, node, host, extent.Length, how, cancellationToken).ConfigureAwait(false)
                : default;
            _ = Interlocked.Add(ref _copied, outcome.Done);
            _ = Interlocked.Add(ref _shared, outcome.Shared);
            _ = Interlocked.Add(ref _moved, outcome.Done - outcome.Shared);
            if (outcome.Done == 0)
            {
                cursor.LargestPlain = 0; // not to be had between these two
            }
            for (at += outcome.Done; at < extent.End;)
            {
                Memory<byte> data = buffer[..(int)Math.Min(buffer.Length, extent.End - at)];
                await source.ReadAsync(at, data, cancellationToken).ConfigureAwait(false);
                FindRuns(data.Span, runs);
                await ReserveAsync(at, runs, cancellationToken).ConfigureAwait(false);
                await WriteAsync(at, data, runs, cancellationToken).ConfigureAwait(false);
                at += data.Length;
            }
        }
    }

    /// <summary>Parts data into runs that are all zero and runs that are not, as coarse as the options and the target want it.</summary>
    private void FindRuns(ReadOnlySpan<byte> data, List<(int Length, bool IsZero)> runs)
    {
        runs.Clear();
        int block = (int)Math.Clamp(options.SparseSize, Math.Min(target.Limits.AllocationUnit, Chunk), Chunk);
        while (!data.IsEmpty)
        {
            bool isZero = false;
            int length = KeepsData ? data.Length : ZeroDetection.Run(data, block, out isZero);
            runs.Add((length, isZero));
            data = data[length..];
        }
    }

    private async ValueTask ReserveAsync(long offset, List<(int Length, bool IsZero)> runs, CancellationToken cancellationToken)
    {
        if (options.TargetIsBelow || target.As<IReservable>() is not { } reservable) // its places are found as it is written to
        {
            return;
        }
        foreach ((int length, bool isZero) in runs)
        {
            if (!isZero)
            {
                await reservable.ReserveAsync(offset, length, cancellationToken).ConfigureAwait(false);
            }
            offset += length;
        }
    }

    private async ValueTask StoreCompressedAsync(
        long offset, ReadOnlyMemory<byte> data, CompressedChunk packed, CancellationToken cancellationToken)
    {
        for (int i = 0; i < packed.Count; i++)
        {
            ReadOnlyMemory<byte> unit = data.Slice(i * packed.Unit, Math.Min(packed.Unit, data.Length - (i * packed.Unit)));
            if (packed.IsZero(i))
            {
                await ZeroAsync(offset, unit.Length, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                if (packed[i] is { IsEmpty: false } bytes)
                {
                    await target.As<ICompressedWritable>()!.WriteCompressedAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    await target.WriteAsync(offset, unit, cancellationToken).ConfigureAwait(false);
                }
                _ = Interlocked.Add(ref _copied, unit.Length);
            }
            offset += unit.Length;
        }
    }

    private long Done => Interlocked.Read(ref _copied) + Interlocked.Read(ref _zero) + Interlocked.Read(ref _skipped);

    private async ValueTask WriteAsync(
        long offset, ReadOnlyMemory<byte> data, List<(int Length, bool IsZero)> runs, CancellationToken cancellationToken)
    {
        foreach ((int length, bool isZero) in runs)
        {
            if (isZero)
            {
                await ZeroAsync(offset, length, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await target.WriteAsync(offset, data[..length], cancellationToken).ConfigureAwait(false);
                _ = Interlocked.Add(ref _copied, length);
            }
            (data, offset) = (data[length..], offset + length);
        }
    }

    private async ValueTask ZeroAsync(long offset, long length, CancellationToken cancellationToken)
    {
        bool isThere = options is { TargetReadsZero: true, Layers: 0 };
        for (long end = offset + length; !isThere && offset < end;)
        {
            long part = Math.Min(ZeroChunk, end - offset);
            await target.WriteZeroesAsync(offset, part, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
            offset += part;
        }
        _ = Interlocked.Add(ref _zero, length);
    }
}
