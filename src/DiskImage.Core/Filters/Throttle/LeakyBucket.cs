namespace DiskImage.Filters.Throttle;

/// <summary>
/// What was let through lies in a bucket that drains at the limit's rate. A request may go while there is no more in it than fits. Not safe
/// for use by several at once.
/// </summary>
/// <remarks>
/// Without a burst a tenth of a second's worth fits, so that a request does not wait for the one before it. With one, so much fits as the
/// burst brings at its rate in its time; and of a burst of more than a second its own rate is kept by a second bucket, which holds a tenth
/// of a second's worth and drains at the burst's rate. Source: the documentation of QEMU, docs/throttle.txt ("The leaky bucket algorithm").
/// </remarks>
/// <param name="rate">A second, above 0.</param>
/// <param name="burst">A second in a burst; 0 for none.</param>
/// <param name="seconds">How long a burst may last.</param>
internal sealed class LeakyBucket(double rate, double burst, double seconds)
{
    private const double AtOnce = 0.1; // of a second

    private readonly double _room = burst > 0 ? burst * seconds : rate * AtOnce;
    private double _level, _burstLevel;

    private bool IsLong => burst > 0 && seconds > 1;

    /// <summary>Seconds until something may be poured in, if nothing else is; 0 for at once.</summary>
    public double Wait => Math.Max(
        Math.Max(0, (_level - _room) / rate), IsLong ? (_burstLevel - (burst * AtOnce)) / burst : 0);

    /// <summary>Time has passed.</summary>
    public void Drain(double passed)
    {
        _level = Math.Max(0, _level - (rate * passed));
        _burstLevel = Math.Max(0, _burstLevel - (burst * passed));
    }

    /// <summary>Something is let through.</summary>
    public void Pour(double amount)
    {
        _level += amount;
        _burstLevel += IsLong ? amount : 0;
    }
}
