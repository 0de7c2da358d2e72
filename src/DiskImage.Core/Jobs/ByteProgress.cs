namespace DiskImage.Jobs;

/// <summary>Makes a job's progress of a count of bytes.</summary>
/// <param name="activity">What is done.</param>
/// <param name="progress">Where it goes.</param>
/// <param name="total">Bytes in all, as far as that can be known before: more count as all.</param>
public sealed class ByteProgress(string activity, IProgress<JobProgress> progress, long total) : IProgress<long>
{
    /// <inheritdoc/>
    public void Report(long value) => progress.Report(new JobProgress(activity, Math.Min(value, total), total));
}
