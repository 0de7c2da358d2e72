using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Conformance;

public sealed class MemoryNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new MemoryNode((byte[])contents.Clone(), !writable));
}

public class FileNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await File.WriteAllBytesAsync(Folder["file"], contents);
        return await Images.Opener.OpenFileAsync(ImageLocator.Parse(Folder["file"]), writable, folder: null, CancellationToken.None);
    }

    [Fact]
    public async Task A_file_that_grows_from_two_sides_loses_nothing()
    {
        const int Near = 512, Far = 64 << 10, Rounds = 400;
        await using BlockNode node = await MakeAsync([], writable: true);
        byte[] data = new byte[Far], back = new byte[Far];
        Array.Fill(data, (byte)0x5A);
        using var together = new Barrier(2);
        for (int round = 0; round < Rounds; round++)
        {
            long end = node.Length;
            Task zeroes = Task.Run(async () =>
            {
                together.SignalAndWait();
                await node.WriteZeroesAsync(end, Near);
            });
            Task write = Task.Run(async () =>
            {
                together.SignalAndWait();
                await node.WriteAsync(end + Near, data);
            });
            await Task.WhenAll(zeroes, write);
            Assert.Equal(end + Near + Far, node.Length);
            await node.ReadAsync(end + Near, back);
            Assert.True(data.AsSpan().SequenceEqual(back), $"round {round}");
            await node.ResizeAsync(round % 20 == 0 ? 0 : node.Length);
        }
    }
}

public sealed class DirectFileNodeTests : FileNodeTests
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await File.WriteAllBytesAsync(Folder["file"], contents);
        var opener = new ImageOpener(Images.Registry, OpenPolicy.Default with { Cache = CachePolicy.Of(CacheMode.None) });
        return await opener.OpenFileAsync(ImageLocator.Parse(Folder["file"]), writable, folder: null, CancellationToken.None);
    }
}

public sealed class SparseFileNodeTests : FileNodeTests
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.WriteSparseAsync(Folder["sparse"], contents);
        return await Images.Opener.OpenFileAsync(ImageLocator.Parse(Folder["sparse"]), writable, folder: null, CancellationToken.None);
    }
}

public sealed class RawNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.WriteSparseAsync(Folder["disk.raw"], contents);
        return await Images.OpenAsync(Folder["disk.raw"], "raw", writable);
    }
}

public sealed class RawRangeNodeTests : NodeConformance
{
    private const int Start = 1000;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        byte[] frame = [.. Enumerable.Repeat((byte)0xEE, Start), .. contents, .. Enumerable.Repeat((byte)0xEE, 5000)];
        await Images.WriteSparseAsync(Folder["disk.raw"], frame);
        return await Images.OpenAsync(Folder["disk.raw"], "raw", writable, $"offset={Start},size={contents.Length}");
    }

    [Fact]
    public async Task The_rest_of_the_file_is_out_of_reach()
    {
        await using (BlockNode node = await MakeAsync(Contents(), writable: true))
        {
            await node.WriteZeroesAsync(0, Size);
            await node.DiscardAsync(0, Size);
        }
        byte[] file = await File.ReadAllBytesAsync(Folder["disk.raw"]);
        Assert.All(file[..Start].Concat(file[^5000..]), b => Assert.Equal(0xEE, b));
    }
}

public sealed class FaultInjectionNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new FaultInjectionNode(new MemoryNode((byte[])contents.Clone(), !writable)));

    [Fact]
    public async Task The_request_that_is_told_to_fail_fails_and_no_other()
    {
        var memory = new MemoryNode(new byte[1000]);
        await using var node = new FaultInjectionNode(memory);
        node.Arm(new Fault(RequestKinds.Write, 3, DiskImageErrorKind.NoSpace) { WrittenBytes = 2 });
        await node.WriteAsync(0, new byte[] { 1, 1, 1 });
        await node.ReadAsync(0, new byte[3]);
        await node.WriteAsync(3, new byte[] { 2, 2, 2 });
        await ExpectAsync(DiskImageErrorKind.NoSpace, () => node.WriteAsync(6, new byte[] { 3, 3, 3 }));
        await node.WriteAsync(9, new byte[] { 4, 4, 4 });
        Assert.Equal([1, 1, 1, 2, 2, 2, 3, 3, 0, 4, 4, 4], memory.ToArray()[..12]);
        Assert.Equal(4, node.Requests(RequestKinds.Write));
        Assert.Equal(5, node.Requests(RequestKinds.All));
        foreach ((RequestKinds kind, Func<ValueTask> request) in new (RequestKinds, Func<ValueTask>)[]
        {
            (RequestKinds.Read, () => node.ReadAsync(0, new byte[1])),
            (RequestKinds.WriteZeroes, () => node.WriteZeroesAsync(0, 1)),
            (RequestKinds.Discard, () => node.DiscardAsync(0, 1)),
            (RequestKinds.Flush, () => node.FlushAsync()),
            (RequestKinds.Resize, () => node.ResizeAsync(1000)),
            (RequestKinds.Map, async () => _ = await node.GetExtentAsync(0, 1)),
        })
        {
            node.Arm(new Fault(kind, 2));
            await request();
            await ExpectAsync(DiskImageErrorKind.Io, request);
            await request();
        }
    }
}

public sealed class WriteLogNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new WriteLogNode(new MemoryNode((byte[])contents.Clone(), !writable)));

    [Fact]
    public async Task A_replayed_log_makes_the_same_node_again()
    {
        var memory = new MemoryNode();
        await using var node = new WriteLogNode(memory);
        var random = new Random(1);
        for (int i = 0; i < 200; i++)
        {
            byte[] data = new byte[random.Next(1, 5000)];
            random.NextBytes(data);
            await node.WriteAsync(random.Next(100_000), data);
            await node.WriteZeroesAsync(random.Next(100_000), random.Next(1, 3000));
            await node.DiscardAsync(random.Next((int)node.Length - 1), 1);
        }
        await node.FlushAsync();
        await node.ResizeAsync(90_000);
        Assert.Equal(602, node.Count);
        var copy = new MemoryNode();
        foreach (WriteLogEntry entry in node.Entries)
        {
            await WriteLogNode.ReplayAsync(entry, copy);
        }
        Assert.Equal(memory.ToArray(), copy.ToArray());
    }
}
