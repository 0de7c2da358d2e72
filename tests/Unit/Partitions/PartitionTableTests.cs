using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Partitions;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Partitions;

/// <summary>Reading MBR and GPT, and the smallest size that they leave.</summary>
public sealed class PartitionTableTests
{
    private const int MiB = 1 << 20;

    [Fact]
    public async Task Primary_and_logical_partitions_of_an_MBR_are_found()
    {
        byte[] disk = new byte[16 * MiB];
        PartitionedDisk.Mbr(disk, (0x83, 2048, 2048), (0x0F, 8192, 8192));
        PartitionedDisk.Mbr(disk.AsSpan(8192 * 512), (0x83, 64, 1000), (0x05, 4096, 2000));
        PartitionedDisk.Mbr(disk.AsSpan((8192 + 4096) * 512), (0x07, 32, 1500));
        PartitionTable table = (await ReadAsync(disk))!;
        Assert.Equal(PartitionScheme.Mbr, table.Scheme);
        Assert.Equal(512, table.SectorSize);
        Assert.Equal(
            [
                new DiskPartition(MiB, MiB, "83"),
                new DiskPartition(4 * MiB, 4 * MiB, "0f", IsExtended: true),
                new DiskPartition((8192 + 64) * 512, 1000 * 512, "83"),
                new DiskPartition((8192 + 4096 + 32) * 512, 1500 * 512, "07"),
            ],
            table.Partitions);
        Assert.Equal(8 * MiB, table.MinimumSize); // the end of the extended one
    }

    [Theory]
    [InlineData(512, 128, 2048, 34 + 32, 33)]
    [InlineData(4096, 128, 256, 6 + 32, 5)]
    [InlineData(512, 5, 100, 40, 3)] // 640 bytes of entries are two sectors
    public async Task A_GPT_needs_room_for_its_copy(int sector, int count, int first, int last, int backup)
    {
        (ulong, ulong)[] partitions = [((ulong)first, (ulong)first + 99), ((ulong)last, (ulong)last + 9)];
        PartitionTable table = (await ReadAsync(PartitionedDisk.Gpt(8 * MiB, sector, count, partitions)))!;
        Assert.Equal(PartitionScheme.Gpt, table.Scheme);
        Assert.Equal(sector, table.SectorSize);
        Assert.Equal(2, table.Partitions.Count);
        Assert.Equal(new DiskPartition((long)first * sector, 100L * sector, PartitionedDisk.LinuxData.ToString()), table.Partitions[0]);
        Assert.Equal((Math.Max(first + 100, last + 10) + (long)backup) * sector, table.MinimumSize);
        Assert.False(table.IsFromBackup || table.IsHybrid);
    }

    [Fact]
    public async Task A_GPT_without_partitions_leaves_its_tables_and_a_sector()
        => Assert.Equal((34 + 1 + 33) * 512, (await ReadAsync(PartitionedDisk.Gpt(8 * MiB, 512, 128)))!.MinimumSize);

