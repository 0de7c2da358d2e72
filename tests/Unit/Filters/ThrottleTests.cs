using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Filters.Throttle;
using DiskImage.Formats.Raw;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Protocols.File;
using DiskImage.Protocols.Null;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class ThrottleNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new ThrottleNode(
            new MemoryNode((byte[])contents.Clone(), !writable),
            new ThrottleGroup(
                TimeProvider.System,
                new ThrottleOptions { BytesTotal = new() { Average = 1_000_000_000_000 }, RequestsRead = new() { Average = 1_000_000_000 } })));
}

/// <summary>When requests go: by a clock that the test moves.</summary>
public sealed class ThrottleTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_tenth_of_a_second_goes_at_once_and_then_the_rate_holds()
    {
        var time = new HandTime();
        await using var node = new ThrottleNode(
            new MemoryNode(new byte[1 << 20]),
            new ThrottleGroup(
                time, new ThrottleOptions { BytesTotal = new() { Average = 100_000 }, RequestsWrite = new() { Average = 10 } }));
        await node.ReadAsync(0, new byte[10_000]); // a tenth of a second's worth, into an empty bucket
        await node.ReadAsync(0, new byte[10_000]); // the bucket holds just that: goes at once
        Task third = node.ReadAsync(0, new byte[1]).AsTask();
        time.Advance(TimeSpan.FromSeconds(0.099));
        Assert.False(third.IsCompleted);
        time.Advance(TimeSpan.FromSeconds(0.001));
        await third;
        time.Advance(TimeSpan.FromSeconds(10));
        await node.WriteAsync(0, new byte[1]);
        await node.WriteAsync(0, new byte[1]);
        Task write = node.WriteAsync(0, new byte[1]).AsTask(); // the third request of ten a second
        Assert.False(write.IsCompleted);
        await node.ReadAsync(0, new byte[1]); // reads are not counted there, and do not wait behind writes
        using var stop = new CancellationTokenSource();
        Task stopped = node.WriteAsync(0, new byte[1], stop.Token).AsTask();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stopped);
        time.Advance(TimeSpan.FromSeconds(0.1));
        await write;
        time.Advance(TimeSpan.FromSeconds(0.1));
        await node.WriteAsync(0, new byte[1]); // what was given up does not count
        Assert.Equal(0, time.Waiting);
    }

    /// <summary>The example of QEMU's documentation of bursts that last: 2000 requests a second for a minute, then 100.</summary>
    [Fact]
    public void A_burst_keeps_its_rate_for_its_time_and_then_the_average_holds()
    {
        var time = new HandTime();
        var group = new ThrottleGroup(
            time, new ThrottleOptions { RequestsTotal = new() { Average = 100, Burst = 2000, Seconds = 60 } });
        int[] perSecond = new int[80];
        for (int tick = 0; tick < 80_000; tick++) // a request whenever one may go, asked each millisecond
        {
            while (group.Take(ThrottleUse.Reads, 512) == TimeSpan.Zero)
            {
                perSecond[tick / 1000]++;
            }
            time.Advance(TimeSpan.FromMilliseconds(1));
        }
        Assert.InRange(perSecond[0], 2199, 2202); // with the tenth of a second's worth that goes at once
        Assert.All(perSecond[1..60], n => Assert.InRange(n, 1999, 2001));
        Assert.All(perSecond[65..], n => Assert.InRange(n, 99, 101));
        Assert.InRange(perSecond.Sum(), 120_000 + (100 * 80) - 10, 120_000 + (100 * 80) + 10);
        time.Advance(TimeSpan.FromSeconds(600)); // half of what the burst holds has drained
        int again = 0;
        for (int tick = 0; tick < 60_000; tick++)
        {
            while (group.Take(ThrottleUse.Writes, 512) == TimeSpan.Zero)
            {
                again++;
            }
            time.Advance(TimeSpan.FromMilliseconds(1));
        }
        Assert.InRange(again, 60_000 + (100 * 60) - 10, 60_000 + (100 * 60) + 10);
    }

    [Fact]
    public void A_burst_of_a_second_is_let_through_at_once()
    {
        var time = new HandTime();
        var group = new ThrottleGroup(time, new ThrottleOptions { BytesWrite = new() { Average = 1000, Burst = 5000 } });
        int passed = 0;
        while (group.Take(ThrottleUse.Writes, 1000) == TimeSpan.Zero)
        {
            passed++;
        }
        Assert.Equal(6, passed); // while no more than 5000 are in the bucket
        Assert.Equal(TimeSpan.FromSeconds(1), group.Take(ThrottleUse.Writes, 1000));
        Assert.Equal(TimeSpan.Zero, group.Take(ThrottleUse.Reads, 1 << 30));
    }

    [Fact]
    public void A_long_request_counts_as_several()
    {
        var time = new HandTime();
        var group = new ThrottleGroup(time, new ThrottleOptions { RequestsRead = new() { Average = 10 }, RequestSize = 4096 });
        Assert.Equal(TimeSpan.Zero, group.Take(ThrottleUse.Reads, 10 * 4096)); // ten
        Assert.Equal(TimeSpan.FromSeconds(0.9), group.Take(ThrottleUse.Reads, 1)); // until one is left
        time.Advance(TimeSpan.FromSeconds(0.9));
        Assert.Equal(TimeSpan.Zero, group.Take(ThrottleUse.Reads, 6144)); // one and a half
        Assert.Equal(TimeSpan.FromSeconds(0.15), group.Take(ThrottleUse.Reads, 1));
        time.Advance(TimeSpan.FromSeconds(0.15));
        Assert.Equal(TimeSpan.Zero, group.Take(ThrottleUse.Reads, 100)); // never less than one
        Assert.Equal(TimeSpan.FromSeconds(0.1), group.Take(ThrottleUse.Reads, 1));
    }

    /// <summary>
    /// Requests at random under limits at random. In no span of time passes more than the limits let, and none waits longer than it must:
    /// both by the sums of what passed, and not by buckets.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void No_more_passes_than_the_limits_let_and_no_less(int seed)
    {
        var random = new Random(seed);
        long average = random.Next(1000, 100_000), burst = seed % 3 == 0 ? 0 : average * random.Next(1, 20);
        long seconds = seed % 3 == 1 ? random.Next(2, 8) : 1;
        double room = burst == 0 ? average / 10.0 : burst * seconds;
        var time = new HandTime();
        var group = new ThrottleGroup(
            time, new ThrottleOptions { BytesTotal = new() { Average = average, Burst = burst, Seconds = seconds } });
        var passed = new List<(double At, double Before, long Bytes)>();
        double now = 0, all = 0, waited = 0;
        while (passed.Count < 400)
        {
            long bytes = random.Next(1, (int)average / 4);
            bool hadToWait = false;
            ThrottleUse use = random.Next(2) == 0 ? ThrottleUse.Reads : ThrottleUse.Writes;
            for (TimeSpan wait; (wait = group.Take(use, bytes)) > TimeSpan.Zero; hadToWait = true)
            {
                Advance(wait);
                waited += wait.TotalSeconds;
            }
            passed.Add((now, all, bytes));
            // what had passed before it, from some moment on, comes to all that the limit lets in the time since then
            double slack = passed.Min(p => room + (average * (now - p.At)) - (all - p.Before));
            double burstSlack = seconds == 1 ? double.MaxValue
                : passed.Min(p => (burst / 10.0) + (burst * (now - p.At)) - (all - p.Before));
            double least = Math.Min(slack, burstSlack);
            Assert.True(least > -1, $"seed {seed}, request {passed.Count}: {-least} bytes too many");
            Assert.True(!hadToWait || least < 1, $"seed {seed}, request {passed.Count}: {least} bytes would have gone before");
            all += bytes;
            if (random.Next(20) == 0)
            {
                Advance(TimeSpan.FromMilliseconds(random.Next(1, 3000)));
            }
        }
        Assert.True(waited > 0, $"seed {seed}: nothing was limited");

        void Advance(TimeSpan by)
        {
            time.Advance(by);
            now += by.TotalSeconds;
        }
    }

    [Theory]
    [InlineData(11)]
    [InlineData(12)]
    public async Task The_disk_reads_as_its_twin(int seed)
    {
        byte[] twin = new byte[1 << 20];
        await using var node = new ThrottleNode(
            new FixedLengthNode(new MemoryNode(new byte[twin.Length])),
            new ThrottleGroup(
                TimeProvider.System,
                new ThrottleOptions
                {
                    BytesTotal = new() { Average = 1L << 36, Burst = 1L << 37, Seconds = 9 }, RequestsTotal = new() { Average = 1 << 20 },
                }));
        await RandomRequests.ExerciseAsync(node, twin, seed);
    }

    [Fact]
    public async Task The_nodes_of_a_group_share_its_limits_whichever_gives_them()
    {
        var time = new HandTime();
        var registry = new DriverRegistry([new RawDriver()], [new FileDriver(), new NullDriver(isLate: false)], [new ThrottleDriver(time)]);
        ImageOpener opener = new ImageOpener(registry, OpenPolicy.Default).NamingBacking("x", _folder["y"]); // one more of the operation
        await using OpenedImage limited = await OpenAsync("throttling.group=g,limits.bps-total=1000", opener);
        await using OpenedImage silent = await OpenAsync("throttle-group=g", opener);
        await using OpenedImage same = await OpenAsync("throttle-group=g,x-bps-total=1000", opener);
        await using OpenedImage alone = await OpenAsync("bps-total=1000", opener);
        await using OpenedImage other = await OpenAsync("throttle-group=h,bps-total=1000", opener);
        await silent.Node.ReadAsync(0, new byte[1100]);
        Task[] waiting = [.. new[] { limited, same, silent }.Select(i => i.Node.WriteAsync(0, new byte[10]).AsTask())];
        await alone.Node.ReadAsync(0, new byte[10]);
        await other.Node.ReadAsync(0, new byte[10]);
        time.Advance(TimeSpan.FromSeconds(0.999));
        Assert.All(waiting, t => Assert.False(t.IsCompleted));
        time.Advance(TimeSpan.FromSeconds(0.001));
        await waiting[0];
        while (!Task.WhenAll(waiting).IsCompleted) // each lets the next one look, some time later
        {
            await Task.Yield();
            time.Advance(TimeSpan.FromMilliseconds(1));
        }
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync("throttle-group=g,bps-total=1001", opener));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains("two nodes of the group 'g'", e.Message, StringComparison.Ordinal);
        await using OpenedImage elsewhere = await OpenAsync("throttle-group=g,bps-total=1001", new ImageOpener(registry, OpenPolicy.Default));
    }

    /// <summary>What QEMU refuses, we do; what it takes, we take, with the same bytes.</summary>
    [OracleTheory("qemu-io")]
    [InlineData("bps-total=1048576,bps-read=5", false)]
    [InlineData("bps-total=1048576,bps-write-max=5,bps-write=5", false)]
    [InlineData("bps-total=1048576,iops-write=5", true)]
    [InlineData("iops-total=100,iops-total-max=50", false)]
    [InlineData("iops-total=100,iops-total-max=100", true)]
    [InlineData("iops-total-max=50", false)]
    [InlineData("iops-total=100,iops-total-max-length=5", false)]
    [InlineData("iops-total=100,iops-total-max-length=1", true)]
    [InlineData("iops-total=100,iops-total-max=200,iops-total-max-length=0", false)]
    [InlineData("iops-total=100,iops-total-max=2000,iops-total-max-length=60", true)]
    [InlineData("iops-read=100,iops-read-max=1000000,iops-read-max-length=1000000000", true)]
    [InlineData("iops-read=100,iops-read-max=1000000,iops-read-max-length=1000000001", false)]
    [InlineData("iops-read=100,iops-read-max=200,iops-read-max-length=4294967295", true)]
    [InlineData("iops-read=100,iops-read-max=200,iops-read-max-length=4294967296", false)]
    [InlineData("bps-total=1000000000000000", true)]
    [InlineData("bps-total=1000000000000001", false)]
    [InlineData("iops-size=4096", false)]
    [InlineData("iops-size=4096,bps-write=1000000", false)]
    [InlineData("iops-size=4096,iops-write=1000", true)]
    [InlineData("iops-total=-1", false)]
    public async Task The_limits_are_QEMU_s_and_so_are_their_contradictions(string limits, bool isGood)
    {
        string path = _folder["disk.raw"];
        byte[] bytes = new byte[65536];
        new Random(3).NextBytes(bytes);
        await File.WriteAllBytesAsync(path, bytes);
        foreach (string prefix in new[] { "limits.", "x-" })
        {
            string theirs = string.Concat(limits.Split(',').Select(l => $",{prefix}{l}"));
            (int code, string output, string errors) = await Programs.TryAsync(
                "qemu-io", "--object", $"throttle-group,id=g{theirs}", "--image-opts",
                $"driver=throttle,throttle-group=g,file.driver=file,file.filename={path}", "-c", "read -v 0 16");
            Assert.True(isGood == (code == 0 && errors.Length == 0), $"{output}{errors}");
        }
        foreach (string prefix in new[] { "limits.", "x-", "" })
        {
            string ours = string.Join(',', limits.Split(',').Select(l => prefix + l));
            string description = NodeSpec.From(OptionSchema.Values(
                $"driver=throttle,throttle-group=g,{ours},file.driver=raw,file.file.filename={path}")).ToString();
            if (!isGood)
            {
                DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
                    async () => await Images.Opener.OpenAsync(new OpenRequest(description), CancellationToken.None));
                Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
                Assert.Contains(limits.Split('=')[0].Split('-')[0], e.Message, StringComparison.Ordinal);
                continue;
            }
            await using OpenedImage image = await new ImageOpener(Images.Registry, OpenPolicy.Default).OpenAsync(
                new OpenRequest(description), CancellationToken.None);
            byte[] read = new byte[16];
            await image.Node.ReadAsync(0, read);
            Assert.Equal(bytes[..16], read);
        }
    }

    [Theory]
    [InlineData("bps-total=5,limits.bps-total=5", "said twice, as 'limits.bps-total'")]
    [InlineData("limits.bps=5", "Unknown option 'limits.bps'")]
    [InlineData("throttling.throttle-group=a,throttling.group=b", "said twice")]
    public async Task A_limit_is_said_once_and_by_its_name(string options, string message)
    {
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(options, Images.Opener));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    private static async Task<OpenedImage> OpenAsync(string options, ImageOpener opener) => await opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values($"driver=throttle,{options},file.driver=null-co")).ToString())
        {
            Writable = true,
        },
        CancellationToken.None);
}
