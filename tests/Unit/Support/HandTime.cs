namespace DiskImage.Tests.Support;

/// <summary>Time that stands until it is moved.</summary>
internal sealed class HandTime : TimeProvider
{
    private readonly Lock _sync = new(); // guards the timers
    private readonly List<HandTimer> _timers = [];
    private long _now;

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    /// <summary>Timers that wait.</summary>
    public int Waiting
    {
        get
        {
            lock (_sync)
            {
                return _timers.Count;
            }
        }
    }

    public override long GetTimestamp() => _now;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new HandTimer(this, () => callback(state), _now + dueTime.Ticks);
        lock (_sync)
        {
            _timers.Add(timer);
        }
        return timer;
    }

    public void Advance(TimeSpan by)
    {
        List<HandTimer> due;
        lock (_sync)
        {
            _now += by.Ticks;
            due = [.. _timers.Where(t => t.Due <= _now)];
            _ = _timers.RemoveAll(due.Contains);
        }
        due.ForEach(t => t.Fire());
    }

    private sealed class HandTimer(HandTime time, Action fire, long due) : ITimer
    {
        public long Due => due;

        public void Fire() => fire();

        public bool Change(TimeSpan dueTime, TimeSpan period) => true;

        public void Dispose()
        {
            lock (time._sync)
            {
                _ = time._timers.Remove(this);
            }
        }

        public ValueTask DisposeAsync()
        {
            Dispose();
            return default;
        }
    }
}
