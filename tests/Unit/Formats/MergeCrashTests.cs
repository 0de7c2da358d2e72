using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>
/// A merge of VHD, VHDX and VMDK disks that is cut short after any request, to whichever of the files, leaves a chain that opens without
/// further ado and reads as it did; and the merge can be run again.
/// </summary>
public sealed class MergeCrashTests
{
    private const int MiB = 1 << 20, Size = 4 * MiB;

    [Theory]
    [InlineData("vpc", "block_size=64k", 1, false)]
    [InlineData("vpc", "block_size=64k", 2, false)]
    [InlineData("vpc", "subformat=fixed", 1, true)]
    [InlineData("vhdx", "block_size=1M", 1, false)]
    [InlineData("vhdx", "block_size=1M", 2, false)]
    [InlineData("vhdx", "block_size=1M,subformat=fixed", 1, true)]
    [InlineData("vmdk", "zeroed_grain", 1, false)]
    [InlineData("vmdk", "zeroed_grain", 2, false)]
    [InlineData("vmdk", "", 1, true)]
    public async Task Every_prefix_of_a_merge_leaves_a_chain_that_reads_the_same(string format, string options, int depth, bool empties)
    {
        var driver = Images.Registry.Format(format);
        List<byte[]> chain = await ChainAsync(driver, options, depth);
        byte[] expected = await ReadAsync(driver, chain);
        var timeline = new Timeline();
        BlockNode[] files = [.. chain.Select(timeline.Add)];
        BlockNode target = await OpenAsync(driver, files[depth], null);
        BlockNode top = target;
        for (int layer = depth - 1; layer >= 0; layer--)
        {
            top = await OpenAsync(driver, files[layer], top);
        }
        await new CommitJob(top, depth, target).RunAsync(null, CancellationToken.None);
        if (empties)
        {
            await ((IEmptiable)top).MakeEmptyAfterMergeAsync(CancellationToken.None);
        }
        await top.DisposeAsync(); // and all that is below
        Assert.True(timeline.Count > 10);
        int looked = 0;
        await foreach ((int done, byte[][] left) in timeline.PrefixesAsync())
        {
            await RequireAsync(left, $"after {done} of {timeline.Count} requests", again: ++looked % 7 == 0);
        }
        await foreach ((int done, byte[][] left) in timeline.FlushedOnlyAsync())
        {
            await RequireAsync(left, $"after {done} of {timeline.Count} requests, those not flushed lost in the other files", again: false);
        }

        async Task RequireAsync(byte[][] left, string what, bool again)
        {
            byte[] now;
            try
            {
                now = await ReadAsync(driver, left);
            }
            catch (DiskImageException e)
            {
                Assert.Fail($"{what}: {e.Message}");
                return;
            }
            Assert.True(now.AsSpan().SequenceEqual(expected), what);
            if (again)
            {
                MemoryNode[] rest = [.. left.Select(f => new MemoryNode((byte[])f.Clone()))];
                BlockNode below = await OpenAsync(driver, rest[depth], null), above = below;
                for (int layer = depth - 1; layer >= 0; layer--)
                {
                    above = await OpenAsync(driver, rest[layer], above);
                }
                await new CommitJob(above, depth, below).RunAsync(null, CancellationToken.None);
                await above.DisposeAsync();
                byte[][] merged = [.. rest.Select(r => r.ToArray())];
                Assert.True((await ReadAsync(driver, merged)).AsSpan().SequenceEqual(expected), $"{what}, merged again");
                Assert.True((await ReadAsync(driver, merged[depth..])).AsSpan().SequenceEqual(expected), $"{what}, the base merged again");
            }
        }
    }

    /// <summary>Disks from the top down to the base, each with data and zeroes of its own.</summary>
    private static async Task<List<byte[]>> ChainAsync(FormatDriver driver, string options, int depth)
    {
        var chain = new List<byte[]>();
        var random = new Random(depth);
        string blockSize = driver.Name.Equals("vmdk", StringComparison.Ordinal) ? options
            : options.Split(',').FirstOrDefault(o => o.StartsWith("block_size", StringComparison.Ordinal), "block_size=1M");
        for (int layer = depth; layer >= 0; layer--)
        {
            var file = new MemoryNode();
            string made = layer == depth
                ? $"size={Size},{options}{(driver.Name.Equals("vpc", StringComparison.Ordinal) ? ",force_size" : "")}"
                : $"backing_file=p,{blockSize}";
            BlockNode? parent = chain.Count == 0 ? null : await OpenChainAsync(driver, chain);
            var creatable = (ICreatable)driver;
            await creatable.CreateAsync(
                new FormatCreateContext(file, creatable.CreateOptions.Bind(OptionSchema.Split(made)), parent), CancellationToken.None);
            BlockNode disk = await OpenAsync(driver, file, parent);
            for (int i = 0; i < 4; i++)
            {
                byte[] data = new byte[random.Next(1, 100_000)];
                random.NextBytes(data);
                await disk.WriteAsync(random.Next(Size - data.Length), data);
            }
            await disk.WriteZeroesAsync(random.Next(Size / MiB) * MiB, MiB / 2);
            await disk.DisposeAsync();
            chain.Insert(0, file.ToArray());
        }
        return chain;
    }

    private static async Task<byte[]> ReadAsync(FormatDriver driver, IReadOnlyList<byte[]> chain)
    {
        await using BlockNode disk = await OpenChainAsync(driver, chain);
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    /// <summary>Opens a chain read-only: every parent must be the recorded one.</summary>
    private static async Task<BlockNode> OpenChainAsync(FormatDriver driver, IReadOnlyList<byte[]> chain)
    {
        BlockNode? disk = null;
        foreach (byte[] file in chain.Reverse())
        {
            disk = await OpenAsync(driver, new MemoryNode((byte[])file.Clone(), readOnly: true), disk);
        }
        return disk!;
    }

    private static async Task<BlockNode> OpenAsync(FormatDriver driver, BlockNode file, BlockNode? parent)
        => await driver.OpenAsync(
            new FormatOpenContext(file, driver.OpenOptions.Defaults(), parent is null
                ? null
                : (_, _, _) => new(parent), (_, _, _) => throw new NotSupportedException()),
            CancellationToken.None);
}
