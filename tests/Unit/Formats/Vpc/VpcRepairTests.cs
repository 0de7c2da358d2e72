using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>What a repair must not do: lose what was readable, or vouch with a checksum for what it cannot know.</summary>
public sealed class VpcRepairTests
{
    private const uint Block = 4096;
    private const int Blocks = 16, Table = 1536, Locator = 2048, First = Table + 512 + (8 * 512), Span = 512 + (int)Block;
    private const int Size = Blocks * (int)Block;

    public static TheoryData<bool, int, int> Structures()
    {
        var data = new TheoryData<bool, int, int>();
        int end = Image(hasParent: false).Length - 512;
        foreach (bool hasParent in new[] { false, true })
        {
            data.Add(hasParent, 0, 512);
            data.Add(hasParent, 512, 512);
            data.Add(hasParent, 1024, 512);
            data.Add(hasParent, Table, 64);
            data.Add(hasParent, end, 512);
        }
        data.Add(true, Locator, 16);
        return data;
    }

    [Theory]
    [MemberData(nameof(Structures))]
    public async Task No_flipped_bit_makes_a_repair_lose_what_was_readable(bool hasParent, int start, int length)
    {
        byte[] sound = Image(hasParent);
        byte[][] original = (await SectorsAsync(sound, hasParent))!;
        int repaired = 0;
        for (int bit = start * 8; bit < (start + length) * 8; bit++)
        {
            byte[] damaged = (byte[])sound.Clone();
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            byte[]?[]? before = await SectorsAsync(damaged, hasParent);
            byte[] after = await RepairAsync(damaged, RepairMode.All);
            repaired += after.AsSpan().SequenceEqual(damaged) ? 0 : 1;
            string what = $"bit {bit % 8} of byte {bit / 8}";
            if (before is not null)
            {
                byte[]?[] read = await SectorsAsync(after, hasParent)
                    ?? throw new InvalidOperationException($"{what}: does not open any more");
                for (int i = 0; i < before.Length; i++)
                {
                    Assert.True(before[i] is null
                        || (read[i] is { } now && now.AsSpan().SequenceEqual(before[i])), $"{what}: sector {i} changed");
                }
            }
            bool isSealed = bit / 8 is < Table || start > First; // under a checksum: what it says is the original, or nothing was touched
            if (isSealed && !after.AsSpan().SequenceEqual(damaged) && await SectorsAsync(after, hasParent) is { } mended)
            {
                Assert.True(
                    mended.Zip(original).All(p => p.First is not null && p.First.AsSpan().SequenceEqual(p.Second)),
                    $"{what}: repaired into something else");
            }
        }
        Assert.True(repaired > 0 || start is 1024 or Locator, "nothing was repaired at all");
    }

