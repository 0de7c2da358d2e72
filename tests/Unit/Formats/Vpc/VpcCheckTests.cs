using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>One defect, one finding; and what a repair makes of it.</summary>
public sealed class VpcCheckTests
{
    private const uint Block = 64 << 10;
    private const int Blocks = 16, First = 1536 + 512 + (8 * 512), Stride = 512 + (int)Block;

    public static TheoryData<string, string, bool> Defects() => new()
    {
        { "end footer's checksum", "FooterDamaged", true },
        { "no end footer", "FooterDamaged", true },
        { "short footer", "FooterShort", false },
        { "copy's checksum", "FooterCopyDamaged", true },
        { "copy of another time", "FooterCopyDiffers", true },
        { "header's checksum", "HeaderChecksum", true },
        { "entry far outside", "OutOfFile", true },
        { "entry at the end", "OutOfFile", true },
        { "block cut", "Truncated", true },
        { "two entries, one block", "Overlap", true },
        { "entry one sector on", "Overlap", true },
        { "block over the table", "Overlap", true },
        { "data without bits", "BitmapHidesData", false },
        { "gap", "Leak", true },
        { "tail", "Leak", true },
        { "locator outside", "LocatorFault", true },
        { "locator too long", "LocatorFault", true },
        { "unknown locator", "LocatorUnknown", false },
        { "no name", "ParentUnnamed", false },
    };

