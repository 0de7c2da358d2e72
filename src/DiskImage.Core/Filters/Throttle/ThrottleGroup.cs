using DiskImage.Block;

namespace DiskImage.Filters.Throttle;

/// <summary>
/// Limits, and what was let through under them, of one node or of several that share them. Reads wait behind reads and writes behind
/// writes, in order of arrival whatever node they come from; the first of either goes as soon as all limits that count it allow.
/// </summary>
/// <param name="time">The clock.</param>
/// <param name="name">What the group is called, for messages; empty for the limits of one node.</param>
#pragma warning disable CA1001 // a group ends with its last node; semaphores whose handle nobody asks for hold nothing
internal sealed class ThrottleGroup(TimeProvider time, string name = "")
#pragma warning restore CA1001
{
    private const double LongestSeconds = 86400; // waited before it is looked again: timers do not take just any number. Ours

    private readonly Lock _sync = new(); // guards the buckets, the options and the clock
    private readonly SemaphoreSlim _reads = new(1, 1), _writes = new(1, 1); // held by the first that waits
    private ThrottleOptions? _options;
    private (ThrottleUse Use, LeakyBucket Bucket)[] _buckets = [];
    private long _drained = time.GetTimestamp();

    /// <summary>A group of its own for one node.</summary>
    public ThrottleGroup(TimeProvider time, ThrottleOptions limits)
        : this(time) => Limit(limits);

    /// <summary>Takes the limits that a node of the group gives. One that gives none takes those of the others.</summary>
    /// <exception cref="DiskImageException">InvalidOption: another node gave others.</exception>
    public void Limit(ThrottleOptions options)
    {
        if (!options.HasLimits)
        {
            return;
        }
        lock (_sync)
        {
            if (_options is not null && _options != options)
            {
                throw ThrottleOptions.Wrong(
                    $"two nodes of the group '{name}' give it different ones. Give them at one node, or the same at each");
            }
            if (_options is null)
            {
                _options = options;
                _buckets = [.. options.Limits.Where(l => l.Rate.Average > 0).Select(
                    l => (l.Use, new LeakyBucket(l.Rate.Average, l.Rate.Burst, l.Rate.Seconds)))];
            }
        }
    }

    /// <summary>Waits until a request may go, which then counts.</summary>
    /// <param name="use">Reads or Writes.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="cancellationToken">Gives up waiting: it never counts then.</param>
    public async ValueTask PassAsync(ThrottleUse use, long length, CancellationToken cancellationToken)
    {
        if (_buckets.Length == 0)
        {
            return;
        }
        SemaphoreSlim gate = use == ThrottleUse.Reads ? _reads : _writes;
        await gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            for (TimeSpan wait; (wait = Take(use, length)) > TimeSpan.Zero;)
            {
                // in whole milliseconds, as timers are: less would be no wait at all
                await Task.Delay(TimeSpan.FromMilliseconds(Math.Ceiling(wait.TotalMilliseconds)), time, cancellationToken)
                    .ConfigureAwait(false);
            }
        }
        finally
        {
            _ = gate.Release();
        }
    }

    /// <summary>Counts a request if it may go now, and returns zero; otherwise the time after which to ask again.</summary>
    internal TimeSpan Take(ThrottleUse use, long length)
    {
        lock (_sync)
        {
            long now = time.GetTimestamp();
            double passed = time.GetElapsedTime(_drained, now).TotalSeconds, wait = 0;
            _drained = now;
            foreach ((ThrottleUse counted, LeakyBucket bucket) in _buckets)
            {
                bucket.Drain(passed);
                wait = Math.Max(wait, counted.HasFlag(use) ? bucket.Wait : 0);
            }
            if (wait * TimeSpan.TicksPerSecond >= 1)
            {
                return TimeSpan.FromSeconds(Math.Min(wait, LongestSeconds));
            }
            foreach ((ThrottleUse counted, LeakyBucket bucket) in _buckets)
            {
                bucket.Pour(!counted.HasFlag(use) ? 0 : counted.HasFlag(ThrottleUse.Bytes) ? length : RequestsOf(length));
            }
            return TimeSpan.Zero;
        }
    }

    private double RequestsOf(long length)
        => _options!.RequestSize is > 0 and long size && length > size ? (double)length / size : 1;
}
