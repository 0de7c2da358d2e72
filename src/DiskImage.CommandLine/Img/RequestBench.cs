using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>What requests of a bench are like.</summary>
/// <param name="Size">Bytes of each.</param>
/// <param name="Offset">Where the first is; after the last that fits it begins there again.</param>
/// <param name="Step">Bytes from one to the next.</param>
/// <param name="IsWrite">They write.</param>
/// <param name="Pattern">What they write.</param>
/// <param name="FlushEvery">After how many writes is flushed; 0 for never.</param>
internal sealed record BenchShape(int Size, long Offset, long Step, bool IsWrite, byte Pattern, long FlushEvery);

/// <summary>Sends requests to a disk, so many at once.</summary>
/// <param name="disk">The disk.</param>
/// <param name="shape">What they are like.</param>
/// <param name="count">How many.</param>
internal sealed class RequestBench(BlockNode disk, BenchShape shape, long count)
{
    private long _next;

    /// <summary>Sends them all and waits for all.</summary>
    /// <param name="depth">How many are under way at once.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public Task RunAsync(int depth, CancellationToken cancellationToken)
        => Task.WhenAll(Enumerable.Range(0, depth).Select(_ => Task.Run(() => WorkAsync(cancellationToken), cancellationToken)));

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(shape.Size);
        buffer.AsSpan().Fill(shape.Pattern);
        long room = disk.Length - shape.Offset - shape.Size;
        long places = room < 0 ? 1 : (room / shape.Step) + 1;
        while (Interlocked.Increment(ref _next) - 1 is var number && number < count)
        {
            long offset = shape.Offset + (number % places * shape.Step);
            if (!shape.IsWrite)
            {
                await disk.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
                continue;
            }
            await disk.WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            if (shape.FlushEvery > 0 && (number + 1) % shape.FlushEvery == 0)
            {
                await disk.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }
}
