using DiskImage.Block;
using DiskImage.Tests.Formats.Vhdx;
using DiskImage.Tests.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>
/// Growing VHD and VHDX: what a program left behind the end is not shown, and a growth that fails or is cancelled
/// leaves the disk as it was.
/// </summary>
public sealed class GrowFaultTests
{
    private const int Size = (1 << 20) + (300 << 10), Grown = 4 << 20;

    public static TheoryData<string, string, PreallocationMode> Disks()
    {
        var data = new TheoryData<string, string, PreallocationMode>();
        foreach (PreallocationMode mode in Enum.GetValues<PreallocationMode>())
        {
            data.Add("vpc", "block_size=1M", mode);
            data.Add("vpc", "block_size=4k", mode);
            data.Add("vpc", "subformat=fixed", mode);
            data.Add("vhdx", "block_size=1M", mode);
            data.Add("vhdx", "block_size=1M,subformat=fixed", mode);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Disks))]
    public async Task A_failure_at_any_request_leaves_the_old_size_and_contents(string format, string options, PreallocationMode mode)
    {
        (byte[] image, byte[] contents) = await ImageAsync(format, options);
        int failed = 0;
        for (int number = 1; ; number += 1 + (number / 24)) // preallocating small blocks takes thousands of requests
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var faults = new FaultInjectionNode(memory);
            bool isFailed = false;
            await using (BlockNode disk = await OpenAsync(format, faults))
            {
                faults.Arm(new Fault(RequestKinds.Changes, number, DiskImageErrorKind.NoSpace));
                try
                {
                    await disk.ResizeAsync(Grown, mode);
                }
                catch (DiskImageException e)
                {
                    Assert.Equal(DiskImageErrorKind.NoSpace, e.Kind);
                    isFailed = true;
                    faults.Arm(null);
                    Assert.Equal(Size, disk.Length);
                    Assert.Equal(contents, await VpcDisks.ReadAsync(disk));
                }
                faults.Arm(null);
            }
            await RequireAsync(format, memory.ToArray(), isFailed
                ? contents
                : [.. contents, .. new byte[Grown - Size]], $"request {number}");
            if (!isFailed)
            {
                break;
            }
            failed++;
        }
        Assert.True(failed > 2);
    }

    [Theory]
    [MemberData(nameof(Disks))]
    public async Task A_cancelled_growth_leaves_the_old_size_and_contents(string format, string options, PreallocationMode mode)
    {
        (byte[] image, byte[] contents) = await ImageAsync(format, options);
        var memory = new MemoryNode((byte[])image.Clone());
        bool isCancelled = false;
        await using (BlockNode disk = await OpenAsync(format, memory))
        {
            try
            {
                await disk.ResizeAsync(Grown, mode, new CancellationToken(canceled: true));
            }
            catch (OperationCanceledException)
            {
                isCancelled = true;
                Assert.Equal(Size, disk.Length);
            }
        }
        await RequireAsync(format, memory.ToArray(), isCancelled ? contents : [.. contents, .. new byte[Grown - Size]], "cancelled");
    }

    [Theory]
    [InlineData("vpc", "block_size=1M", 3)]
    [InlineData("vpc", "block_size=4k", 811)]
    [InlineData("vhdx", "block_size=1M", 3)]
    public async Task What_was_left_behind_the_end_in_the_last_block_reads_as_zeroes_when_the_disk_grows(
        string format, string options, int last)
    {
        // A disk that ends inside its last block; a foreign program wrote all of that block.
        int block = options.Contains("4k", StringComparison.Ordinal) ? 4096 : 1 << 20, size = (last * block) + 2048;
        byte[] image = await CreateAsync(format, $"size={(last + 1) * block},{options}");
        byte[] noise = VhdxDisks.Noise(block, 5);
        var memory = new MemoryNode(image);
        await using (BlockNode disk = await OpenAsync(format, memory))
        {
            await disk.WriteAsync(last * (long)block, noise);
        }
        image = memory.ToArray();
        int tail = image.AsSpan().IndexOf(noise.AsSpan(2048, 512));
        memory = new MemoryNode(image);
        await using (BlockNode disk = await OpenAsync(format, memory))
        {
            await disk.ResizeAsync(size);
        }
        image = memory.ToArray();
        Assert.True(tail > 0);
        noise.AsSpan(2048).CopyTo(image.AsSpan(tail)); // as the foreign program has it
        memory = new MemoryNode(image);
        await using (BlockNode disk = await OpenAsync(format, memory))
        {
            await disk.ResizeAsync((last + 3) * (long)block);
            byte[] read = await VpcDisks.ReadAsync(disk);
            Assert.Equal(noise[..2048], read[(last * block)..size]);
            Assert.False(read.AsSpan(size).ContainsAnyExcept((byte)0));
        }
    }

    private static async Task RequireAsync(string format, byte[] image, byte[] contents, string what)
    {
        await using BlockNode disk = await OpenAsync(format, new MemoryNode(image, readOnly: true));
        byte[] read = await VpcDisks.ReadAsync(disk);
        Assert.True(read.AsSpan().SequenceEqual(contents), $"{what}: {read.Length} bytes read, {contents.Length} expected");
        Assert.True(
            (await VpcDisks.CheckAsync(disk)).Findings is [], $"{what}: {string.Join(", ", (await VpcDisks.CheckAsync(disk)).Findings)}");
    }

    private static async Task<BlockNode> OpenAsync(string format, BlockNode file)
        => format.Equals("vpc", StringComparison.Ordinal) ? await VpcDisks.OpenAsync(file) : await VhdxDisks.OpenAsync(file);

    private static async Task<byte[]> CreateAsync(string format, string options)
    {
        if (!format.Equals("vpc", StringComparison.Ordinal))
        {
            return await VhdxDisks.CreateAsync(options);
        }
        var memory = new MemoryNode();
        await VpcDisks.CreateAsync(memory, options);
        return memory.ToArray();
    }

    private static async Task<(byte[] Image, byte[] Contents)> ImageAsync(string format, string options)
    {
        var memory = new MemoryNode(await CreateAsync(format, $"size={Size},{options}"));
        byte[] contents = new byte[Size];
        await using (BlockNode disk = await OpenAsync(format, memory))
        {
            foreach ((int at, int length) in new[] { (0, 100_000), (1 << 20, 5000), (Size - 700, 700) })
            {
                VhdxDisks.Noise(length, at).CopyTo(contents, at);
                await disk.WriteAsync(at, contents.AsMemory(at, length));
            }
        }
        return (memory.ToArray(), contents);
    }
}
