using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>The file below an image fails at each of its requests in turn.</summary>
public sealed class FaultTests
{
    private const int Most = 150; // points of failure that are tried in one workload

    public static TheoryData<string> Workloads() => [.. Workload.Names];

    /// <summary>One request fails; afterwards the disk works again and has lost nothing but what failed.</summary>
    [Theory]
    [MemberData(nameof(Workloads))]
    public async Task After_one_failure_everything_else_goes_on(string name)
    {
        Workload workload = await Workload.MakeAsync(name);
        foreach (long number in await PointsAsync(workload))
        {
            string what = $"{name}, request {number} fails";
            (MemoryNode memory, SectorModel model, int failures) = await RunAsync(
                workload, new Fault(RequestKinds.All, number, number % 2 == 0 ? DiskImageErrorKind.Io : DiskImageErrorKind.NoSpace), what);
            Assert.True(failures <= 1, $"{what}: {failures} operations failed");
            await using (BlockNode disk = await workload.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true)))
            {
                await VerifyAsync(model, disk, crashed: false, what);
            }
            await MemoryDisk.LeaksAtMostAsync(memory.ToArray(), what);
        }
    }

    /// <summary>From some request on every change fails, as on a device that is gone; what was flushed before is there.</summary>
    [Theory]
    [MemberData(nameof(Workloads))]
    public async Task A_file_that_fails_for_good_keeps_what_was_flushed(string name)
    {
        Workload workload = await Workload.MakeAsync(name);
        foreach (long number in await PointsAsync(workload, RequestKinds.Changes))
        {
            string what = $"{name}, changes fail from request {number} on";
            (MemoryNode memory, SectorModel model, int failures) = await RunAsync(
                workload, new Fault(RequestKinds.Changes, number) { Count = long.MaxValue, WrittenBytes = (int)(number % 3) * 512 }, what);
            Assert.True(failures > 0, $"{what}: nothing failed");
            await using (BlockNode disk = await workload.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true)))
            {
                await VerifyAsync(model, disk, crashed: true, what);
            }
            await MemoryDisk.LeaksAtMostAsync(memory.ToArray(), what);
        }
    }

    /// <summary>
    /// Compressed data whose table cannot be had, or that cannot be written, takes no space; nor does a table that cannot be copied.
    /// </summary>
    [Theory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=64k,compat=0.10")]
    public async Task A_compressed_write_that_fails_takes_nothing(string options)
    {
        const int Size = 4 << 20;
        var made = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made))
        {
            await disk.WriteAsync(0, SectorModel.Data(0, 400, 1));
            // its tables are shared from here on
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
        }
        bool failed = true;
        for (int number = 1; failed; number++)
        {
            var memory = new MemoryNode(made.ToArray());
            var file = new FaultInjectionNode(memory);
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                var compressed = (ICompressedWritable)disk;
                byte[] packed = new byte[compressed.CompressionUnit];
                int length = compressed.Compress(new byte[compressed.CompressionUnit], packed)!.Value;
                file.Arm(new Fault(RequestKinds.All, number, DiskImageErrorKind.NoSpace));
                failed = false;
                foreach (long at in new[] { 0, Size / 2 })
                {
                    try
                    {
                        await compressed.WriteCompressedAsync(at, packed.AsMemory(0, length), CancellationToken.None);
                    }
                    catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
                    {
                        failed = true;
                    }
                }
                file.Arm(null);
            }
            CheckReport report = await MemoryDisk.LeaksAtMostAsync(memory.ToArray(), $"{options}, request {number}");
            Assert.True(report.Leaks == 0, $"{options}, request {number}: {string.Join('\n', report.Findings.Take(3))}");
        }
    }

    /// <summary>A child that fails to close keeps neither the others open nor its failure to itself.</summary>
    [Fact]
    public async Task Every_child_is_closed_though_one_fails()
    {
        var backing = new MemoryNode(new byte[1 << 20], readOnly: true);
        var file = new Unclosable(new MemoryNode(await MemoryDisk.NewAsync("size=1M,backing_file=base,backing_fmt=raw")));
        FormatDriver driver = Images.Registry.Format("qcow2");
        BlockNode disk = await driver.OpenAsync(
            new FormatOpenContext(
                file, driver.OpenOptions.Defaults(), (_, _, _) => new(backing), (_, _, _) => throw new InvalidOperationException()),
            CancellationToken.None);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => disk.DisposeAsync().AsTask());
        Assert.Equal("it stays open", error.Message);
        Assert.True(backing.IsClosed);
    }

    private sealed class Unclosable(BlockNode child) : FilterNode(child)
    {
        protected override ValueTask CloseCoreAsync() => throw new DiskImageException(DiskImageErrorKind.Io, "it stays open");
    }

    /// <summary>A new image that cannot be written is an error, never a broken image taken for good.</summary>
    [Theory]
    [InlineData("size=1M")]
    [InlineData("size=1M,cluster_size=512,refcount_bits=64")]
    [InlineData("size=1M,cluster_size=4k,preallocation=metadata")]
    [InlineData("size=1M,cluster_size=4k,preallocation=full")]
    public async Task Creating_fails_with_the_error_of_the_file(string options)
    {
        var counter = new FaultInjectionNode(new MemoryNode());
        await MemoryDisk.CreateAsync(counter, options);
        long requests = counter.Requests(RequestKinds.Changes);
        Assert.True(requests > 3);
        for (long number = 1; number <= requests; number += 1 + (requests / 100))
        {
            var file = new FaultInjectionNode(new MemoryNode());
            file.Arm(new Fault(RequestKinds.Changes, number, DiskImageErrorKind.NoSpace) { Count = long.MaxValue });
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                async () => await MemoryDisk.CreateAsync(file, options));
            Assert.Equal(DiskImageErrorKind.NoSpace, error.Kind);
        }
    }

    /// <summary>A failed open leaves the file as it is and to its owner.</summary>
    [Fact]
    public async Task Opening_fails_with_the_error_of_the_file_and_changes_nothing()
    {
        Workload workload = await Workload.MakeAsync("backing");
        var counter = new FaultInjectionNode(new MemoryNode((byte[])workload.Image.Clone()));
        await (await workload.OpenAsync(counter)).DisposeAsync();
        long reads = counter.Requests(RequestKinds.Read);
        Assert.True(reads > 1);
        for (long number = 1; number <= reads; number++)
        {
            var memory = new MemoryNode((byte[])workload.Image.Clone());
            var file = new FaultInjectionNode(memory);
            file.Arm(new Fault(RequestKinds.Read, number, DiskImageErrorKind.Locked));
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await workload.OpenAsync(file));
            Assert.Equal(DiskImageErrorKind.Locked, error.Kind);
            Assert.False(memory.IsClosed);
            Assert.Equal(workload.Image, memory.ToArray());
            Assert.Equal(0, file.Requests(RequestKinds.Changes));
        }
    }

    /// <summary>The numbers of the requests that are to fail: all, or a sample, the first and last ones among it.</summary>
    private static async Task<IEnumerable<long>> PointsAsync(Workload workload, RequestKinds kinds = RequestKinds.All)
    {
        var file = new FaultInjectionNode(new MemoryNode((byte[])workload.Image.Clone()));
        BlockNode disk = await workload.OpenAsync(file);
        long before = file.Requests(kinds);
        foreach (GuestOperation operation in workload.Operations)
        {
            await operation.RunAsync(disk);
        }
        long count = file.Requests(kinds) - before;
        Assert.True(count > 50, $"only {count} requests");
        long step = 1 + (count / Most);
        return Enumerable.Range(0, (int)(count / step)).Select(i => 1 + (i * step)).Append(count);
    }

    private static async Task<(MemoryNode Memory, SectorModel Model, int Failures)> RunAsync(Workload workload, Fault fault, string what)
    {
        var memory = new MemoryNode((byte[])workload.Image.Clone());
        var file = new FaultInjectionNode(memory);
        SectorModel model = workload.NewModel();
        BlockNode disk = await workload.OpenAsync(file);
        file.Arm(fault);
        int failures = 0;
        foreach (GuestOperation operation in workload.Operations)
        {
            try
            {
                await operation.RunAsync(disk);
                model.Done(operation);
            }
            catch (DiskImageException e) when (e.Kind == fault.Error)
            {
                model.Failed(operation);
                failures++;
            }
            catch (Exception e) when (e is not Xunit.Sdk.XunitException)
            {
                Assert.Fail($"{what}: {operation} threw {e}");
            }
        }
        try
        {
            await disk.DisposeAsync();
        }
        catch (DiskImageException e) when (e.Kind == fault.Error)
        {
            failures++;
        }
        Assert.True(memory.IsClosed, $"{what}: the file stays open");
        return (memory, model, failures);
    }

    private static async Task VerifyAsync(SectorModel model, BlockNode disk, bool crashed, string what)
    {
        try
        {
            await model.VerifyAsync(disk, crashed);
        }
        catch (Xunit.Sdk.XunitException e)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
    }
}
