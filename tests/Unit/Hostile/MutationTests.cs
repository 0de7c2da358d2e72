using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Hostile;

/// <summary>Images damaged on purpose and at random.</summary>
public sealed class MutationTests
{
    private static readonly ulong[] s_interesting =
    [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 16, 20, 21, 22, 31, 32, 63, 64, 71, 72, 103, 104, 105, 111, 112, 113, 120, 511, 512, 1023,
        1024, 4095, 4096, 4097,
        65535,
        65536,
        65537,
        (4 << 20) - 1,
        4 << 20,
        (4 << 20) + 1,
        (8 << 20) >> 12,
        ((8 << 20) >> 12) + 1,
        0x7FFF_FFFF,
        0x8000_0000,
        0xFFFF_FFFF,
        0x1_0000_0000,
        1UL << 40,
        (1UL << 55) - 512,
        1UL << 55,
        (1UL << 56) - 4096,
        1UL << 56,
        1UL << 61,
        (1UL << 62) - 1,
        1UL << 62,
        (1UL << 62) + 4096,
        (1UL << 63) - 1,
        1UL << 63,
        (1UL << 63) + 4096, ulong.MaxValue - 4095, ulong.MaxValue,
    ];

    private static readonly string[] s_names = ["v3", "v2", "tiny", "wide", "backing", "compressed"];

    public static TheoryData<string> Names() => [.. s_names];

