using System.Globalization;
using DiskImage.Jobs;

namespace DiskImage.CommandLine;

/// <summary>A line that says how many percent are done, written over as that changes.</summary>
internal sealed class ProgressLine(TextWriter output) : IProgress<JobProgress>
{
    private readonly Lock _lock = new(); // guards _shown and the order of lines
    private int _shown = -1; // tenths of percent

    public void Report(JobProgress value)
    {
        ArgumentNullException.ThrowIfNull(value);
        int tenths = value.Total <= 0 ? 0 : (int)Math.Clamp(1000.0 * value.Current / value.Total, 0, 1000);
        lock (_lock)
        {
            if (tenths > _shown)
            {
                Show(tenths);
            }
        }
    }

    /// <summary>Everything is done.</summary>
    public void End()
    {
        lock (_lock)
        {
            Show(1000);
            output.WriteLine();
        }
    }

    private void Show(int tenths)
    {
        _shown = tenths;
        output.Write($"    ({(tenths / 10.0).ToString("0.00", CultureInfo.InvariantCulture)}/100%)\r");
        output.Flush();
    }
}
