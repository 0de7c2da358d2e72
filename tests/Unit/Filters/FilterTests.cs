using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Filters.BlkLogWrites;
using DiskImage.Filters.Throttle;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class FilterTests
{
    private const int Sector = 512;

    [Fact]
    public async Task A_throttle_lets_a_burst_through_and_then_its_rate()
    {
        var time = new HandTime();
        await using var node = new ThrottleNode(
            new MemoryNode(new byte[1 << 20]), new ThrottleOptions { BytesTotal = 100_000, RequestsWrite = 10 }, time);
        await node.ReadAsync(0, new byte[10_000]); // a tenth of a second's worth, into an empty bucket
        await node.ReadAsync(0, new byte[10_000]); // the bucket holds just the burst: goes at once
        Task third = node.ReadAsync(0, new byte[1]).AsTask();
        Assert.False(third.IsCompleted);
        time.Advance(TimeSpan.FromSeconds(0.11));
        await third;
        time.Advance(TimeSpan.FromSeconds(10));
        await node.WriteAsync(0, new byte[1]);
        await node.WriteAsync(0, new byte[1]);
        Task write = node.WriteAsync(0, new byte[1]).AsTask(); // the third request of ten a second
        Assert.False(write.IsCompleted);
        using var stop = new CancellationTokenSource();
        Task stopped = node.WriteAsync(0, new byte[1], stop.Token).AsTask();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stopped);
        time.Advance(TimeSpan.FromSeconds(1));
        await write;
        await node.ReadAsync(0, new byte[1]); // reads are not counted there
    }

    [Fact]
    public async Task A_write_log_replays_to_the_same_bytes()
    {
        byte[] before = new byte[64 * Sector];
        new Random(1).NextBytes(before);
        var log = new MemoryNode();
        var below = new MemoryNode([.. before]);
        byte[] data = new byte[3000];
        new Random(2).NextBytes(data);
        await using (var node = new BlkLogWritesNode(below, log, Sector))
        {
            await node.WriteAsync(777, data);
            await node.WriteZeroesAsync(8 * Sector, 4 * Sector);
            await node.FlushAsync();
            await node.DiscardAsync(32 * Sector, 2 * Sector);
        }
        byte[] bytes = log.ToArray();
        Assert.Equal(0x6A736677736872UL, LittleEndian.U64(bytes, 0));
        Assert.Equal((1UL, 4UL, (uint)Sector), (LittleEndian.U64(bytes, 8), LittleEndian.U64(bytes, 16), LittleEndian.U32(bytes, 24)));
        var flags = new List<ulong>();
        int at = Sector;
        for (ulong entry = 0; entry < 4; entry++)
        {
            int sector = (int)LittleEndian.U64(bytes, at), count = (int)LittleEndian.U64(bytes, at + 8);
            ulong flag = LittleEndian.U64(bytes, at + 16);
            flags.Add(flag);
            at += Sector;
            if (flag == 0)
            {
                bytes.AsSpan(at, count * Sector).CopyTo(before.AsSpan(sector * Sector));
                at += count * Sector;
            }
        }
        Assert.Equal([0, 0, 1, 4], flags);
        Assert.Equal(bytes.Length, at);
        Assert.Equal(below.ToArray()[..(32 * Sector)], before[..(32 * Sector)]);
        Assert.Equal(data, before[777..(777 + data.Length)]);
    }

    [Fact]
    public async Task Zeroes_are_zeroes_in_a_write_log_too_and_logging_them_can_be_cancelled()
    {
        var log = new Counting(new MemoryNode());
        await using var node = new BlkLogWritesNode(new MemoryNode(new byte[4 << 20]), log, Sector);
        await node.WriteZeroesAsync(0, 3 << 20);
        Assert.Equal((3 * Sector, 3 << 20), (log.Written, log.Zeroed)); // three headers
        using var stop = new CancellationTokenSource();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            async () => await node.WriteZeroesAsync(0, 3 << 20, cancellationToken: stop.Token));
        Assert.Equal(3 << 20, log.Zeroed);
    }

    /// <summary>Counts bytes.</summary>
    private sealed class Counting(BlockNode child) : FilterNode(child)
    {
        public long Written { get; private set; }

        public long Zeroed { get; private set; }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            Written += buffer.Length;
            return base.WriteCoreAsync(offset, buffer, cancellationToken);
        }

        protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            Zeroed += length;
            return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
        }
    }

    /// <summary>Time that stands until it is moved.</summary>
    private sealed class HandTime : TimeProvider
    {
        private readonly List<HandTimer> _timers = [];
        private long _now;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => _now;

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            var timer = new HandTimer(() => callback(state), _now + dueTime.Ticks);
            _timers.Add(timer);
            return timer;
        }

        public void Advance(TimeSpan by)
        {
            _now += by.Ticks;
            foreach (HandTimer timer in _timers.Where(t => t.Due <= _now).ToList())
            {
                _ = _timers.Remove(timer);
                timer.Fire();
            }
        }

        private sealed class HandTimer(Action fire, long due) : ITimer
        {
            public long Due => due;

            public void Fire() => fire();

            public bool Change(TimeSpan dueTime, TimeSpan period) => true;

            public void Dispose()
            {
            }

            public ValueTask DisposeAsync() => default;
        }
    }
}
