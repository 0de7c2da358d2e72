using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// What a cancelled or failed operation leaves behind in an open image: no mark, nothing that the next request or closing would be misled
/// by, and nothing open.
/// </summary>
public sealed class Qcow2CancelTests
{
    private const int Size = 256 << 10, At = 40 << 10, IncompatibleAt = 72;

    private static readonly FormatDriver s_qcow2 = Images.Registry.Format("qcow2");

    /// <summary>The refcounts are late when it begins, so the image is marked; making up for that is what is cancelled.</summary>
    [Theory]
    [InlineData("create")]
    [InlineData("restore")]
    [InlineData("delete")]
    [InlineData("check")]
    [InlineData("refcount_bits=64")]
    [InlineData("lazy_refcounts=off")]
    public async Task With_late_refcounts_no_mark_is_left(string operation)
    {
        byte[] image = await MakeAsync("cluster_size=4k,lazy_refcounts=on"), data = Data(9);
        int cancelled = 0;
        for (long number = 1; number <= 60; number++)
        {
            using var stop = new CancellationTokenSource();
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new Trigger(memory);
            bool isCancelled = false;
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                await disk.WriteAsync(At, data);
                Assert.Equal(1UL, Marks(memory));
                file.At(number, stop.Cancel);
                try
                {
                    await RunAsync(disk, operation, stop.Token);
                }
                catch (OperationCanceledException)
                {
                    isCancelled = true;
                    cancelled++;
                }
                file.At(0, () => { });
            }
            string what = $"{operation}, cancelled at request {number}";
            Assert.True(Marks(memory) == 0, $"{what}: marked");
            Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(memory.ToArray(), what)).Leaks);
            Assert.True(!isCancelled
                || (await ReadAsync(memory)).AsSpan(At, data.Length).SequenceEqual(data), $"{what}: what was written is gone");
        }
        Assert.True(cancelled > 3, $"cancelled {cancelled} times");
    }

    /// <summary>Cancelled behind the switch to other refcounts, the open image must go by the new ones, not the old.</summary>
    [Theory]
    [InlineData("cluster_size=4k", "refcount_bits=64")]
    [InlineData("cluster_size=512,refcount_bits=64", "refcount_bits=1")]
    [InlineData("cluster_size=4k", "compat=0.10")]
    public async Task What_was_cancelled_can_be_written_to_at_once(string options, string change)
    {
        byte[] image = await MakeAsync(options), expected = await ReadAsync(new MemoryNode(image, readOnly: true)), data = Data(17);
        data.CopyTo(expected, At);
        for (long number = 1; number <= 200; number += 1 + (number / 60))
        {
            using var stop = new CancellationTokenSource();
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new Trigger(memory);
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                file.At(number, stop.Cancel);
                try
                {
                    await RunAsync(disk, change, stop.Token);
                }
                catch (OperationCanceledException)
                {
                    // It may be done by now, or not.
                }
                file.At(0, () => { });
                await disk.WriteAsync(At, data);
            }
            string what = $"{options}, {change}, cancelled at request {number}";
            Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(memory.ToArray(), what)).Leaks);
            Assert.True((await ReadAsync(memory)).AsSpan().SequenceEqual(expected), $"{what}: reads otherwise");
        }
    }

    /// <summary>Closing: the refcounts cannot be settled at once, and the bitmaps are stored all the same.</summary>
    [Fact]
    public async Task Closing_stores_the_bitmaps_where_something_else_fails()
    {
        var memory = new MemoryNode(await MakeAsync("cluster_size=4k,lazy_refcounts=on"));
        var file = new FaultInjectionNode(memory);
        BlockNode disk = await MemoryDisk.OpenAsync(file);
        _ = await ((IBitmaps)disk).AddBitmapAsync("b", null, enabled: true, CancellationToken.None);
        await disk.WriteAsync(At, Data(3));
        file.Arm(new Fault(RequestKinds.Write, 1, DiskImageErrorKind.NoSpace));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.DisposeAsync());
        Assert.Equal(DiskImageErrorKind.NoSpace, error.Kind);
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(memory.ToArray()));
        DiskBitmap bitmap = Assert.Single(await ((IBitmaps)again).GetBitmapsAsync(CancellationToken.None));
        Assert.False(bitmap.IsInUse);
        Assert.Contains(await ((IBitmaps)again).GetDirtyRangesAsync("b", CancellationToken.None), r => r.Offset <= At
            && At < r.Offset + r.Length);
    }

    /// <summary>A new image that cannot be completed leaves its data file closed, whichever request fails.</summary>
    [Fact]
    public async Task Creating_closes_the_data_file_where_it_fails()
    {
        var options = ((ICreatable)s_qcow2).CreateOptions.Bind(OptionSchema.Split($"size={Size},data_file=disk.data,data_file_raw=on"));
        bool isDone = false;
        int closed = 0;
        for (long number = 1; !isDone; number++)
        {
            var data = new Watched(new MemoryNode());
            var file = new FaultInjectionNode(new MemoryNode());
            var fault = new Fault(RequestKinds.All, number, DiskImageErrorKind.NoSpace);
            file.Arm(fault);
            bool isOpen = false;
            var context = new FormatCreateContext(file, options, OpenCompanion: (_, _, _) =>
            {
                isOpen = true;
                return new(data);
            });
            try
            {
                await ((ICreatable)s_qcow2).CreateAsync(context, CancellationToken.None);
                isDone = true;
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
            {
                closed++;
            }
            Assert.True(!isOpen || data.IsClosed, $"request {number}: left open");
        }
        Assert.True(closed > 5, $"failed {closed} times");
    }

    /// <summary>The data file itself cannot be made as long as the disk.</summary>
    [Fact]
    public async Task Creating_closes_a_data_file_that_fails()
    {
        var options = ((ICreatable)s_qcow2).CreateOptions.Bind(OptionSchema.Split($"size={Size},data_file=disk.data"));
        var faulty = new FaultInjectionNode(new MemoryNode());
        faulty.Arm(new Fault(RequestKinds.Resize, 1, DiskImageErrorKind.NoSpace));
        var data = new Watched(faulty);
        var context = new FormatCreateContext(new MemoryNode(), options, OpenCompanion: (_, _, _) => new(data));
        _ = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ((ICreatable)s_qcow2).CreateAsync(context, CancellationToken.None));
        Assert.True(data.IsClosed);
    }

    private static async ValueTask RunAsync(BlockNode disk, string operation, CancellationToken cancellationToken)
    {
        var snapshots = (ISnapshots)disk;
        switch (operation)
        {
            case "create":
                _ = await snapshots.CreateSnapshotAsync("second", DateTimeOffset.UnixEpoch, cancellationToken);
                break;
            case "restore":
                _ = await snapshots.RestoreSnapshotAsync("kept", cancellationToken);
                break;
            case "delete":
                _ = await snapshots.DeleteSnapshotAsync("kept", cancellationToken);
                break;
            case "check":
                _ = await ((ICheckable)disk).CheckAsync(null, cancellationToken);
                break;
            default:
                var driver = (IAmendable)s_qcow2;
                await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split(operation)), null, cancellationToken);
                break;
        }
    }

    /// <summary>An image with data, zeroes, and, where refcounts may be two, a snapshot.</summary>
    private static async Task<byte[]> MakeAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(1000, Data(1));
            await disk.WriteZeroesAsync(64 << 10, 16 << 10, ZeroWriteMode.KeepAllocated);
            if (!options.Contains("refcount_bits", StringComparison.Ordinal))
            {
                _ = await ((ISnapshots)disk).CreateSnapshotAsync("kept", DateTimeOffset.UnixEpoch, CancellationToken.None);
            }
            await disk.WriteAsync(20_000, Data(2));
        }
        return file.ToArray();
    }

    private static byte[] Data(int seed)
    {
        byte[] data = new byte[30_000];
        new Random(seed).NextBytes(data);
        return data;
    }

    private static ulong Marks(MemoryNode file) => BinaryPrimitives.ReadUInt64BigEndian(file.ToArray().AsSpan(IncompatibleAt));

    private static async Task<byte[]> ReadAsync(MemoryNode file)
    {
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    /// <summary>Says whether it was closed.</summary>
    private sealed class Watched(BlockNode child) : FilterNode(child)
    {
        public bool IsClosed { get; private set; }

        protected override ValueTask CloseCoreAsync()
        {
            IsClosed = true;
            return base.CloseCoreAsync();
        }
    }
}
