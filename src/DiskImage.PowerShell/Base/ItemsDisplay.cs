using System.Diagnostics;
using System.Management.Automation;

namespace DiskImage.PowerShell;

/// <summary>Shows which of several images is worked on: <c>17 of 500</c>. What takes no time is not shown.</summary>
/// <param name="activity">The cmdlet.</param>
/// <param name="total">How many images there are.</param>
/// <param name="show">Shows a record, if there is time for it.</param>
internal sealed class ItemsDisplay(string activity, int total, Func<ProgressRecord, bool> show)
{
    private const long MillisecondsBetween = 250;

    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly Lock _showing = new(); // guards all below
    private string _name = "";
    private int _number, _shown;
    private double _lastShown; // milliseconds since the start

    /// <summary>The activity's number, for those that are a part of it.</summary>
    public int Id { get; } = ProgressDisplay.NextId();

    /// <summary>Goes on to the next image.</summary>
    public void Next(string name)
    {
        lock (_showing)
        {
            (_number, _name) = (_number + 1, name);
            if (Stopwatch.GetElapsedTime(_started).TotalMilliseconds - _lastShown >= MillisecondsBetween)
            {
                Show();
            }
        }
    }

    /// <summary>Shows where the work is, unless that can be seen: a part of it is about to be shown.</summary>
    public void Show()
    {
        lock (_showing)
        {
            if (_shown == _number)
            {
                return;
            }
            _lastShown = Stopwatch.GetElapsedTime(_started).TotalMilliseconds;
            var record = new ProgressRecord(
                Id, activity, $"{_number:#,0} of {total:#,0}: {_name}") { PercentComplete = (int)(100L * (_number - 1) / total) };
            if (show(record))
            {
                _shown = _number;
            }
        }
    }

    /// <summary>The record that takes the display away; null if nothing was shown.</summary>
    public ProgressRecord? End()
    {
        lock (_showing)
        {
            return _shown == 0 ? null : new ProgressRecord(Id, activity, "Done") { RecordType = ProgressRecordType.Completed };
        }
    }
}
