using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.Sheepdog;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>A VDI of objects of 1 MiB keeps the contract of nodes.</summary>
public sealed class SheepNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        var sheep = new ScriptedSheep();
        string url = sheep.Url("disk");
        Surroundings around = Images.Around.Value;
        Images.Around.Value = Surroundings.None;
        await SheepTalk.MakeAsync(url, contents);
        Images.Around.Value = around;
        return new ServedNode(await Images.OpenAsync(url, "raw", writable), sheep);
    }

    /// <summary>Closes the gateway behind the disk.</summary>
    private sealed class ServedNode(BlockNode disk, ScriptedSheep sheep) : FilterNode(disk)
    {
        protected override bool OwnsChildren => false;

        protected override async ValueTask CloseCoreAsync()
        {
            await Below.DisposeAsync();
            await sheep.DisposeAsync();
        }
    }
}

/// <summary>What tests of VDIs do.</summary>
internal static class SheepTalk
{
    private static readonly SheepDriver s_driver = new();

    /// <summary>Makes a VDI with contents.</summary>
    public static async Task MakeAsync(string url, byte[] contents, SheepCreateOptions? options = null)
    {
        StoragePlace place = await s_driver.LookAsync(url, TargetMode.New, CancellationToken.None);
        await using PendingNode made = await s_driver.BeginAsync(
            place, new StorageTraits(AllowsHoles: true, NoCow: false, Options: options), CancellationToken.None);
        await made.Node.ResizeAsync(contents.Length);
        for (int at = 0; at < contents.Length; at += 1 << 20)
        {
            ReadOnlyMemory<byte> part = contents.AsMemory(at, Math.Min(1 << 20, contents.Length - at));
            if (part.Span.ContainsAnyExcept((byte)0))
            {
                await made.Node.WriteAsync(at, part);
            }
        }
        await made.Node.DisposeAsync();
        await made.PublishAsync(durable: false, revocable: false, CancellationToken.None);
    }

    public static ValueTask<SheepNode> OpenAsync(string url, bool writable)
        => SheepDriver.OpenAsync(SheepDriver.PlaceOf(url), writable, CancellationToken.None);

    public static async Task<byte[]> ReadAsync(BlockNode node)
    {
        byte[] bytes = new byte[node.Length];
        await node.ReadAsync(0, bytes);
        return bytes;
    }

    public static async Task<byte[]> ReadAsync(string url)
    {
        await using SheepNode node = await OpenAsync(url, writable: false);
        return await ReadAsync(node);
    }

    public static byte[] Bytes(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    public static async Task<DiskImageErrorKind> KindAsync(Func<Task> work)
        => (await Assert.ThrowsAsync<DiskImageException>(work)).Kind;

    /// <summary>Asserts that two runs of bytes are the same, and says where not.</summary>
    public static void Same(byte[] expected, byte[] found)
    {
        Assert.Equal(expected.Length, found.Length);
        int at = expected.AsSpan().CommonPrefixLength(found);
        Assert.True(at == expected.Length, $"they differ from byte {at:#,0} on");
    }
}
