using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Growing, shrinking, compacting, and sizes at the limits.</summary>
public sealed class VhdxResizeTests
{
    private const int MiB = 1 << 20;

    [Theory]
    [InlineData("block_size=1M", false)]
    [InlineData("block_size=2M,block_state_zero=off", false)]
    [InlineData("block_size=1M,subformat=fixed", false)]
    [InlineData("block_size=1M,logical_sector_size=4096", false)]
    [InlineData("block_size=1M", true)]
    [InlineData("block_size=2M", true)]
    public async Task Random_changes_resizes_and_compactions_read_as_the_twin(string options, bool hasParent)
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        int size = 6 * MiB, sector = options.Contains("4096", StringComparison.Ordinal) ? 4096 : 512;
        byte[] start = hasParent ? VhdxDisks.Noise(size, seed) : new byte[size], image;
        byte[]? parent = hasParent
            ? await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={size},block_size=1M"), async n => await n.WriteAsync(0, start)) : null;
        await using (VhdxNode? open = parent is null ? null : await VhdxDisks.OpenAsync(parent))
        {
            image = await VhdxDisks.CreateAsync(hasParent ? $"backing_file=p.vhdx,{options}" : $"size={size},{options}", open);
        }
        var twin = new VhdxTwin(start, seed);
        for (int round = 0; round < 5; round++)
        {
            image = await VhdxDisks.ChangeAsync(image, async node =>
            {
                for (int i = 0; i < 3; i++)
                {
                    await twin.ChangeAsync(node, 12);
                    int length = random.Next(1, 9 * MiB / sector) * sector;
                    await node.ResizeAsync(length, (PreallocationMode)random.Next(4));
                    twin.Resize(length);
                    twin.RequireSame(await VhdxDisks.ReadAllAsync(node));
                    if (random.Next(2) == 0)
                    {
                        _ = await node.CompactAsync(null, CancellationToken.None);
                        twin.RequireSame(await VhdxDisks.ReadAllAsync(node));
                    }
                }
                CheckReport report = await node.CheckAsync(null, CancellationToken.None);
                Assert.True(report.Corruptions == 0, $"seed {seed}: {string.Join("; ", report.Findings)}");
            }, parent);
            twin.RequireSame(new VhdxSpecReader(image, parent is null ? null : new VhdxSpecReader(parent), requireClean: true).Contents());
        }
    }

    [Theory]
    [InlineData("block_size=1M", false)]
    [InlineData("block_size=1M", true)]
    public async Task A_disk_that_outgrows_its_BAT_gets_a_larger_one(string options, bool hasParent)
    {
        byte[] data = VhdxDisks.Noise(MiB + 1000, 2);
        byte[]? parent = hasParent ? await VhdxDisks.CreateAsync("size=4M") : null;
        byte[] image;
        await using (VhdxNode? open = parent is null ? null : await VhdxDisks.OpenAsync(parent))
        {
            image = await VhdxDisks.CreateAsync(hasParent ? $"backing_file=p.vhdx,{options}" : $"size=4M,{options}", open);
        }
        const long Large = (200L << 30) + 512;
        image = await VhdxDisks.ChangeAsync(image, async node =>
        {
            await node.WriteAsync(5, data);
            await node.ResizeAsync(Large);
            await node.WriteAsync(Large - data.Length, data);
        }, parent);
        await using VhdxNode node = await VhdxDisks.OpenAsync(image, parent is null ? null : await VhdxDisks.OpenAsync(parent));
        byte[] back = new byte[data.Length];
        foreach (long at in new[] { 5, Large - data.Length })
        {
            await node.ReadAsync(at, back);
            Assert.Equal(data, back);
        }
        Assert.Empty((await node.CheckAsync(null, CancellationToken.None)).Findings);
        var spec = new VhdxSpecReader(image, parent is null ? null : new VhdxSpecReader(parent), requireClean: true);
        Assert.Equal(Large, spec.Size);
    }

    [Fact]
    public async Task Sizes_that_cannot_be_are_refused()
    {
        byte[] image = await VhdxDisks.CreateAsync("size=4M,logical_sector_size=4096");
        await VhdxDisks.ChangeAsync(image, async node =>
        {
            foreach (long size in new[] { 4096 + 512, (64L << 40) + 4096 })
            {
                DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(async () => await node.ResizeAsync(size));
                Assert.Equal(DiskImageErrorKind.OutOfRange, refused.Kind);
            }
        });
    }

    [Fact]
    public async Task Compacting_drops_zero_and_discarded_blocks_and_moves_the_rest_down()
    {
        byte[] noise = VhdxDisks.Noise(16 * MiB, 3);
        byte[] image = await VhdxDisks.ChangeAsync(await VhdxDisks.CreateAsync("size=16M,block_size=1M"), async node =>
        {
            await node.WriteAsync(0, noise);
            await node.DiscardAsync(2 * MiB, 3 * MiB);
            await node.WriteAsync(8 * MiB, new byte[4 * MiB]);
        });
        byte[] compacted = await VhdxDisks.ChangeAsync(
            image, async node => Assert.Equal(7 * MiB, await node.CompactAsync(null, CancellationToken.None)));
        Assert.Equal(image.Length - (7 * MiB), compacted.Length);
        await using VhdxNode again = await VhdxDisks.OpenAsync(compacted);
        byte[] expected = (byte[])noise.Clone();
        expected.AsSpan(2 * MiB, 3 * MiB).Clear();
        expected.AsSpan(8 * MiB, 4 * MiB).Clear();
        Assert.Equal(expected, await VhdxDisks.ReadAllAsync(again));
        CheckReport report = await again.CheckAsync(null, CancellationToken.None);
        Assert.Empty(report.Findings);
        Assert.Equal((16L, 9L), (report.TotalClusters, report.AllocatedClusters));
    }

    [Theory]
    [InlineData("")]
    [InlineData("block_size=1M,block_state_zero=off")]
    public async Task A_disk_of_64_TiB_is_made_and_used_in_little_space(string options)
    {
        using var folder = new TestFolder();
        const long Size = 64L << 40;
        await Images.CreateAsync(folder["huge.vhdx"], "vhdx", $"size={Size}{(options.Length == 0 ? "" : "," + options)}");
        await using (BlockNode disk = await Images.OpenAsync(folder["huge.vhdx"], writable: true))
        {
            await disk.WriteAsync(Size - 1, new byte[] { 42 });
        }
        await using BlockNode again = await Images.OpenAsync(folder["huge.vhdx"]);
        byte[] last = new byte[1];
        await again.ReadAsync(Size - 1, last);
        Assert.Equal(42, last[0]);
        Assert.True(again.Child("file")!.AllocatedLength < 40 * MiB);
    }

    [Fact]
    public async Task A_fixed_disk_keeps_room_for_every_block()
    {
        byte[] image = await VhdxDisks.CreateAsync("size=8M,block_size=1M,subformat=fixed");
        for (int block = 0; block < 8; block++)
        {
            BinaryPrimitives.WriteInt64LittleEndian(image.AsSpan((3 * MiB) + (block * 8)), 2); // as QEMU makes them: zero, without place
        }
        byte[] compacted = await VhdxDisks.ChangeAsync(image, async node =>
        {
            await node.WriteAsync(0, new byte[] { 1 });
            Assert.Equal(0, await node.CompactAsync(null, CancellationToken.None));
            Assert.Empty((await node.CheckAsync(null, CancellationToken.None)).Findings);
        });
        Assert.Equal(image.Length, compacted.Length);
    }

    [Fact]
    public async Task Measuring_says_what_converting_makes()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], 40 * MiB, 1, unit: 1 << 20);
        foreach (string options in new[] { "block_size=1M", "block_size=4M", "subformat=fixed" })
        {
            await using BlockNode source = await Images.OpenAsync(folder["a.raw"], "raw");
            object record = VhdxDisks.Driver.CreateOptions.Bind(DiskImage.Options.OptionSchema.Split(options));
            DiskImage.Drivers.ImageMeasurement measured = await VhdxDisks.Driver.MeasureAsync(record, source, CancellationToken.None);
            File.Delete(folder["b.vhdx"]);
            await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.vhdx"], "vhdx", options);
            long length = new FileInfo(folder["b.vhdx"]).Length;
            // zeroes that are stored are found by converting only
            Assert.True(length <= measured.Required, $"{options}: {length} and {measured.Required}");
            Assert.True(measured.Required <= measured.FullyAllocated);
        }
        object child = VhdxDisks.Driver.CreateOptions.Bind(DiskImage.Options.OptionSchema.Split("size=1M,backing_file=base.vhdx"));
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
            async () => await VhdxDisks.Driver.MeasureAsync(child, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
    }
}
