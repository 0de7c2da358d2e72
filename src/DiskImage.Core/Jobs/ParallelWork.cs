using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>Runs the same loop in several workers until all are done; the first failure stops the others and is thrown.</summary>
internal static class ParallelWork
{
    /// <summary>Workers that keep this machine busy: its processors, 8 at most, since they share one disk. Ours.</summary>
    public static int DefaultWorkers => Math.Clamp(Environment.ProcessorCount, 2, 8);

    /// <summary>Workers that keep nodes busy, and all that these stand on: more than processors, where some are far away.</summary>
    public static int WorkersFor(params IEnumerable<BlockNode> nodes) => nodes.Select(n => n.RequestsAtOnce).Append(DefaultWorkers).Max();

    public static async Task RunAsync(int workers, Func<CancellationToken, Task> loop, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Exception? first = null;
        async Task Worker()
        {
            try
            {
                await loop(stop.Token).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                _ = Interlocked.CompareExchange(ref first, e, null);
                await stop.CancelAsync().ConfigureAwait(false);
            }
        }

        await Task.WhenAll(Enumerable.Range(0, workers).Select(_ => Task.Run(Worker, CancellationToken.None))).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        if (first is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(first);
        }
    }
}