    [Fact]
    public async Task A_damaged_table_offset_is_left_alone_and_the_file_is_not_cut()
    {
        byte[] image = Image(hasParent: false);
        image[512 + 16 + 6] ^= 0x10; // the table seems to be 4 KiB further on, where data is
        await using BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(image, readOnly: true), forRepair: true);
        CheckFinding finding = (
            await VpcDisks.CheckAsync(disk)).Findings.Single(f => f.Kind.Equals("HeaderChecksum", StringComparison.Ordinal));
        Assert.Null(finding.Repair);
        foreach (RepairMode mode in Enum.GetValues<RepairMode>())
        {
            Assert.Equal(image, await RepairAsync(image, mode));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Checksums_alone_are_written_anew_and_the_plan_says_so(bool hasParent)
    {
        byte[] image = Image(hasParent), sound = (byte[])image.Clone();
        image[64] ^= 0xFF;
        image[image.Length - 512 + 65] ^= 0x5A;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await VpcDisks.OpenAsync(new MemoryNode((byte[])image.Clone())));
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        await using (BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode((byte[])image.Clone()), forRepair: true))
        {
            CheckFinding finding = Assert.Single((await VpcDisks.CheckAsync(disk)).Findings);
            Assert.Equal(("FooterChecksum", "write the right checksums"), (finding.Kind, finding.Repair));
            _ = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(0, new byte[512]));
        }
        Assert.Equal(image, await RepairAsync(image, RepairMode.Leaks));
        Assert.Equal(sound, await RepairAsync(image, RepairMode.All));

        byte[] header = (byte[])sound.Clone();
        header[512 + 36] ^= 0x81;
        Assert.Equal(sound, await RepairAsync(header, RepairMode.All));
    }

    [Fact]
    public async Task A_fixed_disks_checksum_is_written_anew_if_the_size_fits_the_file()
    {
        byte[] sound = [.. Enumerable.Repeat((byte)7, 34 << 10), .. VhdMaker.Footer("win ", 34 << 10, (1, 4, 17), 2)];
        byte[] image = (byte[])sound.Clone();
        image[(34 << 10) + 64] ^= 1;
        Assert.Equal(sound, await RepairAsync(image, RepairMode.All));
        image[(34 << 10) + 54] ^= 2; // the current size, too
        _ = await Assert.ThrowsAsync<DiskImageException>(async () => await VpcDisks.OpenAsync(new MemoryNode(image), forRepair: true));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Entries_that_lead_anywhere_are_repaired_into_a_disk_that_opens_and_reads_the_same(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 150; round++)
        {
            bool hasParent = random.Next(2) == 0;
            byte[] damaged = Image(hasParent);
            var said = new List<string>();
            for (int i = random.Next(1, 4); i > 0; i--)
            {
                (int block, uint sector) = (random.Next(Blocks), (uint)random.Next(-1, (damaged.Length / 512) + 12));
                BinaryPrimitives.WriteUInt32BigEndian(damaged.AsSpan(Table + (block * 4)), sector);
                said.Add($"{block} at sector {sector}");
            }
            string what = $"seed {seed}, round {round}, parent {hasParent}: {string.Join(", ", said)}";
            byte[]?[] before = (await SectorsAsync(damaged, hasParent))!;
            byte[] after = await RepairAsync(damaged, RepairMode.All);
            byte[]?[] read = await SectorsAsync(after, hasParent) ?? throw new InvalidOperationException($"{what}: does not open any more");
            for (int i = 0; i < before.Length; i++)
            {
                Assert.True(before[i] is null
                    || (read[i] is { } now && now.AsSpan().SequenceEqual(before[i])), $"{what}: sector {i} changed");
            }
            await using BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(after, readOnly: true));
            Assert.DoesNotContain((await VpcDisks.CheckAsync(disk)).Findings, f => f.Severity == CheckSeverity.Corruption);
        }
    }

    [Fact]
    public async Task What_an_entry_that_was_wrong_may_have_meant_is_left_in_the_file()
    {
        byte[] damaged = Image(hasParent: false);
        damaged[Table] ^= 0x40; // block 0 seems to be far outside; it is still there
        byte[] after = await RepairAsync(damaged, RepairMode.All);
        Assert.Equal(damaged[First..(First + Span)], after[First..(First + Span)]);
    }

    private static async Task<byte[]> RepairAsync(byte[] image, RepairMode mode)
    {
        var memory = new MemoryNode((byte[])image.Clone());
        try
        {
            await using BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true);
            _ = await VpcDisks.RepairAsync(disk, mode);
        }
        catch (DiskImageException)
        {
            // too damaged to be opened, or to be written to
        }
        return memory.ToArray();
    }

    /// <summary>What a disk shows, sector by sector; null for one that cannot be read. Null if it does not open.</summary>
    private static async Task<byte[]?[]?> SectorsAsync(byte[] image, bool hasParent)
    {
        BlockNode disk;
        try
        {
            disk = await VpcDisks.OpenAsync(new MemoryNode((byte[])image.Clone(), readOnly: true), hasParent ? Parent : null);
        }
        catch (DiskImageException)
        {
            return null;
        }
        await using (disk)
        {
            var sectors = new byte[]?[disk.Length / 512];
            for (int i = 0; i < sectors.Length; i++)
            {
                byte[] sector = new byte[512];
                try
                {
                    await disk.ReadAsync(i * 512L, sector);
                    sectors[i] = sector;
                }
                catch (DiskImageException)
                {
                    // stays null
                }
            }
            return sectors;
        }
    }

    private static BlockNode Parent()
    {
        byte[] bits = [.. Enumerable.Repeat((byte)0xFF, 512)], data = [.. Enumerable.Repeat((byte)0x77, (int)Block)];
        return VpcDisks.OpenAsync(new MemoryNode(
            VhdMaker.Dynamic(
                VhdMaker.Footer("win ", Size, (1, 4, 17), 3, id: 0x22, time: 77),
                VhdMaker.Header(1536, Blocks, Block),
                Block,
                Blocks,
                (3, bits, data),
                (8, bits, data)),
            readOnly: true))
            .GetAwaiter().GetResult();
    }

    private static byte[] Image(bool hasParent)
    {
        var random = new Random(1);
        byte[] name = Encoding.Unicode.GetBytes(@".\p.vhd");
        byte[] footer = VhdMaker.Footer("win ", Size, (1, 4, 17), hasParent ? 4 : 3);
        byte[] header = hasParent
            ? VhdMaker.Header(Table, Blocks, Block, 0x22, 77, "p.vhd", ("W2ru", name, Locator))
            : VhdMaker.Header(Table, Blocks, Block);
        VhdMaker.WithLocators(hasParent ? [("W2ru", name, Locator)] : []);
        byte[] Data()
        {
            byte[] data = new byte[Block];
            random.NextBytes(data);
            return data;
        }
        byte[] all = [0xFF, .. new byte[511]], some = hasParent ? [0xA5, .. new byte[511]] : all;
        return VhdMaker.Dynamic(footer, header, Block, Blocks, (0, all, Data()), (1, some, Data()), (2, all, Data()), (5, some, Data()));
    }
}
