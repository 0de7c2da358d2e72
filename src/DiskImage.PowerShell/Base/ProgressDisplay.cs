using System.Diagnostics;
using System.Management.Automation;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary>Shows a job's progress with rate and time left. Jobs report as often as they like; few reports are shown.</summary>
/// <param name="activity">What is done to which image.</param>
/// <param name="parent">The activity that this one is a part of; negative for none.</param>
/// <param name="show">Shows a record, if there is time for it.</param>
internal sealed class ProgressDisplay(string activity, int parent, Func<ProgressRecord, bool> show) : IProgress<JobProgress>
{
    private const long MillisecondsBetween = 250;

    private static int _lastId = 1000; // above what scripts use for their own
    private readonly int _id = NextId();
    private readonly long _started = Stopwatch.GetTimestamp();
    private long _lastShown; // milliseconds since the start

    /// <inheritdoc/>
    public void Report(JobProgress value)
    {
        TimeSpan elapsed = Stopwatch.GetElapsedTime(_started);
        long now = (long)elapsed.TotalMilliseconds;
        long last = Interlocked.Read(ref _lastShown);
        if (now - last < MillisecondsBetween || Interlocked.CompareExchange(ref _lastShown, now, last) != last)
        {
            return;
        }
        double rate = value.Current / elapsed.TotalSeconds;
        _ = show(new ProgressRecord(
            _id, activity, $"{ReadableSize.Of(value.Current)} of {ReadableSize.Of(value.Total)}, {ReadableSize.Of((long)rate)}/s")
        {
            ParentActivityId = parent,
            PercentComplete = value.Total == 0 ? 100 : (int)Math.Clamp(100d * value.Current / value.Total, 0, 100),
            SecondsRemaining = rate > 0 ? (int)Math.Min((value.Total - value.Current) / rate, int.MaxValue) : -1,
        });
    }

    /// <summary>The record that takes the display away; null if nothing was shown.</summary>
    public ProgressRecord? End()
        => Interlocked.Read(ref _lastShown) == 0
            ? null
            : new ProgressRecord(_id, activity, "Done") { ParentActivityId = parent, RecordType = ProgressRecordType.Completed };

    /// <summary>A number for an activity that no other one in this process has.</summary>
    public static int NextId() => Interlocked.Increment(ref _lastId);
}