    [Theory]
    [InlineData(512 + 20, 1)] // a header byte
    [InlineData(1024 + 40, 7)] // an entry byte
    [InlineData(512, 0xFF)]
    public async Task A_damaged_GPT_gives_way_to_its_copy(int at, byte flip)
    {
        byte[] disk = PartitionedDisk.Gpt(8 * MiB, 512, 128, (2048, 4095));
        disk[at] ^= flip;
        PartitionTable table = (await ReadAsync(disk))!;
        Assert.True(table.IsFromBackup);
        Assert.Equal((4096 + 33) * 512, table.MinimumSize);
        disk[^500] ^= flip;
        Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(disk))).Kind);
    }

    [Fact]
    public async Task A_copy_that_nothing_announces_is_what_a_former_user_left()
    {
        byte[] disk = PartitionedDisk.Gpt(8 * MiB, 512, 128, (2048, 15000));
        disk.AsSpan(0, 4096).Clear();
        Assert.Null(await ReadAsync(disk));
        PartitionedDisk.Mbr(disk, (0x83, 2048, 2048));
        Assert.Equal(2 * MiB, (await ReadAsync(disk))!.MinimumSize);
    }

    [Fact]
    public async Task A_hybrid_MBR_counts_as_well()
    {
        byte[] disk = PartitionedDisk.Gpt(8 * MiB, 512, 128, (2048, 4095));
        PartitionedDisk.Mbr(disk, (0xEE, 1, 2047), (0x83, 4096, 2048));
        PartitionTable table = (await ReadAsync(disk))!;
        Assert.True(table.IsHybrid);
        Assert.Equal(2, table.Partitions.Count);
        Assert.Equal((6144 + 33) * 512, table.MinimumSize);
    }

    [Fact]
    public async Task An_MBR_is_read_in_the_sectors_of_the_disk()
    {
        byte[] disk = new byte[32 * MiB];
        PartitionedDisk.Mbr(disk, (0x07, 256, 1024));
        Assert.Equal((256 + 1024) * 4096, (await ReadAsync(disk, 4096))!.MinimumSize);
        Assert.Equal((256 + 1024) * 512, (await ReadAsync(disk))!.MinimumSize); // empty everywhere: the usual sector
        disk[256 * 4096] = 1;
        Assert.Equal((256 + 1024) * 4096, (await ReadAsync(disk))!.MinimumSize); // a file system stands where large sectors have it
        disk[(256 * 512) + 1024] = 1;
        Assert.Equal((256 + 1024) * 512, (await ReadAsync(disk))!.MinimumSize);
    }

    [Fact]
    public async Task What_is_no_table_is_none()
    {
        Assert.Null(await ReadAsync([]));
        Assert.Null(await ReadAsync(new byte[MiB]));
        byte[] fat = new byte[MiB];
        PartitionedDisk.Mbr(fat); // the mark, and nothing else: as mkfs.fat leaves the first sector
        Assert.Null(await ReadAsync(fat));
        fat[446] = (byte)'P'; // a message where the entries would be
        fat[450] = 0x83;
        BinaryPrimitives.WriteUInt32LittleEndian(fat.AsSpan(458), 10);
        Assert.Null(await ReadAsync(fat));
    }

    public static TheoryData<string, (byte, uint, uint)[], (byte, uint, uint)[]> Hostile => new()
    {
        { "past the end", [(0x83, 2048, 4097)], [] },
        { "start past the end", [(0x83, uint.MaxValue, uint.MaxValue)], [] },
        { "first sector", [(0x83, 0, 10)], [] },
        { "chain to itself", [(0x05, 1000, 2000)], [(0x83, 1, 10), (0x05, 0, 100)] },
        { "chain to nothing", [(0x05, 1000, 2000)], [(0x83, 1, 10), (0x05, 50, 100)] },
        { "chain off the disk", [(0x05, 1000, 2000)], [(0x05, 1_000_000, 100)] },
        { "logical off the disk", [(0x05, 1000, 2000)], [(0x83, 1, 1_000_000)] },
        { "an extended one without a chain", [(0x0F, 3000, 100)], [] },
    };

    [Theory]
    [MemberData(nameof(Hostile))]
    public async Task A_hostile_MBR_is_refused(string what, (byte, uint, uint)[] primary, (byte, uint, uint)[] logical)
    {
        byte[] disk = new byte[3 * MiB];
        PartitionedDisk.Mbr(disk, primary);
        PartitionedDisk.Mbr(disk.AsSpan(1000 * 512), logical);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(disk));
        Assert.True(error.Kind == DiskImageErrorKind.Corrupt, $"{what}: {error}");
    }

    [Fact]
    public async Task A_chain_without_end_is_bounded()
    {
        byte[] disk = new byte[8 * MiB];
        PartitionedDisk.Mbr(disk, (0x05, 100, 10_000));
        for (uint i = 0; i < 10_000; i++)
        {
            PartitionedDisk.Mbr(disk.AsSpan((int)(100 + i) * 512), (0x05, i + 1, 1));
        }
        Assert.Contains(
            "more than 256", (await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(disk))).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(80, 0xFFFF_FFFF)] // entries
    [InlineData(84, 1)] // bytes of one
    [InlineData(84, 0x8000_0000)]
    [InlineData(72, 0xFFFF_FFFF)] // where they are
    [InlineData(76, 0xFFFF_FFFF)]
    [InlineData(40, 0xFFFF_FFFF)] // the first that may be used
    [InlineData(12, 0)] // bytes of the header
    [InlineData(12, 0x7FFF_FFFF)]
    public async Task A_hostile_GPT_is_none(int field, uint value)
    {
        byte[] disk = PartitionedDisk.Gpt(4 * MiB, 512, 128, (2048, 4095));
        foreach (int at in new[] { 512, disk.Length - 512 })
        {
            Span<byte> header = disk.AsSpan(at, 512);
            BinaryPrimitives.WriteUInt32LittleEndian(header[field..], value);
            if (field != 12)
            {
                PartitionedDisk.Seal(header);
            }
        }
        Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(disk))).Kind);
    }

    [Theory]
    [InlineData(1, 0)]
    [InlineData(8000, 8192)]
    [InlineData(0, 10)]
    [InlineData(1, long.MaxValue)]
    public async Task A_GPT_partition_off_the_disk_is_refused(long first, long last)
    {
        byte[] disk = PartitionedDisk.Gpt(4 * MiB, 512, 128, ((ulong)first, (ulong)last));
        Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(disk))).Kind);
    }

    /// <summary>
    /// Every cut between two writes leaves a table that reads as before, on the long disk and, at the end, on the short one.
    /// </summary>
    [Theory]
    [InlineData(512)]
    [InlineData(4096)]
    public async Task The_copy_moves_to_the_new_end(int sector)
    {
        byte[] before = PartitionedDisk.Gpt(16 * MiB, sector, 128, (256, 400), (500, 600));
        PartitionTable table = (await ReadAsync(before))!;
        await using var node = new MemoryNode((byte[])before.Clone());
        await table.PrepareForSizeAsync(node, table.MinimumSize, CancellationToken.None);
        byte[] longDisk = node.ToArray();
        Assert.Equal(before[(256 * sector)..(601 * sector)], longDisk[(256 * sector)..(601 * sector)]);
        Assert.Equal(before[(2 * sector)..(34 * sector)], longDisk[(2 * sector)..(34 * sector)]);
        byte[] shortDisk = longDisk[..(int)table.MinimumSize];
        Assert.Equal(table.Partitions, (await ReadAsync(shortDisk))!.Partitions);
        Assert.Equal(table.MinimumSize, (await ReadAsync(shortDisk))!.MinimumSize);
        // the protecting entry
        Assert.Equal((uint)(shortDisk.Length / sector) - 1, BinaryPrimitives.ReadUInt32LittleEndian(shortDisk.AsSpan(458)));
        Assert.Equal((ulong)(shortDisk.Length / sector) - 1, BinaryPrimitives.ReadUInt64LittleEndian(shortDisk.AsSpan(sector + 32)));
        Assert.Equal(600ul, BinaryPrimitives.ReadUInt64LittleEndian(shortDisk.AsSpan(sector + 48))); // the last that may be used
        shortDisk[sector] = 0;
        PartitionTable copy = (await ReadAsync(shortDisk))!;
        Assert.True(copy.IsFromBackup);
        Assert.Equal(table.Partitions, copy.Partitions);
    }

    [Fact]
    public async Task Moving_the_copy_is_safe_at_every_write()
    {
        byte[] before = PartitionedDisk.Gpt(4 * MiB, 512, 128, (2048, 4095));
        PartitionTable table = (await ReadAsync(before))!;
        for (int writes = 0; writes < 4; writes++)
        {
            var memory = new MemoryNode((byte[])before.Clone());
            await using var node = new StoppingNode(memory, writes);
            _ = await Assert.ThrowsAsync<DiskImageException>(
                () => table.PrepareForSizeAsync(node, table.MinimumSize, CancellationToken.None).AsTask());
            PartitionTable after = (await ReadAsync(memory.ToArray()))!;
            Assert.Equal(table.Partitions, after.Partitions);
            Assert.False(after.IsFromBackup);
        }
    }

    [Fact]
    public async Task A_copy_that_is_all_there_is_is_not_cut_off()
    {
        byte[] disk = PartitionedDisk.Gpt(4 * MiB, 512, 128, (2048, 4095));
        disk[512] = 0;
        await using var node = new MemoryNode((byte[])disk.Clone());
        PartitionTable table = (await PartitionTable.ReadAsync(node, null, CancellationToken.None))!;
        _ = await Assert.ThrowsAsync<DiskImageException>(
            () => table.PrepareForSizeAsync(node, table.MinimumSize, CancellationToken.None).AsTask());
        Assert.Equal(disk, node.ToArray());
    }

    private static async Task<PartitionTable?> ReadAsync(byte[] disk, int? sectorSize = null)
    {
        await using BlockNode node = PartitionedDisk.Node(disk);
        return await PartitionTable.ReadAsync(node, sectorSize, CancellationToken.None);
    }

    /// <summary>Fails with the first write after some.</summary>
    private sealed class StoppingNode(BlockNode below, int writes) : FilterNode(below)
    {
        private int _left = writes;

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
            => _left-- > 0 ? base.WriteCoreAsync(offset, buffer, cancellationToken)
                : throw new DiskImageException(DiskImageErrorKind.WriteFailed, "full");
    }
}