    public static TheoryData<string, int> Seeds()
    {
        var data = new TheoryData<string, int>();
        int first = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), out int given) ? given : 1;
        foreach (string name in s_names)
        {
            data.Add(name, first);
        }
        return data;
    }

    /// <summary>Every field of the header with every value at, before and past a bound.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public async Task Header_fields_at_and_past_their_bounds(string name)
    {
        byte[] image = await Exercise.ImageAsync(name);
        int refused = 0;
        foreach ((int at, int width) in new[]
        {
            (0, 4), (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 8),
            (80, 8), (88, 8), (96, 4), (100, 4), (104, 1),
        })
        {
            foreach (ulong value in s_interesting.Where(v => width == 8 || v < 1UL << (width * 8)))
            {
                byte[] damaged = (byte[])image.Clone();
                Put(damaged, at, width, value);
                refused += (await Exercise.RunAsync(damaged, $"{name}: byte {at} is {value:x}")).Count > 0 ? 1 : 0;
            }
        }
        Assert.True(refused > 100, $"only {refused} refused");
    }

    /// <summary>Entries of the tables with every value at, before and past a bound.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public async Task Table_entries_at_and_past_their_bounds(string name)
    {
        byte[] image = await Exercise.ImageAsync(name);
        List<(long Offset, int Length)> places = await Exercise.StructuresAsync(image);
        ulong[] own = [.. places.Select(p => (ulong)p.Offset).SelectMany(
            o => new[] { o, o | (1UL << 63), o | (1UL << 62) }), (ulong)image.LongLength, (ulong)image.LongLength | (1UL << 63)];
        int refused = 0;
        foreach ((long offset, int length) in places.Skip(1).Take(6))
        {
            foreach (ulong value in s_interesting.Concat(own.Take(30)))
            {
                byte[] damaged = (byte[])image.Clone();
                for (int entry = 0; entry < Math.Min(length, 32); entry += 16)
                {
                    Put(damaged, (int)offset + entry, 8, value);
                }
                refused += (await Exercise.RunAsync(damaged, $"{name}: entries at {offset} are {value:x}")).Count > 0 ? 1 : 0;
            }
        }
        Assert.True(refused > 20, $"only {refused} refused");
    }

    [Theory]
    [MemberData(nameof(Names))]
    public async Task Truncated_anywhere(string name)
    {
        byte[] image = await Exercise.ImageAsync(name);
        IEnumerable<int> lengths =
            [0, 1, 3, 4, 8, 71, 72, 73, 103, 104, 105, 111, 112, 113, 200, 511, 512, 513, .. Enumerable.Range(1, 40).Select(
                i => (int)((long)image.Length * i / 41))];
        int refused = 0;
        foreach (int length in lengths)
        {
            refused += (await Exercise.RunAsync(image[..Math.Min(length, image.Length)], $"{name}: cut to {length} bytes")).Count > 0
                ? 1
                : 0;
        }
        Assert.True(refused >= 7, $"only {refused} refused");
    }

    /// <summary>Random bytes in the structures; the seed of a failure stands in its message.</summary>
    [Theory]
    [MemberData(nameof(Seeds))]
    public async Task Random_damage(string name, int first)
    {
        byte[] image = await Exercise.ImageAsync(name);
        List<(long Offset, int Length)> places = await Exercise.StructuresAsync(image);
        int damagedOnes = 0;
        for (int seed = first; seed < first + 150; seed++)
        {
            var random = new Random(seed);
            byte[] damaged = (byte[])image.Clone();
            for (int i = random.Next(1, 9); i > 0; i--)
            {
                (long offset, int length) = places[random.Next(places.Count)];
                int at = (int)offset + random.Next(length);
                if (random.Next(2) == 0)
                {
                    damaged[at] = random.Next(3) switch { 0 => (byte)random.Next(256), 1 => (byte)(
                        damaged[at] ^ (1 << random.Next(8))), _ => 0xFF };
                }
                else
                {
                    ulong value = random.Next(2) == 0
                        ? s_interesting[random.Next(s_interesting.Length)]
                        : (ulong)places[random.Next(places.Count)].Offset | ((ulong)random.Next(4) << 62);
                    Put(damaged, at & ~7, 8, value);
                }
            }
            damagedOnes += (await Exercise.RunAsync(damaged, $"{name}: seed {seed}")).Count > 0 ? 1 : 0;
        }
        Assert.True(damagedOnes > 10, $"only {damagedOnes} met an error");
    }

    [Theory]
    [InlineData("v3")]
    [InlineData("backing")]
    public async Task Header_extensions(string name)
    {
        byte[] image = await Exercise.ImageAsync(name);
        int start = (int)BigEndian.U32(image, 100);
        foreach (uint type in new uint[] { 0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441, 0x12345678, 1 })
        {
            foreach (uint length in new uint[]
            {
                0, 1, 7, 8, 47, 48, 3900, 4096, 65536, 0x7FFF_FFF8, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF,
            })
            {
                byte[] damaged = (byte[])image.Clone();
                Put(damaged, start, 4, type);
                Put(damaged, start + 4, 4, length);
                _ = await Exercise.RunAsync(damaged, $"{name}: extension {type:x} of {length} bytes");
            }
        }
    }

    [Fact]
    public async Task Unknown_incompatible_features_are_refused_by_name()
    {
        byte[] image = await Exercise.ImageAsync("v3");
        BigEndian.U64(image, 72, (1UL << 40) | (1UL << 5));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
        Assert.Contains("bit 40", error.Message, StringComparison.Ordinal);
        Assert.Contains("bit 5", error.Message, StringComparison.Ordinal);
        int table = (int)BigEndian.U32(image, 100) + 8; // the first entry of the feature name table: let it name bit 40
        (image[table], image[table + 1]) = (0, 40);
        "quantum clusters\0"u8.CopyTo(image.AsSpan(table + 2));
        error = await Assert.ThrowsAsync<DiskImageException>(async () => await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)));
        Assert.Contains("quantum clusters", error.Message, StringComparison.Ordinal);
    }

    /// <summary>A damaged entry must not make a write land on the image's own structures.</summary>
    [Theory]
    [InlineData("v3")]
    [InlineData("tiny")]
    [InlineData("v2")]
    public async Task A_write_never_lands_on_the_structures(string name)
    {
        byte[] image = await Exercise.ImageAsync(name);
        List<(long Offset, int Length)> places = await Exercise.StructuresAsync(image);
        long l2 = places[3].Offset;
        foreach ((long offset, _) in places.Where(p => p.Offset % 512 == 0))
        {
            byte[] damaged = (byte[])image.Clone();
            BigEndian.U64(damaged, (int)l2, (ulong)offset | (1UL << 63));
            var file = new MemoryNode(damaged);
            BlockNode disk = await MemoryDisk.OpenAsync(file);
            byte[] data = new byte[512];
            Array.Fill(data, (byte)0x77);
            DiskImageException? error = null;
            try
            {
                await disk.WriteAsync(0, data);
            }
            catch (DiskImageException e)
            {
                error = e;
            }
            await disk.DisposeAsync();
            Assert.Equal(offset == 0 ? null : DiskImageErrorKind.Corrupt, error?.Kind); // offset 0 is "no cluster": a new one is taken
            Assert.DoesNotContain(places, p => file.ToArray().AsSpan((int)p.Offset, 64).IndexOf(data.AsSpan(0, 32)) >= 0);
        }
    }

    /// <summary>The largest tables that are allowed, in an image of a few bytes.</summary>
    [Fact]
    public async Task Huge_tables_take_bounded_memory()
    {
        byte[] image = await MemoryDisk.NewAsync("size=1M,cluster_size=2M");
        BigEndian.U32(image, 36, (32 << 20) / 8);
        long before = GC.GetAllocatedBytesForCurrentThread();
        await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)))
        {
            await disk.ReadAsync(0, new byte[4096]);
        }
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 64 << 20);
        BigEndian.U32(image, 36, ((32 << 20) / 8) + 1);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)));
        Assert.Equal(DiskImageErrorKind.InvalidFormat, error.Kind);
        Assert.Contains("l1_size", error.Message, StringComparison.Ordinal);
    }

    private static void Put(byte[] bytes, int at, int width, ulong value)
    {
        for (int i = 0; i < width && at + i < bytes.Length; i++)
        {
            bytes[at + i] = (byte)(value >> ((width - 1 - i) * 8));
        }
    }
}
