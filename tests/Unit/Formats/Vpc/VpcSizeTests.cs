using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>
/// Which size a disk has, that new ones have exactly the one asked for, and that nothing below the larger of two is lost.
/// </summary>
public sealed class VpcSizeTests
{
    private const long Bytes = 30L << 30, DataAt = 20L << 30, Capped = 16383L * 16 * 63 * 512;
    private const uint Block = 2 << 20;
    private const int Entries = (int)(Bytes / Block);

    public static TheoryData<string> Unlisted() => new("vbox", "simh", "zzzz", "dutl", "\0\0\0\0");

    [Theory]
    [MemberData(nameof(Unlisted))]
    public async Task A_maker_nobody_listed_means_the_current_size_and_loses_nothing(string creator)
    {
        var memory = new MemoryNode(Thirty(creator));
        await using BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true);
        Assert.Equal(Bytes, disk.Length);
        Assert.Empty(((IDescribed)disk).Describe().Warnings);
        Assert.Empty((await VpcDisks.CheckAsync(disk)).Findings);
        _ = await VpcDisks.RepairAsync(disk, RepairMode.Leaks);
        _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        await disk.ResizeAsync(Bytes + (1 << 30));
        Assert.Equal(Bytes + (1 << 30), disk.Length);
        await RequireDataAsync(disk);
    }

    [Theory]
    [InlineData("vpc ")]
    [InlineData("vs  ")]
    [InlineData("qemu")]
    public async Task Where_the_geometry_is_meant_nothing_below_the_current_size_is_unused(string creator)
    {
        var memory = new MemoryNode(Thirty(creator));
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true))
        {
            Assert.Equal(Capped, disk.Length);
            string warning = Assert.Single(((IDescribed)disk).Describe().Warnings);
            Assert.Contains($"{Capped:#,0}", warning, StringComparison.Ordinal);
            Assert.Contains($"{Bytes:#,0}", warning, StringComparison.Ordinal);
            CheckReport found = await VpcDisks.CheckAsync(disk);
            Assert.Equal(["SizesDiffer", "Behind"], found.Findings.Select(f => f.Kind), StringComparer.Ordinal);
            Assert.All(found.Findings, f => Assert.Equal(CheckSeverity.Warning, f.Severity));
            Assert.Equal(0, found.Leaks);
            _ = await VpcDisks.RepairAsync(disk, RepairMode.Leaks);
            _ = await VpcDisks.RepairAsync(disk, RepairMode.All);
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            foreach (long size in new[] { Capped - (1 << 20), Capped + (1 << 20), Bytes + (1 << 20) })
            {
                DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(size));
                Assert.Contains("force_size_calc=current_size", error.Message, StringComparison.Ordinal);
            }
            await disk.WriteAsync(0, new byte[] { 1 });
        }
        await using BlockNode whole = await VpcDisks.OpenAsync(new MemoryNode(memory.ToArray()), options: "force_size_calc=current_size");
        Assert.Equal(Bytes, whole.Length);
        Assert.Empty((await VpcDisks.CheckAsync(whole)).Findings);
        await RequireDataAsync(whole);
        await whole.ResizeAsync(Bytes + (1 << 30));
        await RequireDataAsync(whole);
    }

    [Fact]
    public async Task What_a_table_has_behind_both_sizes_is_kept_until_the_user_gives_it_up()
    {
        byte[] image = VhdMaker.Dynamic(
            VhdMaker.Footer("win ", 4 * Block, (120, 4, 17), 3),
            VhdMaker.Header(1536, 8, Block),
            Block,
            8,
            (1, Bits(), Data(1)),
            (6, Bits(), Data(6)),
            (2, Bits(), Data(2)));
        var memory = new MemoryNode(image);
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true))
        {
            Assert.Equal("Behind", Assert.Single((await VpcDisks.CheckAsync(disk)).Findings).Kind);
            _ = await VpcDisks.RepairAsync(disk, RepairMode.All);
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            await disk.WriteAsync(0, Data(9));
            _ = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(8 * Block));
            await disk.ResizeAsync(5 * Block); // not as far as the block
        }
        byte[] longer = memory.ToArray();
        await using (BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(longer, readOnly: true)))
        {
            Assert.Equal("Behind", Assert.Single((await VpcDisks.CheckAsync(disk)).Findings).Kind);
            byte[] read = await VpcDisks.ReadAsync(disk);
            Assert.Equal(
                ((byte)9, (byte)1, (byte)2, (byte)0, (byte)0), (read[0], read[Block], read[2 * Block], read[3 * Block], read[4 * Block]));
        }
        await using (BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(longer)))
        {
            await disk.ResizeAsync(3 * Block);
            await disk.ResizeAsync(8 * Block);
            Assert.Equal(0, (await VpcDisks.ReadAsync(disk)).AsSpan(3 * (int)Block).IndexOfAnyExcept((byte)0) + 1);
            Assert.DoesNotContain((await VpcDisks.CheckAsync(disk)).Findings, f => f.Severity != CheckSeverity.Leak);
        }
    }

    [Fact]
    public async Task An_entry_behind_the_end_that_leads_into_a_live_block_is_found_and_frees_nothing()
    {
        byte[] image = VhdMaker.Dynamic(
            VhdMaker.Footer("win ", 4 * Block, (120, 4, 17), 3),
            VhdMaker.Header(1536, 8, Block),
            Block,
            8,
            (1, Bits(), Data(1)),
            (2, Bits(), Data(2)));
        image.AsSpan(1536 + 4, 4).CopyTo(image.AsSpan(1536 + (5 * 4))); // block 5 is where block 1 is
        await using BlockNode mended = await VpcDisks.OpenAsync(new MemoryNode((byte[])image.Clone()), forRepair: true);
        Assert.Empty((await VpcDisks.RepairAsync(mended, RepairMode.All)).Findings);
        Assert.Equal(1, (await VpcDisks.ReadAsync(mended))[Block]);

        await using BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(image), forRepair: true);
        Assert.Equal(("Stale", CheckSeverity.Corruption), Assert.Single((await VpcDisks.CheckAsync(disk)).Findings) is var f
            ? (f.Kind, f.Severity) : default);
        await disk.ResizeAsync(3 * Block);
        await disk.WriteAsync(0, Data(7));
        await disk.ResizeAsync(8 * Block);
        byte[] read = await VpcDisks.ReadAsync(disk);
        Assert.Equal(((byte)7, (byte)1, (byte)2, (byte)0), (read[0], read[Block], read[2 * Block], read[5 * Block]));
        Assert.Empty((await VpcDisks.CheckAsync(disk)).Findings);
    }

    [Theory]
    [InlineData("vpc ", true)]
    [InlineData("vbox", false)]
    public async Task A_fixed_disk_shows_or_keeps_what_is_below_its_current_size(string creator, bool isByGeometry)
    {
        const int Size = 4 << 20, Chs = 100 * 4 * 17 * 512;
        byte[] image = [.. new byte[Size], .. VhdMaker.Footer(creator, Size, (100, 4, 17), 2)];
        image[Chs + 5] = 42;
        var memory = new MemoryNode(image);
        await using BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true);
        Assert.Equal(isByGeometry ? Chs : Size, disk.Length);
        Assert.Equal(isByGeometry ? 1 : 0, ((IDescribed)disk).Describe().Warnings.Count);
        Assert.Equal(isByGeometry
            ? ["SizesDiffer"]
            : [], (await VpcDisks.CheckAsync(disk)).Findings.Select(f => f.Kind), StringComparer.Ordinal);
        _ = await VpcDisks.RepairAsync(disk, RepairMode.All);
        if (isByGeometry)
        {
            _ = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(Size * 2));
        }
        else
        {
            await disk.ResizeAsync(Size * 2);
        }
        Assert.Equal(42, memory.ToArray()[Chs + 5]);
    }

    [OracleTheory]
    [InlineData("subformat=dynamic")]
    [InlineData("subformat=fixed")]
    public async Task A_new_or_resized_disk_has_exactly_the_size_asked_for_and_qemu_reads_it(string options)
    {
        using var folder = new TestFolder();
        var random = new Random(11);
        long[] sizes =
        [
            512, 100 << 20, (100 << 20) + 512, 104_865_792, (1L << 30) - 512, 65535L * 16 * 63 * 512, 65535L * 16 * 255 * 512,
            (65535L * 16 * 255 * 512) + 512, 2040L << 30,
            .. Enumerable.Range(0, 20).Select(_ => random.NextInt64(1, 1L << random.Next(1, 32)) * 512),
        ];
        foreach (long size in sizes)
        {
            await Images.CreateAsync(folder["a.vhd"], "vpc", $"size={size},{options}");
            await using (BlockNode disk = await Images.OpenAsync(folder["a.vhd"], "vpc"))
            {
                Assert.Equal((size, size), (disk.Length, VpcOracleTests.Info(disk).CurrentSize));
            }
            Assert.Equal(size, await VpcOracleTests.VirtualSizeAsync(folder["a.vhd"]));
            long other = sizes[random.Next(sizes.Length)];
            await using (BlockNode disk = await Images.OpenAsync(folder["a.vhd"], "vpc", writable: true))
            {
                await disk.ResizeAsync(other);
                Assert.Equal((other, other), (disk.Length, VpcOracleTests.Info(disk).CurrentSize));
            }
            Assert.Equal(other, await VpcOracleTests.VirtualSizeAsync(folder["a.vhd"]));
            File.Delete(folder["a.vhd"]);
        }
    }

    [Theory]
    [InlineData((2040L << 30) + 512)]
    [InlineData(3L << 40)]
    public async Task A_fixed_disk_may_be_larger_than_2040_GiB(long size)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.vhd"], "vpc", $"size={size},subformat=fixed");
        await using (BlockNode disk = await Images.OpenAsync(folder["a.vhd"], "vpc", writable: true))
        {
            Assert.Equal(size, disk.Length);
            await disk.WriteAsync(size - 512, Data(3).AsMemory(0, 512));
            await disk.ResizeAsync(size + 4096);
        }
        await using (BlockNode disk = await Images.OpenAsync(folder["a.vhd"], "vpc"))
        {
            byte[] end = new byte[512];
            await disk.ReadAsync(size - 512, end);
            Assert.Equal((size + 4096, (byte)3), (disk.Length, end[511]));
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.CreateAsync(folder["b.vhd"], "vpc", $"size={size}"));
        Assert.Contains("2040 GiB", error.Message, StringComparison.Ordinal);
        error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.CreateAsync(folder["b.vhd"], "vpc", $"size={(64L << 40) + 512},subformat=fixed"));
        Assert.Contains("64 TiB", error.Message, StringComparison.Ordinal);
    }

    private static byte[] Thirty(string creator)
        => VhdMaker.Dynamic(
            VhdMaker.Footer(creator, Bytes, (16383, 16, 63), 3),
            VhdMaker.Header(1536, Entries, Block),
            Block,
            Entries,
            ((int)(DataAt / Block), Bits(), Data(5)));

    private static async Task RequireDataAsync(BlockNode disk)
    {
        byte[] read = new byte[Block];
        await disk.ReadAsync(DataAt, read);
        Assert.Equal(Data(5), read);
    }

    private static byte[] Bits() => [.. Enumerable.Repeat((byte)0xFF, 512)];

    private static byte[] Data(byte value) => [.. Enumerable.Repeat(value, (int)Block)];
}
