using System.Collections.Concurrent;
using System.Diagnostics;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>What requests of a bench are like.</summary>
/// <param name="Size">Bytes of each.</param>
/// <param name="Offset">Where the first is; after the last that fits it begins there again.</param>
/// <param name="Step">Bytes from one to the next.</param>
/// <param name="IsWrite">They write.</param>
/// <param name="Pattern">What they write.</param>
/// <param name="FlushEvery">After how many writes is flushed; 0 for never.</param>
/// <param name="Drains">Each flush waits for the writes before it, and those behind it wait for the flush.</param>
public sealed record BenchShape(int Size, long Offset, long Step, bool IsWrite, byte Pattern, long FlushEvery, bool Drains = true);

/// <summary>What a bench measured.</summary>
/// <param name="Requests">Requests that were sent.</param>
/// <param name="Flushes">Flushes between them.</param>
/// <param name="Elapsed">From the first to the end of the last.</param>
public sealed record BenchResult(long Requests, long Flushes, TimeSpan Elapsed)
{
    /// <summary>Requests a second.</summary>
    public double Rate => Elapsed > TimeSpan.Zero ? Requests / Elapsed.TotalSeconds : 0;

    /// <summary>The mean time of a request.</summary>
    public TimeSpan Mean { get; init; }

    /// <summary>The time that half of the requests took at most; this and what follows is at most 1/32 too long.</summary>
    public TimeSpan Median { get; init; }

    /// <summary>The time that 90 of a hundred took at most.</summary>
    public TimeSpan Percentile90 { get; init; }

    /// <summary>The time that 99 of a hundred took at most.</summary>
    public TimeSpan Percentile99 { get; init; }

    /// <summary>The time of the slowest, exactly.</summary>
    public TimeSpan Longest { get; init; }
}

/// <summary>Sends requests of one size to a disk, so many at once, and times them.</summary>
/// <param name="disk">The disk; open for writing if the requests write.</param>
/// <param name="shape">What they are like.</param>
/// <param name="count">How many.</param>
/// <param name="depth">How many are under way at once.</param>
public sealed class BenchJob(BlockNode disk, BenchShape shape, long count, int depth) : BlockJob<BenchResult>
{
    private const long MostMemory = 2L << 30; // of all requests under way; ours
    private const int ReportEvery = 256; // requests

    private readonly ConcurrentStack<Worker> _idle = new();
    private readonly long _places = Places(disk.Length - shape.Offset - shape.Size, shape.Step);
    private long _next, _flushes;

    /// <inheritdoc/>
    /// <exception cref="DiskImageException">OutOfRange: the requests under way need too much memory; what the disk says.</exception>
    public override async Task<BenchResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        if ((long)shape.Size * depth > MostMemory)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: {depth:#,0} requests of {shape.Size:#,0} bytes at once take more than {MostMemory:#,0} bytes of memory",
                disk.Name);
        }
        bool drains = shape is { IsWrite: true, FlushEvery: > 0, Drains: true };
        long started = Stopwatch.GetTimestamp();
        for (long start = 0, end; start < count; start = end)
        {
            end = drains && shape.FlushEvery < count - start ? start + shape.FlushEvery : count;
            (_next, long until) = (start, end);
            int workers = (int)Math.Min(depth, end - start);
            await ParallelWork.RunAsync(workers, token => WorkAsync(until, progress, token), cancellationToken).ConfigureAwait(false);
            if (drains && end - start == shape.FlushEvery)
            {
                await FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        return Result(Stopwatch.GetElapsedTime(started));
    }

    /// <summary>How many offsets there are before the first comes again.</summary>
    private static long Places(long room, long step) => room < 0 ? 1 : (room / step) + 1;

    private async Task WorkAsync(long end, IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        Worker worker = _idle.TryPop(out Worker? idle) ? idle : new Worker(shape);
        try
        {
            while (Interlocked.Increment(ref _next) - 1 is var number && number < end)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long offset = shape.Offset + (number % _places * shape.Step);
                long started = Stopwatch.GetTimestamp();
                if (shape.IsWrite)
                {
                    await disk.WriteAsync(offset, worker.Buffer, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    await disk.ReadAsync(offset, worker.Buffer, cancellationToken).ConfigureAwait(false);
                }
                worker.Times.Add(Stopwatch.GetTimestamp() - started);
                if (shape is { IsWrite: true, FlushEvery: > 0, Drains: false } && (number + 1) % shape.FlushEvery == 0)
                {
                    await FlushAsync(cancellationToken).ConfigureAwait(false);
                }
                if (number % ReportEvery == 0)
                {
                    progress?.Report(new JobProgress("Bench", Bytes(number), Bytes(count)));
                }
            }
        }
        finally
        {
            _idle.Push(worker);
        }
    }

    private async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
        _ = Interlocked.Increment(ref _flushes);
    }

    private long Bytes(long requests) => (long)Int128.Min((Int128)requests * shape.Size, long.MaxValue);

    private BenchResult Result(TimeSpan elapsed)
    {
        var all = new LatencyHistogram();
        foreach (Worker worker in _idle)
        {
            all.Add(worker.Times);
        }
        return new BenchResult(count, _flushes, elapsed)
        {
            Mean = all.Mean,
            Median = all.Percentile(50),
            Percentile90 = all.Percentile(90),
            Percentile99 = all.Percentile(99),
            Longest = all.Longest,
        };
    }

    /// <summary>One request at a time: its buffer, and how long each took.</summary>
    private sealed class Worker
    {
        public Worker(BenchShape shape)
        {
            Buffer = GC.AllocateUninitializedArray<byte>(shape.Size);
            Buffer.AsSpan().Fill(shape.Pattern);
        }

        public byte[] Buffer { get; }

        public LatencyHistogram Times { get; } = new();
    }
}
