using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vdi;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vdi;

public sealed class VdiTests : IDisposable
{
    private const int Block = 4096;

    private static readonly DiskFormat s_vdi = new("vdi");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Every pair of what QEMU and this library both know, with a last block that is whole, cut, or nearly nothing.</summary>
    [OracleTheory]
    [InlineData("", 0)]
    [InlineData("", 1536)]
    [InlineData("static=on", 0)]
    [InlineData("static=on", 1536)]
    [InlineData("static=off", 512)]
    [InlineData("static=on", (1 << 20) - 512)]
    public Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(string options, int more)
        => new BothWays(_folder, "vdi").ConvertAsync((17 << 20) + more, options);

    /// <summary>Block sizes that QEMU opens none of, each with static and without, are held against a raw twin.</summary>
    [Theory]
    [InlineData("4k", false)]
    [InlineData("4k", true)]
    [InlineData("64k", false)]
    [InlineData("512k", true)]
    [InlineData("1M", false)]
    [InlineData("1M", true)]
    [InlineData("2M", false)]
    [InlineData("16M", true)]
    public async Task Every_block_size_reads_and_is_checked_as_it_was_written(string blockSize, bool isStatic)
    {
        string options = $"block_size={blockSize},static={(isStatic ? "on" : "off")}";
        await Images.MakeRawAsync(_folder["disk.raw"], (9 << 20) + 1536, seed: 7);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["a.vdi"], "vdi", options);
        byte[] twin = await File.ReadAllBytesAsync(_folder["disk.raw"]), read = new byte[twin.Length];
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vdi"], writable: true))
        {
            await DiskFormat.RequestsAsync(disk, twin, new Random(1), 60);
        }
        await using BlockNode again = await Images.OpenAsync(_folder["a.vdi"]);
        await again.ReadAsync(0, read);
        DiskFormat.Same(twin, read);
        Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        Assert.Equal(
            isStatic ? VdiImageType.Static.ToString() : VdiImageType.Dynamic.ToString(),
            ((VdiInfo)((IDescribed)again).Describe().FormatSpecific!).ImageType);
    }

    [OracleFact]
    public async Task An_image_that_both_write_to_in_turns_stays_whole()
    {
        await Images.CreateAsync(_folder["a.vdi"], "vdi", "size=20M");
        await new BothWays(_folder, "vdi").TwinAsync(_folder["a.vdi"], new byte[20 << 20], new Random(1), canCheck: true);
    }

    [Fact]
    public async Task A_measurement_is_the_length_that_the_image_gets()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], (9 << 20) + 512, seed: 6);
        FormatDriver vdi = Images.Registry.Format("vdi");
        foreach (string options in new[] { "", "static" })
        {
            await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw");
            object record = ((ICreatable)vdi).CreateOptions.Bind(OptionSchema.Split(options));
            ImageMeasurement measured = await ((IMeasurable)vdi).MeasureAsync(record, source, CancellationToken.None);
            await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder[$"{options}.vdi"], "vdi", options);
            // written zeroes are counted, and not stored
            Assert.InRange(new FileInfo(_folder[$"{options}.vdi"]).Length, 1, measured.Required);
            Assert.Equal((10 << 20) + (1 << 20), measured.FullyAllocated);
        }
    }

    [Fact]
    public async Task Growing_past_the_room_of_the_map_moves_it_and_keeps_everything()
    {
        byte[] contents = new byte[200 * Block];
        new Random(2).NextBytes(contents);
        foreach (int used in new[] { 0, 1, 3, 200 })
        {
            MemoryNode file = await VdiDisks.CreateAsync(contents.Length, Block);
            await using (BlockNode disk = await VdiDisks.OpenAsync(file))
            {
                await disk.WriteAsync(0, contents.AsMemory(0, used * Block));
                await disk.ResizeAsync(5000L * Block);
                await disk.WriteAsync(4999L * Block, contents.AsMemory(0, Block));
            }
            byte[] bytes = file.ToArray();
            Assert.Empty((await VdiDisks.CheckAsync(bytes)).Findings);
            await using BlockNode again = await VdiDisks.OpenAsync(new MemoryNode(bytes, readOnly: true));
            byte[] read = new byte[contents.Length], last = new byte[Block];
            await again.ReadAsync(0, read);
            Assert.Equal([.. contents[..(used * Block)], .. new byte[(200 - used) * Block]], read);
            await again.ReadAsync(4999L * Block, last);
            Assert.Equal(contents[..Block], last);
        }
    }

    [Fact]
    public async Task Compacting_drops_zeroes_closes_gaps_and_keeps_the_rest()
    {
        byte[] contents = new byte[64 * Block];
        new Random(3).NextBytes(contents);
        MemoryNode file = await VdiDisks.CreateAsync(contents.Length, Block);
        await using BlockNode disk = await VdiDisks.OpenAsync(file);
        await disk.WriteAsync(0, contents);
        for (int block = 0; block < 64; block += 3)
        {
            contents.AsSpan(block * Block, Block).Clear();
            await disk.WriteZeroesAsync(block * Block, Block);
        }
        long gained = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
        Assert.Equal(22 * Block, gained);
        Assert.Empty((await VdiDisks.CheckAsync(file.ToArray())).Findings);
        byte[] read = new byte[contents.Length];
        await disk.ReadAsync(0, read);
        Assert.Equal(contents, read);
        await disk.WriteAsync(0, contents.AsMemory(Block, Block));
        await disk.FlushAsync();
        Assert.Empty((await VdiDisks.CheckAsync(file.ToArray())).Findings);
    }

    public static TheoryData<string, uint, int> Damage() => new()
    {
        { "OutOfFile", 4000, 2 },
        { "Overlap", 1, 2 },
        { "AllocatedCount", LittleNowhere, 2 },
    };

    private const uint LittleNowhere = uint.MaxValue;

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_refused_and_repaired_and_the_rest_reads_as_before(string kind, uint entry, int block)
    {
        byte[] contents = new byte[8 * Block];
        new Random(4).NextBytes(contents);
        MemoryNode file = await VdiDisks.CreateAsync(contents.Length, Block);
        await using (BlockNode disk = await VdiDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, contents);
        }
        byte[] bytes = file.ToArray();
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(512 + (block * 4)), entry);
        Assert.Contains((await VdiDisks.CheckAsync(bytes)).Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (entry != LittleNowhere)
        {
            await Assert.ThrowsAsync<DiskImageException>(() => VdiDisks.OpenAsync(new MemoryNode((byte[])bytes.Clone())));
        }
        var damaged = new MemoryNode(bytes);
        byte[] before = new byte[contents.Length];
        await using (BlockNode disk = await VdiDisks.OpenAsync(damaged, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Corruptions, report.Leaks));
            Assert.True(report.CorruptionsFixed > 0);
        }
        Assert.Empty((await VdiDisks.CheckAsync(damaged.ToArray())).Findings);
        await using BlockNode repaired = await VdiDisks.OpenAsync(damaged);
        await repaired.ReadAsync(0, before);
        byte[] expected = [.. contents[..(block * Block)], .. entry == 1
            ? contents[Block..(2 * Block)]
            : new byte[Block], .. contents[((block + 1) * Block)..]];
        Assert.Equal(expected, before);
    }

    [Theory]
    [InlineData(0x40, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(0x44, 0x00000001u, DiskImageErrorKind.Unsupported)]
    [InlineData(0x4C, 3u, DiskImageErrorKind.Unsupported)]
    [InlineData(0x154, 100u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x154, 0xFFFFFE00u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x158, 512u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x168, 4096u, DiskImageErrorKind.Unsupported)]
    [InlineData(0x174, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x178, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x178, 12288u, DiskImageErrorKind.Corrupt)]
    [InlineData(0x17C, 1u, DiskImageErrorKind.Unsupported)]
    [InlineData(0x180, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(0x180, 0x3FFFFFFFu, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_vdi.RefusesAsync((await VdiDisks.CreateAsync(8 * Block, Block)).ToArray(), offset, value, kind);

    [Fact]
    public async Task An_undo_image_is_refused_by_its_name()
    {
        byte[] bytes = (await VdiDisks.CreateAsync(8 * Block, Block)).ToArray();
        bytes[0x4C] = 3;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await s_vdi.OpenAsync(new MemoryNode(bytes)));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
        Assert.Contains("undo (3)", error.Message, StringComparison.Ordinal);
        Assert.Contains("differencing (4)", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Every prefix of the requests, and any part of what was not flushed, leaves a disk that opens and reads as what was
    /// flushed or newer; the header's number of blocks may be off.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Nothing_that_was_flushed_is_lost(int seed)
    {
        const int Sectors = 48 * 8;
        await s_vdi.CrashAsync(
            (await VdiDisks.CreateAsync(Sectors * 512, Block)).ToArray(),
            null,
            new int[Sectors],
            GuestOperation.Sequence(seed, Sectors, 40, 40, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Flush),
            $"seed {seed}",
            async disk => _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None),
            most: int.MaxValue,
            finding: "AllocatedCount");
    }
}
