using DiskImage.Block;

namespace DiskImage.Filters.Throttle;

/// <summary>Passes everything through, not faster than its limits. What has to wait is waiting cancellably, in order of arrival.</summary>
internal sealed class ThrottleNode : FilterNode
{
    private readonly TimeProvider _time;
    private readonly LeakyBucket[] _reads, _writes; // bytes
    private readonly LeakyBucket[] _readRequests, _writeRequests;

    public ThrottleNode(BlockNode child, ThrottleOptions limits, TimeProvider time)
        : base(child)
    {
        _time = time;
        LeakyBucket[] bytes = Buckets(limits.BytesTotal), requests = Buckets(limits.RequestsTotal);
        (_reads, _writes) = ([.. bytes, .. Buckets(limits.BytesRead)], [.. bytes, .. Buckets(limits.BytesWrite)]);
        (_readRequests, _writeRequests) = ([.. requests, .. Buckets(limits.RequestsRead)], [.. requests, .. Buckets(limits.RequestsWrite)]);
    }

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await PassAsync(_reads, buffer.Length, _readRequests, cancellationToken).ConfigureAwait(false);
        await base.ReadCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await PassAsync(_writes, buffer.Length, _writeRequests, cancellationToken).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await PassAsync(_writes, length, _writeRequests, cancellationToken).ConfigureAwait(false);
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await PassAsync(_writes, length, _writeRequests, cancellationToken).ConfigureAwait(false);
        await base.DiscardCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    private LeakyBucket[] Buckets(long limit) => limit == 0 ? [] : [new LeakyBucket(limit, _time)];

    private async ValueTask PassAsync(LeakyBucket[] bytes, long length, LeakyBucket[] requests, CancellationToken cancellationToken)
    {
        TimeSpan wait = TimeSpan.Zero;
        foreach (LeakyBucket bucket in bytes)
        {
            wait = Longer(wait, bucket.Take(length));
        }
        foreach (LeakyBucket bucket in requests)
        {
            wait = Longer(wait, bucket.Take(1));
        }
        if (wait > TimeSpan.Zero)
        {
            await Task.Delay(wait, _time, cancellationToken).ConfigureAwait(false);
        }
    }

    private static TimeSpan Longer(TimeSpan a, TimeSpan b) => a > b ? a : b;

    /// <summary>
    /// What was let through drains at the limit's rate. A request goes at once while no more than a tenth of a second's worth stands in the
    /// bucket (QEMU's burst), and otherwise waits until that is so; what it brings is poured in when it comes, so
    /// later ones wait behind it.
    /// </summary>
    private sealed class LeakyBucket(double perSecond, TimeProvider time)
    {
        private const double BurstSeconds = 0.1, LongestSeconds = 86400; // a request beyond all measure waits a day, not for ever

        private readonly Lock _sync = new(); // guards the rest
        private double _level;
        private long _drained = time.GetTimestamp();

        public TimeSpan Take(double amount)
        {
            lock (_sync)
            {
                long now = time.GetTimestamp();
                _level = Math.Max(0, _level - (time.GetElapsedTime(_drained, now).TotalSeconds * perSecond));
                _drained = now;
                double wait = (_level / perSecond) - BurstSeconds;
                _level += amount;
                return TimeSpan.FromSeconds(Math.Clamp(wait, 0, LongestSeconds));
            }
        }
    }
}