    [Theory]
    [MemberData(nameof(Defects))]
    public async Task Each_defect_is_one_finding_and_repaired_where_that_can_be(string defect, string kind, bool isRepaired)
    {
        bool hasParent = kind.StartsWith("Locator", StringComparison.Ordinal) || kind.StartsWith("Parent", StringComparison.Ordinal);
        byte[] image = Damage(defect, Sound(hasParent));
        var readOnly = new MemoryNode((byte[])image.Clone(), readOnly: true);
        byte[] before;
        await using (BlockNode disk = await VpcDisks.OpenAsync(readOnly))
        {
            CheckReport found = await VpcDisks.CheckAsync(disk);
            CheckFinding finding = Assert.Single(found.Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
            // these leave a gap, and data as bitmap
            Assert.True(found.Findings.Count == 1
                || defect is "block over the table" or "entry one sector on", string.Join("\n", found.Findings));
            Assert.Equal(isRepaired || kind.Equals("FooterShort", StringComparison.Ordinal), finding.Repair is not null);
            before = kind is "OutOfFile" or "Truncated" ? [] : await VpcDisks.ReadAsync(disk);
        }
        Assert.Equal(image, readOnly.ToArray());

        var memory = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true))
        {
            CheckReport left = await VpcDisks.RepairAsync(disk, RepairMode.All);
            bool isLeft = !isRepaired && !kind.Equals("FooterShort", StringComparison.Ordinal);
            Assert.Equal(isLeft ? 1 : 0, left.Findings.Count(f => f.Kind.Equals(kind, StringComparison.Ordinal)));
            Assert.True((left.CorruptionsFixed + left.LeaksFixed > 0) == isRepaired);
            if (before.Length > 0)
            {
                Assert.Equal(before, await VpcDisks.ReadAsync(disk));
            }
            await disk.WriteAsync(700, new byte[] { 1, 2, 3 });
        }
        await using BlockNode again = await VpcDisks.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true));
        Assert.DoesNotContain((await VpcDisks.CheckAsync(again)).Findings, f => isRepaired
            && f.Kind.Equals(kind, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_sound_disk_has_no_findings_and_its_facts_are_counted()
    {
        foreach (bool hasParent in new[] { false, true })
        {
            byte[] image = Sound(hasParent);
            await using BlockNode disk = await VpcDisks.OpenAsync(new MemoryNode(image, readOnly: true));
            CheckReport report = await VpcDisks.CheckAsync(disk);
            Assert.Empty(report.Findings);
            Assert.Equal(Blocks, report.TotalClusters);
            Assert.Equal(4, report.AllocatedClusters);
            Assert.Equal(image.Length, report.ImageEndOffset);
        }
    }

    [Fact]
    public async Task Repairing_leaks_touches_nothing_else()
    {
        byte[] image = Damage("copy's checksum", Damage("gap", Sound(false)));
        var memory = new MemoryNode((byte[])image.Clone());
        await using BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true);
        CheckReport left = await VpcDisks.RepairAsync(disk, RepairMode.Leaks);
        Assert.Equal(0, left.CorruptionsFixed);
        Assert.Equal(image, memory.ToArray());
    }

    [Fact]
    public async Task A_recovered_footer_is_told_and_written_back_with_the_first_change()
    {
        byte[] image = Damage("no end footer", Sound(false));
        var memory = new MemoryNode(image);
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory))
        {
            Assert.True(VpcOracleTests.Info(disk).FooterRecovered);
            await disk.WriteAsync(0, new byte[] { 42 });
            await disk.FlushAsync();
            await using BlockNode other = await VpcDisks.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true));
            Assert.False(VpcOracleTests.Info(other).FooterRecovered);
        }
        await using BlockNode again = await VpcDisks.OpenAsync(new MemoryNode(memory.ToArray(), readOnly: true));
        Assert.Empty((await VpcDisks.CheckAsync(again)).Findings);
        Assert.Equal(42, (await VpcDisks.ReadAsync(again))[0]);
    }

    [Theory]
    [InlineData("header's checksum")]
    [InlineData("two entries, one block")]
    [InlineData("block over the table")]
    [InlineData("entry far outside")]
    public async Task A_damaged_disk_is_read_but_not_written_to(string defect)
    {
        byte[] image = Damage(defect, Sound(false));
        var memory = new MemoryNode((byte[])image.Clone());
        BlockNode disk = await VpcDisks.OpenAsync(memory);
        await disk.ReadAsync(0, new byte[512]);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(0, new byte[512]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        await disk.DisposeAsync();
        Assert.Equal(image, memory.ToArray());
    }

    [Fact]
    public async Task A_fixed_disk_with_its_footer_too_far_on_is_found_and_mended()
    {
        byte[] image = [.. new byte[8192], .. VhdMaker.Footer("win ", 4096, (1, 4, 2), 2)];
        var memory = new MemoryNode(image);
        await using BlockNode disk = await VpcDisks.OpenAsync(memory);
        Assert.Equal("Leak", Assert.Single((await VpcDisks.CheckAsync(disk)).Findings).Kind);
        Assert.Empty((await VpcDisks.RepairAsync(disk, RepairMode.Leaks)).Findings);
        Assert.Equal(4096 + 512, memory.Length);
    }

    [Fact]
    public void Azure_says_what_it_would_refuse()
    {
        VpcInfo info = VpcInfo.Of(
            new VpcFooters(VpcFooter.Parse(VhdMaker.Footer("win ", 20 << 20, (602, 4, 17), 2)), 512, null), VpcSizeCalculation.Auto);
        Assert.Empty(VpcProfile.AzureObjections(info, 20 << 20, (20 << 20) + 512));
        Assert.Single(VpcProfile.AzureObjections(info with { DiskType = nameof(VpcDiskType.Dynamic) }, 20 << 20, 1000));
        Assert.Single(VpcProfile.AzureObjections(info, 20 << 20, (20 << 20) + 1024));
        Assert.Equal(2, VpcProfile.AzureObjections(info with { CurrentSize = (20 << 20) + 512 }, 20 << 20, (20 << 20) + 1024).Count);
    }

    [Theory]
    [InlineData(20L << 20, "")]
    [InlineData(32767L << 30, "")]
    [InlineData(0, "the disk is empty; Azure takes 20 MiB at least")]
    [InlineData(19L << 20, "the size is 19,922,944 bytes; Azure takes 20,971,520 (20 MiB) at least")]
    [InlineData((21L << 20) + 512, "the size is 22,020,608 bytes; Azure takes whole MiB (1,048,576)")]
    [InlineData((32767L << 30) + (1 << 20), "the size is 35,183,299,395,584 bytes; Azure takes up to 35,183,298,347,008 (32,767 GiB)")]
    public void Azure_takes_sizes_from_20_MiB_to_32767_GiB(long size, string objection)
        => Assert.Equal(objection, string.Join("; ", VpcProfile.AzureObjectionsToSize(size)));

    /// <summary>Sixteen blocks, of which 0, 1, 2 and 5 are there, whole and set.</summary>
    private static byte[] Sound(bool hasParent)
    {
        var random = new Random(1);
        byte[] bits = [.. Enumerable.Repeat((byte)0xFF, 16), .. new byte[496]];
        byte[] Data()
        {
            byte[] data = new byte[Block];
            random.NextBytes(data);
            return data;
        }
        byte[] name = Encoding.Unicode.GetBytes(@".\p.vhd");
        byte[] footer = VhdMaker.Footer("win ", Blocks * Block, (30, 4, 17), hasParent ? 4 : 3);
        byte[] header = hasParent
            ? VhdMaker.Header(1536, Blocks, Block, 0x22, 77, "p.vhd", ("W2ru", name, 2048), ("W2ku", name, 2560))
            : VhdMaker.Header(1536, Blocks, Block);
        VhdMaker.WithLocators(hasParent ? [("W2ru", name, 2048), ("W2ku", name, 2560)] : []);
        return VhdMaker.Dynamic(footer, header, Block, Blocks, (0, bits, Data()), (1, bits, Data()), (2, bits, Data()), (5, bits, Data()));
    }

    private static byte[] Damage(string defect, byte[] image)
    {
        int end = image.Length - 512;
        void Entry(int block, long offset) => BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(1536 + (block * 4)), (uint)(offset / 512));
        void SealHeader()
        {
            byte[] header = image[512..1536];
            VhdMaker.Seal(header, 36);
            header.CopyTo(image, 512);
        }
        switch (defect)
        {
            case "end footer's checksum":
                image[end + 30] ^= 1;
                return image;
            case "no end footer":
                return image[..end];
            case "short footer":
                return image[..^1];
            case "copy's checksum":
                image[30] ^= 1;
                return image;
            case "copy of another time":
                byte[] copy = image[..512];
                copy[27]++;
                VhdMaker.Seal(copy, 64);
                copy.CopyTo(image, 0);
                return image;
            case "header's checksum":
                image[512 + 800] ^= 1;
                return image;
            case "entry far outside":
                Entry(7, 1L << 40);
                return image;
            case "entry at the end":
                Entry(7, end);
                return image;
            case "block cut":
                byte[] footer = image[end..];
                byte[] cut = [.. image[..(end - 8192)], .. footer];
                return cut;
            case "two entries, one block":
                Entry(7, First + Stride);
                return image;
            case "entry one sector on":
                Entry(5, First + (3 * Stride) - 512);
                return image;
            case "block over the table":
                Entry(0, 1536);
                return image;
            case "data without bits":
                image[First + 3] = 0x7F;
                return image;
            case "gap":
                Entry(1, -512);
                return image;
            case "tail":
                return [.. image[..end], .. new byte[100 << 10], .. image[end..]];
            case "locator outside":
                BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(512 + 576 + 24 + 16), 1L << 40);
                SealHeader();
                return image;
            case "locator too long":
                BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(512 + 576 + 24 + 8), 100 << 10);
                SealHeader();
                return image;
            case "unknown locator":
                image[512 + 576 + 24] = (byte)'X';
                SealHeader();
                return image;
            case "no name":
                image.AsSpan(512 + 64, 512).Clear();
                image.AsSpan(512 + 576, 48).Clear();
                SealHeader();
                return image;
            default:
                throw new ArgumentException(defect, nameof(defect));
        }
    }
}
