using System.Diagnostics;
using DiskImage.Block;
using DiskImage.Jobs;

namespace DiskImage.Tests.Jobs;

/// <summary>A bench sends the requests it is told to, flushes where it is told to, and tells their times in order.</summary>
public sealed class BenchJobTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    public async Task Requests_go_round_where_they_fit(int depth)
    {
        var disk = new RecordingNode(10_000);
        BenchResult result = await new BenchJob(disk, new BenchShape(1000, 500, 3000, IsWrite: false, 0, 0), 10, depth).RunAsync(
            null, CancellationToken.None);
        // 500, 3500 and 6500 fit; 9500 does not
        long[] expected = [.. Enumerable.Range(0, 10).Select(i => 500 + (i % 3 * 3000L)).Order()];
        Assert.Equal(expected, disk.Reads.Order());
        Assert.Empty(disk.Writes);
        Assert.Equal((10, 0), (result.Requests, result.Flushes));
    }

    [Theory]
    [InlineData(true, 4)]
    [InlineData(true, 16)]
    [InlineData(false, 4)]
    public async Task Flushes_come_between_writes(bool drains, int depth)
    {
        var disk = new RecordingNode(1 << 20);
        BenchResult result = await new BenchJob(disk, new BenchShape(512, 0, 512, IsWrite: true, 0xA5, 16, drains), 50, depth).RunAsync(
            null, CancellationToken.None);
        Assert.Equal(3, result.Flushes);
        Assert.Equal(50, disk.Writes.Count);
        Assert.True(disk.AllWere(0xA5));
        Assert.Equal(3, disk.WritesBeforeFlush.Count);
        if (drains)
        {
            Assert.Equal([16, 32, 48], disk.WritesBeforeFlush);
        }
    }

    [Fact]
    public async Task Percentiles_are_in_order_and_none_is_past_the_longest()
    {
        BenchResult result = await new BenchJob(
            new RecordingNode(1 << 20), new BenchShape(4096, 0, 4096, IsWrite: false, 0, 0), 500, 4).RunAsync(null, CancellationToken.None);
        TimeSpan[] times = [result.Median, result.Percentile90, result.Percentile99, result.Longest];
        Assert.Equal(times.Order(), times);
        Assert.True(result.Mean <= result.Longest);
    }

    [Fact]
    public void A_histogram_is_at_most_a_thirty_second_above_what_it_was_told()
    {
        var random = new Random(5);
        var histogram = new LatencyHistogram();
        var half = new LatencyHistogram();
        long[] told = [.. Enumerable.Range(0, 5000).Select(_ => (long)Math.Exp(random.NextDouble() * 40))];
        for (int i = 0; i < told.Length; i++)
        {
            (i % 2 == 0 ? histogram : half).Add(told[i]);
        }
        histogram.Add(half);
        Array.Sort(told);
        foreach (int percent in new[] { 1, 50, 90, 99, 100 })
        {
            double exact = told[(int)Math.Ceiling(told.Length * percent / 100.0) - 1] / (double)Stopwatch.Frequency;
            double shown = histogram.Percentile(percent).TotalSeconds;
            Assert.InRange(shown, exact - 1e-6, (exact * 33 / 32) + 1e-6);
        }
        Assert.Equal(told[^1] / (double)Stopwatch.Frequency, histogram.Longest.TotalSeconds, 5);
        Assert.Equal(default, new LatencyHistogram().Percentile(99));
    }

    [Fact]
    public async Task Requests_that_need_too_much_memory_are_refused()
    {
        var shape = new BenchShape(1 << 30, 0, 512, IsWrite: false, 0, 0);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            () => new BenchJob(new RecordingNode(512), shape, 1, 64).RunAsync(null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.OutOfRange, e.Kind);
    }

    [Fact]
    public async Task The_first_failure_ends_it()
    {
        var shape = new BenchShape(4096, 0, 4096, IsWrite: false, 0, 0);
        var disk = new RecordingNode(1000); // no request fits
        _ = await Assert.ThrowsAsync<DiskImageException>(() => new BenchJob(disk, shape, 1_000_000, 4).RunAsync(null, CancellationToken.None));
        Assert.True(disk.Reads.Count < 100);
    }

    private sealed class RecordingNode(long length) : BlockNode
    {
        private readonly Lock _lock = new();
        private readonly HashSet<byte> _written = [];

        public List<long> Reads { get; } = [];

        public List<long> Writes { get; } = [];

        public List<int> WritesBeforeFlush { get; } = [];

        public override string Name => "recording";

        public override long Length => length;

        public override bool IsReadOnly => false;

        public bool AllWere(byte value) => _written.SetEquals([value]);

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            lock (_lock)
            {
                Reads.Add(offset);
            }
            return default;
        }

        protected override async ValueTask WriteCoreAsync(
            long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            await Task.Yield();
            lock (_lock)
            {
                Writes.Add(offset);
                _written.UnionWith(buffer.ToArray());
            }
        }

        protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        {
            lock (_lock)
            {
                WritesBeforeFlush.Add(Writes.Count);
            }
            return default;
        }
    }
}
