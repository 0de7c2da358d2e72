using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Block;

/// <summary>A node of fixed length, no multiple of its unit, that takes whole units of aligned memory only.</summary>
public class AlignedNodeTests : NodeConformance
{
    private protected virtual BlockBinding Binding => new(4096, 4096, MaximumTransfer: 64 << 10, MaximumZeroes: 128 << 10);

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new AlignedNode(new FixedLengthNode(new MemoryNode((byte[])contents.Clone(), !writable)), Binding));

    [Fact]
    public async Task Parts_of_one_unit_written_at_once_are_all_kept()
    {
        await using BlockNode node = await MakeAsync(new byte[Size], writable: true);
        await Task.WhenAll(Enumerable.Range(0, 64).Select(i => Task.Run(async () =>
        {
            for (int at = i; at < 1024; at += 64)
            {
                await node.WriteAsync(8192 + (at * 4L), new[] { (byte)i, (byte)(at >> 8), (byte)at, (byte)1 });
            }
        })));
        byte[] read = new byte[4096];
        await node.ReadAsync(8192, read);
        Assert.All(
            Enumerable.Range(0, 1024),
            at => Assert.Equal([(byte)(at % 64), (byte)(at >> 8), (byte)at, (byte)1], read[(at * 4)..((at * 4) + 4)]));
    }
}

public sealed class SectorNodeTests : AlignedNodeTests
{
    private protected override BlockBinding Binding => new(512);
}

public sealed class ShortTransferNodeTests : AlignedNodeTests
{
    private protected override BlockBinding Binding => new(MaximumTransfer: 1000, MaximumZeroes: 70_000);
}

public sealed class PickyMemoryNodeTests : AlignedNodeTests
{
    private protected override BlockBinding Binding => new(MemoryAlignment: 512);
}

public sealed class GrowingAlignedNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new AlignedNode(new MemoryNode((byte[])contents.Clone(), !writable), new BlockBinding(4096)));
}

public sealed class BlockBindingTests
{
    [Fact]
    public async Task Whole_aligned_requests_go_through_as_they_are()
    {
        await using var node = new AlignedNode(new MemoryNode(new byte[1 << 20]), new BlockBinding(4096));
        await node.ReadAsync(4096, new byte[512 << 10]);
        await node.WriteAsync(8192, new byte[128 << 10]);
        Assert.Equal(2, node.Requests);
        await node.WriteAsync(1, new byte[1]); // reads one unit and writes it
        Assert.Equal(4, node.Requests);
    }

    [Fact]
    public async Task A_longer_node_is_not_cut_by_a_write_that_only_filled_up_its_last_unit()
    {
        await using var node = new HeldWrites(new MemoryNode(new byte[100]));
        Task write = node.WriteAsync(50, new byte[100]).AsTask(); // writes 4,096 bytes and cuts them off at 150
        Task resize = node.ResizeAsync(10_000).AsTask();
        node.Go.SetResult();
        await Task.WhenAll(write, resize);
        Assert.Equal(10_000, node.Length);
    }

    [Fact]
    public async Task A_failed_child_does_not_keep_the_others_open()
    {
        MemoryNode a = new(), b = new();
        var node = new TwoChildren(new FailingClose(a, "first"), new FailingClose(b, "second"));
        IOException failure = await Assert.ThrowsAsync<IOException>(async () => await node.DisposeAsync());
        Assert.Equal("own", failure.Message);
        Assert.Equal($"first{Environment.NewLine}second", failure.Data["Further"]);
        Assert.True(a.IsClosed && b.IsClosed);
        await node.DisposeAsync(); // once is enough
    }

    [Fact]
    public async Task A_broken_node_fails_with_the_first_cause()
    {
        await using var node = new Breakable(new MemoryNode(new byte[100]));
        Task<CancellationToken> waiting = Task.Run(async () =>
        {
            CancellationToken breaking = node.Wakes;
            await Task.Delay(Timeout.Infinite, breaking).ContinueWith(_ => { }, TaskScheduler.Default);
            return breaking;
        });
        node.BreakNow("first");
        node.BreakNow("second");
        Assert.True((await waiting).IsCancellationRequested);
        foreach (Func<ValueTask> request in new Func<ValueTask>[]
        {
            () => node.ReadAsync(0, new byte[1]), () => node.WriteAsync(0, new byte[1]), () => node.FlushAsync(),
            () => node.WriteZeroesAsync(0, 1),
            () => node.DiscardAsync(0, 1), () => node.ResizeAsync(5), async () => _ = await node.GetExtentAsync(0, 1),
            async () => _ = await node.GetExtentsAsync(0, 1, new BlockExtent[1]),
        })
        {
            DiskImageException failure = await Assert.ThrowsAsync<DiskImageException>(async () => await request());
            Assert.Equal((DiskImageErrorKind.Io, "first"), (failure.Kind, failure.Message));
        }
    }

    [Fact]
    public async Task Abilities_show_through_filters_that_let_them()
    {
        await using var disk = new Described();
        await using var open = new Shade(disk, lets: true);
        await using var shut = new Shade(disk, lets: false);
        Assert.Same(disk, disk.As<IDescribed>());
        Assert.Same(disk, open.As<IDescribed>());
        Assert.Null(shut.As<IDescribed>());
        Assert.Null(open.As<ICheckable>());
    }

    /// <summary>Takes whole units, and writes when it is told to.</summary>
    private sealed class HeldWrites(BlockNode child) : FilterNode(child)
    {
        public TaskCompletionSource Go { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        protected override BlockBinding Binding => new(4096);

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
            => Below.ReadPaddedAsync(offset, buffer, cancellationToken);

        protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            await Go.Task;
            await base.WriteCoreAsync(offset, buffer, cancellationToken);
        }
    }

    private sealed class TwoChildren(BlockNode a, BlockNode b) : FilterNode(a)
    {
        public override IReadOnlyDictionary<string, BlockNode> Children { get; } = new Dictionary<string, BlockNode>(
            StringComparer.Ordinal) { ["a"] = a, ["b"] = b };

        protected override ValueTask CloseCoreAsync() => throw new IOException("own");
    }

    private sealed class FailingClose(BlockNode child, string message) : FilterNode(child)
    {
        protected override ValueTask CloseCoreAsync() => throw new IOException(message);
    }

    private sealed class Breakable(BlockNode child) : FilterNode(child)
    {
        public CancellationToken Wakes => Breaking;

        public void BreakNow(string message) => Break(new DiskImageException(DiskImageErrorKind.Io, message));
    }

    private sealed class Described() : FilterNode(new MemoryNode()), IDescribed
    {
        public ImageDescription Describe() => new() { Format = "x" };
    }

    private sealed class Shade(BlockNode child, bool lets) : FilterNode(child)
    {
        protected override bool OwnsChildren => false;

        protected override bool LetsThrough(Type ability) => lets;
    }
}
