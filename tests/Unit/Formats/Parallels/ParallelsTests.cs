using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Parallels;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Parallels;

public sealed class ParallelsTests : IDisposable
{
    private const int Cluster = 4096, InUseAt = 44, DataAt = 48, BatAt = 64;

    private static readonly DiskFormat s_parallels = new("parallels");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Every pair of a cluster size and a last cluster that is whole, cut, or nearly nothing.</summary>
    public static TheoryData<string, int> Pairs()
    {
        var data = new TheoryData<string, int>();
        foreach (string clusterSize in new[] { "", "512", "4k", "32256", "256k", "1M", "3000000", "32M" })
        {
            foreach (int more in new[] { 0, 512, 1536 })
            {
                data.Add(clusterSize.Length == 0 ? "" : $"cluster_size={clusterSize}", more);
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Pairs))]
    public Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(string options, int more)
        => new BothWays(_folder, "parallels").ConvertAsync((17 << 20) + more, options);

    [OracleTheory]
    [InlineData("1M")]
    [InlineData("32256")]
    [InlineData("4k")]
    public async Task An_image_that_both_write_to_in_turns_stays_whole(string cluster)
    {
        await Images.CreateAsync(_folder["a.hdd"], "parallels", $"size=20M,cluster_size={cluster}");
        await new BothWays(_folder, "parallels").TwinAsync(_folder["a.hdd"], new byte[20 << 20], new Random(1), canCheck: true);
    }

