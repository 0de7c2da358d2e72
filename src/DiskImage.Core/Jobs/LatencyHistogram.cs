using System.Diagnostics;
using System.Numerics;

namespace DiskImage.Jobs;

/// <summary>
/// Times of requests in little memory, however many there are: each counts in a bucket that is a thirty-second of its power of two wide,
/// so a percentile is at most 1/32 above the true one. For one thread.
/// </summary>
internal sealed class LatencyHistogram
{
    private const int Bits = 5; // of a bucket within its power of two
    private const int Buckets = 1 << Bits;

    private readonly long[] _counts = new long[(64 - Bits) * Buckets];
    private long _count, _longest;
    private double _sum;

    /// <summary>The mean; zero if there are none.</summary>
    public TimeSpan Mean => _count == 0 ? default : Time(_sum / _count);

    /// <summary>The longest.</summary>
    public TimeSpan Longest => Time(_longest);

    /// <summary>Counts a request.</summary>
    /// <param name="elapsed">Ticks of <see cref="Stopwatch"/>; not negative.</param>
    public void Add(long elapsed)
    {
        _counts[BucketOf(elapsed)]++;
        _count++;
        _sum += elapsed;
        _longest = Math.Max(_longest, elapsed);
    }

    /// <summary>Counts all that another has counted.</summary>
    public void Add(LatencyHistogram other)
    {
        for (int i = 0; i < _counts.Length; i++)
        {
            _counts[i] += other._counts[i];
        }
        _count += other._count;
        _sum += other._sum;
        _longest = Math.Max(_longest, other._longest);
    }

    /// <summary>The time that so many of a hundred requests took at most.</summary>
    public TimeSpan Percentile(int percent)
    {
        long wanted = (long)Math.Ceiling(_count * percent / 100.0), seen = 0;
        for (int i = 0; i < _counts.Length; i++)
        {
            seen += _counts[i];
            if (seen >= wanted && seen > 0)
            {
                return Time(Math.Min(LargestOf(i), _longest));
            }
        }
        return Longest;
    }

    private static int BucketOf(long value)
    {
        int shift = Math.Max(0, BitOperations.Log2((ulong)value) - Bits);
        return (shift << Bits) + (int)(value >> shift);
    }

    /// <summary>The largest value that a bucket counts.</summary>
    private static long LargestOf(int bucket)
    {
        int shift = Math.Max(0, (bucket >> Bits) - 1);
        return ((bucket - ((long)shift << Bits) + 1) << shift) - 1;
    }

    private static TimeSpan Time(double ticks) => TimeSpan.FromTicks((long)(ticks * TimeSpan.TicksPerSecond / Stopwatch.Frequency));
}
