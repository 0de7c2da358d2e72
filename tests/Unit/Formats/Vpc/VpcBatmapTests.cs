using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>
/// XenServer's batmap, by what blktap's libvhd reads: behind the table, with a bit for each block that is there as a whole.
/// </summary>
public sealed class VpcBatmapTests
{
    private const uint Block = 4096;
    private const int Blocks = 16, Table = 1536, BatmapAt = Table + 512;

    [Theory]
    [InlineData(0x10001u)]
    [InlineData(0x10002u)]
    public async Task It_is_moved_and_extended_when_the_table_grows(uint version)
    {
        var memory = new MemoryNode(Image(version));
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true))
        {
            Assert.Empty((await VpcDisks.CheckAsync(disk)).Findings);
            await disk.ResizeAsync(6000 * Block); // 47 sectors of table, two of batmap
            await disk.WriteAsync(5999 * Block, new byte[] { 1 });
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            _ = await VpcDisks.RepairAsync(disk, RepairMode.All);
            Assert.Empty((await VpcDisks.CheckAsync(disk)).Findings);
            await disk.ResizeAsync(10 * Block);
            Assert.Equal(0, (await VpcDisks.CheckAsync(disk)).Corruptions);
        }
        byte[] file = memory.ToArray();
        Assert.Equal([0, 2], Whole(file, 2));
        await using BlockNode again = await VpcDisks.OpenAsync(new MemoryNode(file, readOnly: true));
        Assert.Equal(Data(2), (await VpcDisks.ReadAsync(again))[(2 * (int)Block)..(3 * (int)Block)]);
        Assert.Equal(0, (await VpcDisks.CheckAsync(again)).Corruptions);
    }

    [Fact]
    public async Task A_block_that_goes_is_not_said_to_be_whole_any_more()
    {
        var memory = new MemoryNode(Image(0x10002));
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory))
        {
            await disk.WriteZeroesAsync(0, Block); // given up
            await disk.WriteAsync(100, new byte[] { 1 }); // and there again, with one sector
        }
        byte[] file = memory.ToArray();
        Assert.Equal([2], Whole(file, 1));
        await using BlockNode again = await VpcDisks.OpenAsync(new MemoryNode(file, readOnly: true));
        Assert.DoesNotContain((await VpcDisks.CheckAsync(again)).Findings, f => f.Severity == CheckSeverity.Corruption);
    }

    [Theory]
    [InlineData(24, "BatmapChecksum")] // the checksum
    [InlineData(512, "BatmapChecksum")] // a bit
    [InlineData(-1, "Batmap")] // a block said to be whole that is not there, under a right checksum
    public async Task It_is_checked_and_repaired(int at, string kind)
    {
        byte[] image = Image(0x10002);
        if (at >= 0)
        {
            image[BatmapAt + at] ^= 1;
        }
        else
        {
            image[BatmapAt + 512] |= 0x10;
            Seal(image, 0x10002);
        }
        var memory = new MemoryNode(image);
        await using (BlockNode disk = await VpcDisks.OpenAsync(memory, forRepair: true))
        {
            CheckFinding finding = Assert.Single((await VpcDisks.CheckAsync(disk)).Findings);
            Assert.Equal((kind, CheckSeverity.Corruption), (finding.Kind, finding.Severity));
            Assert.Empty((await VpcDisks.RepairAsync(disk, RepairMode.All)).Findings);
        }
        Assert.Empty(Whole(memory.ToArray(), 1));
    }

    /// <summary>
    /// The blocks that a batmap calls whole; it must stand behind the table, as long as it should be, with the right checksum.
    /// </summary>
    private static List<int> Whole(byte[] file, int sectors)
    {
        int entries = (int)BinaryPrimitives.ReadUInt32BigEndian(file.AsSpan(512 + 28)), at = Table + ((entries * 4) + 511) / 512 * 512;
        Assert.Equal("tdbatmap", Encoding.ASCII.GetString(file, at, 8));
        Assert.Equal((ulong)at + 512, BinaryPrimitives.ReadUInt64BigEndian(file.AsSpan(at + 8)));
        Assert.Equal((uint)sectors, BinaryPrimitives.ReadUInt32BigEndian(file.AsSpan(at + 16)));
        uint version = BinaryPrimitives.ReadUInt32BigEndian(file.AsSpan(at + 20));
        Assert.Equal(Sum(file.AsSpan(at + 512, sectors * 512), version), BinaryPrimitives.ReadUInt32BigEndian(file.AsSpan(at + 24)));
        return [.. Enumerable.Range(0, sectors * 4096).Where(b => (file[at + 512 + (b / 8)] & (0x80 >> (b % 8))) != 0)];
    }

    private static uint Sum(ReadOnlySpan<byte> map, uint version)
    {
        uint sum = 0;
        foreach (byte b in map)
        {
            sum += version == 0x10001 ? (uint)(sbyte)b : b;
        }
        return ~sum;
    }

    private static void Seal(byte[] image, uint version)
        => BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(BatmapAt + 24), Sum(image.AsSpan(BatmapAt + 512, 512), version));

    private static byte[] Image(uint version)
    {
        byte[] all = [0xFF, .. new byte[511]];
        byte[] image = VhdMaker.Dynamic(
            VhdMaker.Footer("tap\0", Blocks * Block, (1, 4, 17), 3),
            VhdMaker.Header(Table, Blocks, Block),
            Block,
            Blocks,
            (0, all, Data(0)),
            (2, all, Data(2)));
        Encoding.ASCII.GetBytes("tdbatmap").CopyTo(image, BatmapAt);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(BatmapAt + 8), BatmapAt + 512);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(BatmapAt + 16), 1);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(BatmapAt + 20), version);
        image[BatmapAt + 512] = 0xA0;
        Seal(image, version);
        return image;
    }

    private static byte[] Data(int seed)
    {
        byte[] data = new byte[Block];
        new Random(seed).NextBytes(data);
        return data;
    }
}