    [OracleFact]
    public async Task An_original_image_that_we_write_is_read_by_qemu()
    {
        byte[] contents = new byte[40 * Cluster];
        new Random(8).NextBytes(contents);
        foreach (uint? dataOffset in new uint?[] { null, 0, 8 })
        {
            MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, Cluster, isExtended: false, dataOffset);
            await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
            {
                await disk.WriteAsync(0, contents);
                await disk.ResizeAsync(400 * Cluster);
                await disk.WriteAsync(399 * Cluster, contents.AsMemory(0, Cluster));
            }
            await File.WriteAllBytesAsync(_folder["a.hdd"], file.ToArray());
            await File.WriteAllBytesAsync(_folder["a.raw"], [.. contents, .. new byte[359 * Cluster], .. contents[..Cluster]]);
            await Programs.CheckAsync(_folder["a.hdd"], "parallels");
            await Programs.CompareAsync(_folder["a.raw"], "raw", _folder["a.hdd"], "parallels");
        }
    }

    [OracleFact("ploop")]
    public async Task What_we_write_passes_ploops_check_and_what_ploop_grows_is_read()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 9 << 20, seed: 6);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.hdd"], "parallels");
        byte[] bytes = await File.ReadAllBytesAsync(_folder["ours.hdd"]); // ploop wants it without holes
        await File.WriteAllBytesAsync(_folder["whole.hdd"], bytes);
        await Programs.RunAsync("ploop", "check", "-f", "-c", "-r", _folder["whole.hdd"]);
        await Programs.RunAsync("ploop", "grow", "-s", "40M", _folder["whole.hdd"]);
        await using BlockNode grown = await Images.OpenAsync(_folder["whole.hdd"]);
        byte[] read = new byte[9 << 20];
        await grown.ReadAsync(0, read);
        Assert.Equal(40 << 20, grown.Length);
        Assert.Equal(await File.ReadAllBytesAsync(_folder["disk.raw"]), read);
        Assert.Empty((await grown.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
    }

    [NotOnWineFact("sparse files, so a measurement takes holes for data")]
    public async Task A_measurement_is_the_length_that_the_image_gets()
    {
        await Images.WriteSparseAsync(
            _folder["disk.raw"], [.. new byte[1 << 20], 1, .. new byte[(3 << 20) - 1], .. Enumerable.Repeat((byte)7, 1 << 20)]);
        FormatDriver parallels = Images.Registry.Format("parallels");
        foreach (string options in new[] { "", "cluster_size=4k", "cluster_size=32256" })
        {
            await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw");
            object record = ((ICreatable)parallels).CreateOptions.Bind(OptionSchema.Split(options));
            ImageMeasurement measured = await ((IMeasurable)parallels).MeasureAsync(record, source, CancellationToken.None);
            await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder[$"{options}.hdd"], "parallels", options);
            Assert.Equal(measured.Required, new FileInfo(_folder[$"{options}.hdd"]).Length);
            Assert.True(measured.FullyAllocated > source.Length);
        }
    }

    [Theory]
    [InlineData(true, null)]
    [InlineData(false, null)]
    [InlineData(false, 0u)]
    public async Task Growing_and_shrinking_keeps_everything_that_is_left(bool isExtended, uint? dataOffset)
    {
        byte[] contents = new byte[200 * Cluster];
        new Random(2).NextBytes(contents);
        foreach (int used in new[] { 0, 1, 3, 200 })
        {
            MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, Cluster, isExtended, dataOffset);
            await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
            {
                await disk.WriteAsync(0, contents.AsMemory(0, used * Cluster));
                await disk.ResizeAsync(5000L * Cluster);
                await disk.WriteAsync(4999L * Cluster, contents.AsMemory(0, Cluster));
                await disk.ResizeAsync((5000L * Cluster) - 512);
                await disk.ResizeAsync(5000L * Cluster);
            }
            byte[] bytes = file.ToArray();
            Assert.Empty((await ParallelsDisks.CheckAsync(bytes)).Findings);
            await using (BlockNode again = await ParallelsDisks.OpenAsync(new MemoryNode(bytes, readOnly: true)))
            {
                byte[] read = new byte[contents.Length], last = new byte[Cluster];
                await again.ReadAsync(0, read);
                Assert.Equal([.. contents[..(used * Cluster)], .. new byte[(200 - used) * Cluster]], read);
                await again.ReadAsync(4999L * Cluster, last);
                Assert.Equal([.. contents[..(Cluster - 512)], .. new byte[512]], last);
            }
            await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
            {
                await disk.ResizeAsync(2 * Cluster);
                await disk.ResizeAsync(4 * Cluster);
                byte[] read = new byte[4 * Cluster];
                await disk.ReadAsync(0, read);
                Assert.Equal([.. contents[..(Math.Min(used, 2) * Cluster)], .. new byte[(4 - Math.Min(used, 2)) * Cluster]], read);
            }
            Assert.Empty((await ParallelsDisks.CheckAsync(file.ToArray())).Findings);
        }
    }

    [Fact]
    public async Task Compacting_drops_zeroes_closes_gaps_and_keeps_the_rest()
    {
        byte[] contents = new byte[64 * Cluster];
        new Random(3).NextBytes(contents);
        MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, Cluster);
        await using BlockNode disk = await ParallelsDisks.OpenAsync(file);
        await disk.WriteAsync(0, contents);
        for (int block = 0; block < 64; block += 3)
        {
            contents.AsSpan(block * Cluster, Cluster).Clear();
            await disk.WriteZeroesAsync(block * Cluster, Cluster);
        }
        Assert.Equal(22 * Cluster, await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
        byte[] read = new byte[contents.Length];
        await disk.ReadAsync(0, read);
        Assert.Equal(contents, read);
        await disk.WriteAsync(0, contents.AsMemory(Cluster, Cluster));
        await disk.DisposeAsync();
        Assert.Empty((await ParallelsDisks.CheckAsync(file.ToArray())).Findings);
    }

    [Fact]
    public async Task The_mark_is_there_from_the_first_change_to_the_end_and_reading_leaves_it_alone()
    {
        MemoryNode file = await ParallelsDisks.CreateAsync(64 * Cluster, Cluster);
        byte[] before = file.ToArray();
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            await disk.ReadAsync(0, new byte[Cluster]);
        }
        Assert.Equal(before, file.ToArray());
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[] { 1 });
            Assert.Equal(ParallelsHeader.InUseMark, Mark(file));
            Assert.False(((IDescribed)disk).Describe().Dirty);
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        Assert.Equal(0u, Mark(file));
    }

    private static uint Mark(MemoryNode file) => BinaryPrimitives.ReadUInt32LittleEndian(file.ToArray().AsSpan(InUseAt));

    public static TheoryData<string, int, uint, int> Damage() => new()
    {
        { "OutOfFile", BatAt + (2 * 4), 4000, 2 },
        { "Overlap", BatAt + (2 * 4), 2, 2 },
        { "Leak", BatAt + (2 * 4), 0, 2 },
        { "Dirty", InUseAt, ParallelsHeader.InUseMark, -1 },
        { "DataOffset", DataAt, 3, -1 },
        { "DataOffset", DataAt, 0, -1 },
        { "DataOffset", DataAt, 80_000, -1 },
    };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_and_repaired_and_the_rest_reads_as_before(string kind, int offset, uint value, int block)
    {
        byte[] contents = new byte[8 * Cluster];
        new Random(4).NextBytes(contents);
        MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, Cluster);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, contents);
        }
        byte[] bytes = file.ToArray();
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(offset), value);
        Assert.Contains((await ParallelsDisks.CheckAsync(bytes)).Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (kind is "OutOfFile" or "Overlap")
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => ParallelsDisks.OpenAsync(new MemoryNode([.. bytes])));
            Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        }
        var damaged = new MemoryNode(bytes);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(damaged, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Empty(report.Findings);
            Assert.True(report.CorruptionsFixed + report.LeaksFixed > 0);
        }
        Assert.Empty((await ParallelsDisks.CheckAsync(damaged.ToArray())).Findings);
        byte[] expected = [.. contents];
        if (block >= 0)
        {
            (value == 2 ? contents[Cluster..(2 * Cluster)] : new byte[Cluster]).CopyTo(expected, block * Cluster);
        }
        await using BlockNode repaired = await ParallelsDisks.OpenAsync(damaged);
        byte[] read = new byte[contents.Length];
        await repaired.ReadAsync(0, read);
        Assert.Equal(expected, read);
    }

    [Fact]
    public async Task An_image_that_was_not_closed_is_written_to_where_its_table_is_sound_and_is_closed_then()
    {
        MemoryNode file = await ParallelsDisks.CreateAsync(8 * Cluster, Cluster);
        byte[] bytes = [.. file.ToArray(), .. new byte[50 * Cluster]]; // as QEMU leaves it that claims space ahead
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(InUseAt), ParallelsHeader.InUseMark);
        var left = new MemoryNode(bytes);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(left))
        {
            Assert.True(((IDescribed)disk).Describe().Dirty);
            await disk.WriteAsync(0, new byte[] { 1 });
        }
        Assert.Equal(0u, Mark(left));
        Assert.All((await ParallelsDisks.CheckAsync(left.ToArray())).Findings, f => Assert.Equal("Leak", f.Kind));
    }

    [Fact]
    public async Task A_file_may_end_where_the_disk_does_and_what_is_cut_off_inside_is_not_made_up()
    {
        byte[] contents = new byte[(4 * Cluster) - 1024];
        new Random(5).NextBytes(contents);
        MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, Cluster);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, contents);
        }
        byte[] short1 = file.ToArray()[..^1024], short2 = short1[..^512], read = new byte[contents.Length];
        Assert.Empty((await ParallelsDisks.CheckAsync(short1)).Findings);
        var cut = new MemoryNode(short1);
        await using (BlockNode disk = await ParallelsDisks.OpenAsync(cut))
        {
            await disk.ReadAsync(0, read);
            Assert.Equal(contents, read);
            await disk.ResizeAsync(8 * Cluster);
            await disk.WriteAsync(7 * Cluster, contents.AsMemory(0, Cluster));
            await disk.ReadAsync(0, read);
            Assert.Equal(contents, read);
        }
        Assert.Empty((await ParallelsDisks.CheckAsync(cut.ToArray())).Findings);
        Assert.Contains((await ParallelsDisks.CheckAsync(short2)).Findings, f => f.Kind == "Truncated");
        await using BlockNode cutInside = await ParallelsDisks.OpenAsync(new MemoryNode(short2, readOnly: true));
        await cutInside.ReadAsync(0, read.AsMemory(0, contents.Length - 512));
        _ = await Assert.ThrowsAsync<DiskImageException>(async () => await cutInside.ReadAsync(0, read));
    }

    [Theory]
    [InlineData(0, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(16, 1u, DiskImageErrorKind.Unsupported)]
    [InlineData(28, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(28, 0x80000000u, DiskImageErrorKind.Corrupt)]
    [InlineData(28, 4_186_128u, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 7u, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0x1FFFFFF0u, DiskImageErrorKind.Corrupt)]
    [InlineData(36, 65u, DiskImageErrorKind.Corrupt)]
    [InlineData(40, 1u, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_parallels.RefusesAsync((await ParallelsDisks.CreateAsync(8 * Cluster, Cluster)).ToArray(), offset, value, kind);

    [Fact]
    public async Task Only_the_low_half_of_an_original_images_size_counts()
    {
        byte[] bytes = (await ParallelsDisks.CreateAsync(8 * Cluster, Cluster, isExtended: false)).ToArray();
        bytes[40] = 1;
        await using BlockNode disk = await ParallelsDisks.OpenAsync(new MemoryNode(bytes, readOnly: true));
        Assert.Equal(8 * Cluster, disk.Length);
    }

    /// <summary>Every prefix of the requests, and any part of what was not flushed, leaves a disk that opens and reads as what was
    /// flushed or newer; it may be marked as in use.</summary>
    [Theory]
    [InlineData(1, true)]
    [InlineData(2, false)]
    [InlineData(3, true)]
    public async Task Nothing_that_was_flushed_is_lost(int seed, bool isExtended)
    {
        const int Sectors = 48 * 8;
        await s_parallels.CrashAsync(
            (await ParallelsDisks.CreateAsync(Sectors * 512, Cluster, isExtended, isExtended ? null : 0)).ToArray(),
            null,
            new int[Sectors],
            GuestOperation.Sequence(seed, Sectors, 40, 40, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Flush),
            $"seed {seed}",
            async disk =>
            {
                _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
                await disk.ResizeAsync(600 * Cluster); // moves clusters out of the table's way
            },
            most: int.MaxValue,
            finding: "Dirty");
    }
}
