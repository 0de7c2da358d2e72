namespace DiskImage.Jobs;

/// <summary>How far a job is.</summary>
/// <param name="Activity">What it does, in a word or two.</param>
/// <param name="Current">Bytes done.</param>
/// <param name="Total">Bytes in all.</param>
public sealed record JobProgress(string Activity, long Current, long Total);

/// <summary>One long operation over open nodes. A job never opens, names or locks anything: it gets nodes and does the work.</summary>
/// <typeparam name="TResult">What it returns.</typeparam>
public abstract class BlockJob<TResult>
{
    /// <summary>Does the work. A cancelled job has stopped all its I/O when it returns.</summary>
    /// <param name="progress">Told as often as the job likes; a listener that shows it must thin it out.</param>
    /// <param name="cancellationToken">Stops the job at the next request.</param>
    public abstract Task<TResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken);
}
