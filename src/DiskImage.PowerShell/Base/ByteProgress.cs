using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary>Makes a job's progress of a count of bytes.</summary>
/// <param name="activity">What is done.</param>
/// <param name="progress">Where it goes.</param>
/// <param name="total">Bytes in all.</param>
internal sealed class ByteProgress(string activity, IProgress<JobProgress> progress, long total) : IProgress<long>
{
    public void Report(long value) => progress.Report(new JobProgress(activity, value, total));
}
