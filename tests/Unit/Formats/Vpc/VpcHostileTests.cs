using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Images that somebody has tampered with: only <see cref="DiskImageException"/> comes out, and soon.</summary>
public sealed class VpcHostileTests
{
    public static TheoryData<int> Seeds() => [.. Enumerable.Range(0, 60)];

    [Theory]
    [MemberData(nameof(Seeds))]
    public async Task Random_damage_does_no_harm(int seed)
    {
        var random = new Random(seed);
        byte[] image = await SampleAsync(seed % 3);
        for (int round = 0; round < 12; round++)
        {
            byte[] damaged = (byte[])image.Clone();
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                int at = random.Next(4) switch
                {
                    0 => random.Next(512),
                    1 => damaged.Length - 512 + random.Next(512),
                    2 => 512 + random.Next(1024),
                    _ => 1536 + random.Next(512),
                };
                damaged[at] = random.Next(3) switch { 0 => 0xFF, 1 => 0, _ => (byte)random.Next(256) };
            }
            Seal(damaged);
            if (random.Next(4) == 0)
            {
                damaged = damaged[..random.Next(damaged.Length)];
            }
            await UseAsync(damaged, seed);
        }
    }

    [Fact]
    public async Task Every_truncation_opens_or_is_refused()
    {
        for (int kind = 0; kind < 3; kind++)
        {
            byte[] image = await SampleAsync(kind);
            foreach (int length in Enumerable.Range(0, 2600).Where(l => l % 37 < 2).Concat(
                Enumerable.Range(1, 20).Select(i => image.Length * i / 21)))
            {
                await UseAsync(image[..Math.Min(length, image.Length)], length);
            }
        }
    }

    [Theory]
    [InlineData(28, 0xFFFFFFFFu)] // entries
    [InlineData(28, 0x40000000u)]
    [InlineData(32, 0x80000000u)] // block size
    [InlineData(32, 0u)]
    [InlineData(32, 3u)]
    [InlineData(32, 512u)]
    [InlineData(16, 0xFFFFFFFFu)] // table offset, high half
    [InlineData(20, 0xFFFFFFFFu)]
    [InlineData(24, 0x00020000u)] // version
    [InlineData(584, 0xFFFFFFFFu)] // locator length
    public async Task A_header_field_out_of_bounds_is_an_error_or_harmless(int at, uint value)
    {
        byte[] image = await SampleAsync(1);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(512 + at), value);
        Seal(image);
        await UseAsync(image, at);
    }

    [Theory]
    [InlineData(long.MaxValue)]
    [InlineData(-1)]
    [InlineData(3L << 40)]
    [InlineData(2040L << 30)]
    public async Task A_size_out_of_bounds_is_an_error(long size)
    {
        for (int kind = 0; kind < 3; kind++)
        {
            byte[] image = await SampleAsync(kind);
            foreach (int footer in new[] { 0, image.Length - 512 })
            {
                BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(footer + 48), size);
                byte[] sealedFooter = image[footer..(footer + 512)];
                VhdMaker.Seal(sealedFooter, 64);
                if (kind < 2 || footer > 0)
                {
                    sealedFooter.CopyTo(image, footer);
                }
            }
            await Assert.ThrowsAsync<DiskImageException>(async () => _ = await VpcDisks.OpenAsync(new MemoryNode(image, readOnly: true)));
        }
    }

    /// <summary>Opens, looks at everything, writes, repairs: each may fail, none otherwise than with our own error.</summary>
    private static async Task UseAsync(byte[] image, int seed)
    {
        foreach (bool writable in new[] { false, true })
        {
            var memory = new MemoryNode((byte[])image.Clone(), !writable);
            BlockNode? disk = null;
            await TryAsync(async () => disk = await VpcDisks.OpenAsync(memory, forRepair: writable), seed);
            if (disk is null)
            {
                return;
            }
            Assert.InRange(disk.Length, 0, 2040L << 30);
            byte[] buffer = new byte[64 << 10];
            foreach (long at in new[] { 0L, 100_000, disk.Length / 2, disk.Length - buffer.Length })
            {
                int length = (int)Math.Min(buffer.Length, disk.Length - Math.Max(0, at));
                if (at >= 0 && length > 0)
                {
                    await TryAsync(async () => await disk.ReadAsync(at, buffer.AsMemory(0, length)), seed);
                    await TryAsync(async () => _ = await disk.GetExtentAsync(at, length), seed);
                }
            }
            if (disk.Length > 64 << 20)
            {
                await TryAsync(async () => await disk.DisposeAsync(), seed);
                continue; // a repair would make it long, and this is in memory
            }
            await TryAsync(async () => _ = await VpcDisks.CheckAsync(disk), seed);
            if (writable)
            {
                if (disk.Length >= 4096)
                {
                    await TryAsync(async () => await disk.WriteAsync(disk.Length / 2, buffer.AsMemory(0, 1000)), seed);
                    await TryAsync(async () => await disk.WriteZeroesAsync(0, disk.Length), seed);
                }
                await TryAsync(async () => _ = await VpcDisks.RepairAsync(disk, RepairMode.All), seed);
            }
            await TryAsync(async () => await disk.DisposeAsync(), seed);
        }
    }

    private static async Task TryAsync(Func<Task> action, int seed)
    {
        try
        {
            await action();
        }
        catch (DiskImageException e)
        {
            Assert.False(string.IsNullOrEmpty(e.Message));
        }
        catch (Exception e)
        {
            Assert.Fail($"seed {seed}: {e}");
        }
    }

    /// <summary>Dynamic, differencing or fixed, a few hundred KiB.</summary>
    private static async Task<byte[]> SampleAsync(int kind)
    {
        var memory = new MemoryNode();
        if (kind == 1)
        {
            var parent = new MemoryNode();
            await VpcDisks.CreateAsync(parent, "size=1M,force_size");
            await using BlockNode below = await VpcDisks.OpenAsync(new MemoryNode(parent.ToArray(), readOnly: true));
            await VpcDisks.CreateAsync(memory, "size=1M,block_size=64k,backing_file=p.vhd", below);
        }
        else
        {
            await VpcDisks.CreateAsync(memory, kind == 0 ? "size=1M,block_size=64k,force_size" : "size=256k,subformat=fixed,force_size");
        }
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory))
        {
            byte[] data = new byte[100_000];
            new Random(7).NextBytes(data);
            await disk.WriteAsync(30_000, data);
        }
        return memory.ToArray();
    }

    /// <summary>Makes checksums right, so that damage reaches what lies behind them.</summary>
    private static void Seal(byte[] image)
    {
        foreach ((int at, int length, int checksum) in new[] { (0, 512, 64), (image.Length - 512, 512, 64), (512, 1024, 36) })
        {
            if (at >= 0 && at + length <= image.Length && (at == image.Length - 512 || image[0] == (byte)'c'))
            {
                byte[] part = image[at..(at + length)];
                VhdMaker.Seal(part, checksum);
                part.CopyTo(image, at);
            }
        }
    }
}
