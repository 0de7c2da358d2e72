using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vdi;

public sealed class VdiTests : IDisposable
{
    private const int Block = 4096;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory]
    [InlineData("")]
    [InlineData("static=on")]
    public async Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(string options)
    {
        await Images.MakeRawAsync(_folder["disk.raw"], (17 << 20) + 1536, seed: 5);
        string[] given = options.Length == 0 ? [] : ["-o", options];
        await Programs.QemuImgAsync(["convert", "-f", "raw", "-O", "vdi", .. given, _folder["disk.raw"], _folder["theirs.vdi"]]);
        await Images.ConvertAsync(_folder["theirs.vdi"], null, _folder["back.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(_folder["disk.raw"]), await File.ReadAllBytesAsync(_folder["back.raw"]));
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.vdi"], "vdi", options);
        await Programs.CheckAsync(_folder["ours.vdi"], "vdi");
        await Programs.CompareAsync(_folder["disk.raw"], "raw", _folder["ours.vdi"], "vdi");
        await using BlockNode theirs = await Images.OpenAsync(_folder["theirs.vdi"]);
        CheckReport report = await theirs.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
        Assert.Empty(report.Findings);
    }

    [OracleFact]
    public async Task An_image_that_both_write_to_in_turns_stays_whole()
    {
        await Images.CreateAsync(_folder["a.vdi"], "vdi", "size=20M");
        byte[] model = new byte[20 << 20];
        var random = new Random(1);
        for (int turn = 0; turn < 6; turn++)
        {
            int at = random.Next(model.Length / 512) * 512, length = Math.Min(512 * random.Next(1, 5000), model.Length - at);
            byte value = (byte)(turn + 1);
            model.AsSpan(at, length).Fill(value);
            if (turn % 2 == 0)
            {
                await Programs.RunAsync("qemu-io", "-f", "vdi", "-c", $"write -P {value} {at} {length}", _folder["a.vdi"]);
            }
            else
            {
                await using BlockNode disk = await Images.OpenAsync(_folder["a.vdi"], writable: true);
                await disk.WriteAsync(at, model.AsMemory(at, length));
            }
            await Programs.CheckAsync(_folder["a.vdi"], "vdi");
        }
        await File.WriteAllBytesAsync(_folder["model.raw"], model);
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["a.vdi"], "vdi");
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
    {
        byte[] bytes = (await VdiDisks.CreateAsync(8 * Block, Block)).ToArray();
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(offset), value);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => VdiDisks.OpenAsync(new MemoryNode(bytes)));
        Assert.Equal(kind, error.Kind);
    }

    /// <summary>Every prefix of the requests, and every prefix less what was not flushed, leaves a disk that opens and reads as what was
    /// flushed or newer.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Nothing_that_was_flushed_is_lost(int seed)
    {
        const int Sectors = 48 * 8;
        MemoryNode file = await VdiDisks.CreateAsync(Sectors * 512, Block);
        byte[] before = file.ToArray();
        var log = new WriteLogNode(file);
        List<GuestOperation> operations = GuestOperation.Sequence(
            seed, Sectors, 40, 40, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Flush);
        var ends = new List<int>();
        await using (BlockNode disk = await VdiDisks.OpenAsync(log))
        {
            foreach (GuestOperation operation in operations)
            {
                await operation.RunAsync(disk);
                ends.Add(log.Count);
            }
            _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        for (int count = 0; count <= entries.Count; count++)
        {
            var copy = new MemoryNode((byte[])before.Clone());
            var model = new SectorModel(new int[Sectors]);
            for (int i = 0; i < count; i++)
            {
                await WriteLogNode.ReplayAsync(entries[i], copy);
            }
            for (int i = 0; i < operations.Count && (i == 0 || ends[i - 1] < count); i++)
            {
                if (ends[i] <= count)
                {
                    model.Done(operations[i]);
                }
                else
                {
                    model.Began(operations[i]);
                }
            }
            await using BlockNode disk = await VdiDisks.OpenAsync(copy);
            await model.VerifyAsync(disk, crashed: true);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
            Assert.All(report.Findings, f => Assert.True(f.Kind is "Leak" or "AllocatedCount", $"seed {seed}, {count} requests: {f}"));
        }
    }
}
