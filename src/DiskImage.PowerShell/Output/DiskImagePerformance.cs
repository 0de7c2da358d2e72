using DiskImage.Block;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary>How quickly requests to a disk were answered.</summary>
public sealed class DiskImagePerformance
{
    /// <summary>The image.</summary>
    public required string Path { get; init; }

    /// <summary>Its format.</summary>
    public required string Format { get; init; }

    /// <summary>What the requests did: Read or Write.</summary>
    public required string Operation { get; init; }

    /// <summary>How many there were.</summary>
    public long Count { get; init; }

    /// <summary>How many were under way at once.</summary>
    public int Depth { get; init; }

    /// <summary>Bytes of each.</summary>
    public long BufferSize { get; init; }

    /// <summary>Bytes from one to the next.</summary>
    public long StepSize { get; init; }

    /// <summary>How many flushes there were between them.</summary>
    public long Flushes { get; init; }

    /// <summary>Time from the first to the end of the last.</summary>
    public TimeSpan Elapsed { get; init; }

    /// <summary>Requests a second.</summary>
    public double RequestsPerSecond { get; init; }

    /// <summary>Bytes read or written a second.</summary>
    public double BytesPerSecond { get; init; }

    /// <summary>The mean time of a request.</summary>
    public TimeSpan LatencyMean { get; init; }

    /// <summary>The time that half of the requests took at most; percentiles are told at most 1/32 too long.</summary>
    public TimeSpan Latency50 { get; init; }

    /// <summary>The time that 90 of a hundred took at most.</summary>
    public TimeSpan Latency90 { get; init; }

    /// <summary>The time that 99 of a hundred took at most.</summary>
    public TimeSpan Latency99 { get; init; }

    /// <summary>The time of the slowest.</summary>
    public TimeSpan LatencyMax { get; init; }

    /// <inheritdoc/>
    public override string ToString()
        => Printable.Of($"{Path}: {RequestsPerSecond:#,0} requests/s, {ReadableSize.Of((long)BytesPerSecond)}/s");

    internal static DiskImagePerformance Of(string path, string format, BenchShape shape, int depth, BenchResult result) => new()
    {
        Path = path,
        Format = format,
        Operation = shape.IsWrite ? "Write" : "Read",
        Count = result.Requests,
        Depth = depth,
        BufferSize = shape.Size,
        StepSize = shape.Step,
        Flushes = result.Flushes,
        Elapsed = result.Elapsed,
        RequestsPerSecond = result.Rate,
        BytesPerSecond = result.Rate * shape.Size,
        LatencyMean = result.Mean,
        Latency50 = result.Median,
        Latency90 = result.Percentile90,
        Latency99 = result.Percentile99,
        LatencyMax = result.Longest,
    };
}
