using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Sparse extents in memory: what is damaged, what a crash leaves, what is compacted, resized, measured.</summary>
public sealed class VmdkStructureTests
{
    private const int Grain = 65536, Sectors = 6 * 128 + 40;

    private static readonly DiskFormat s_vmdk = new("vmdk");

    /// <summary>Where the parts of a small image lie: as QEMU lays them out.</summary>
    private const int RedundantDirectory = 21 * 512, RedundantTable = 22 * 512, Directory = 26 * 512, Table = 27 * 512, FirstGrain = 65536;

    public static TheoryData<string, int, uint, bool> Damage() => new()
    {
        { "TableOutOfFile", Directory, 0x00FF_0000, true }, // saved by the redundant copy
        { "TableOverlap", Directory, 22, true },
        { "TableOverlap", Directory, 1, true },
        { "TableOutOfFile", RedundantDirectory, 0x00FF_0000, true },
        { "DirectoryOutOfFile", 56, 0x00FF_0000, true },
        { "DirectoryOutOfFile", 48, 0x00FF_0000, true },
        { "OutOfFile", Table + 8, 0x00FF_0000, true },
        { "Overlap", Table + 8, 128, false },
        { "Overlap", Table + 8, 200, false },
        { "Overlap", Table + 8, 2, false },
        { "Leak", Table + 8, 0, false },
        { "RedundantDiffers", RedundantTable + 8, 0, true },
        { "NotClosed", 72, 0x0D20_0A01, true },
    };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_refused_and_repaired_and_the_rest_reads_as_before(string kind, int offset, uint value,
        bool isWhole)
    {
        byte[] contents = new byte[8 * Grain];
        new Random(4).NextBytes(contents);
        byte[] image = await s_vmdk.FilledAsync($"size={contents.Length}", contents);
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(offset), value);
        if (kind.Equals("Leak", StringComparison.Ordinal))
        {
            BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(RedundantTable + 8), value);
        }
        CheckReport found = await s_vmdk.CheckAsync(image);
        Assert.Contains(found.Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (found.Corruptions > 0)
        {
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(async ()
                => await s_vmdk.OpenAsync(new MemoryNode((byte[])image.Clone())));
            Assert.Contains("Repair it with", refused.Message, StringComparison.Ordinal);
        }
        var damaged = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await s_vmdk.OpenAsync(damaged, forRepair: true))
        {
            CheckReport repaired = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0, 0), (repaired.Corruptions, repaired.Leaks, repaired.CheckErrors));
            Assert.Equal(found.Corruptions, repaired.CorruptionsFixed);
        }
        byte[] bytes = damaged.ToArray();
        Assert.Empty((await s_vmdk.CheckAsync(bytes)).Findings);
        byte[] read = await s_vmdk.ReadAsync(bytes);
        int start = isWhole ? contents.Length : 2 * Grain; // the third grain is what was damaged
        DiskFormat.Same(contents[..start], read[..start]);
        DiskFormat.Same(contents[Math.Min(start + Grain, contents.Length)..], read[Math.Min(start + Grain, contents.Length)..]);
        await using BlockNode again = await s_vmdk.OpenAsync(damaged);
        await again.WriteAsync(0, contents.AsMemory(0, 100));
    }

    [OracleTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task What_we_repaired_qemu_finds_clean(int seed)
    {
        byte[] contents = new byte[40 * Grain];
        new Random(4).NextBytes(contents);
        byte[] image = await s_vmdk.FilledAsync($"size={contents.Length}", contents);
        var random = new Random(seed);
        for (int i = 0; i < 12; i++)
        {
            int at = (random.Next(3) == 0 ? RedundantTable : Table) + (random.Next(40) * 4);
            BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at), (uint)random.Next(image.Length / 512 * 2));
        }
        var damaged = new MemoryNode(image);
        await using (BlockNode disk = await s_vmdk.OpenAsync(damaged, forRepair: true))
        {
            _ = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
        }
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["a.vmdk"], damaged.ToArray());
        await Programs.CheckAsync(folder["a.vmdk"], "vmdk");
        await File.WriteAllBytesAsync(folder["a.raw"], await s_vmdk.ReadAsync(damaged.ToArray()));
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.vmdk"], "vmdk");
    }

    [Theory]
    [InlineData("", 1)]
    [InlineData(",zeroed_grain", 2)]
    [InlineData("", 3)]
    public async Task A_crash_leaks_at_most(string options, int seed)
    {
        byte[] image = (await s_vmdk.CreateAsync($"size={Sectors * 512}{options}")).ToArray();
        List<GuestOperation> operations = GuestOperation.Sequence(
            seed, Sectors, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard, GuestAction.Flush);
        await s_vmdk.CrashAsync(
            image, null, new int[Sectors], operations, $"seed {seed}", async disk
                => _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
    }

    [Theory]
    [InlineData("")]
    [InlineData(",zeroed_grain")]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none(string options)
    {
        byte[] contents = new byte[(33 << 20) + 512]; // two tables
        new Random(1).NextBytes(contents.AsSpan(0, 1 << 20));
        new Random(2).NextBytes(contents.AsSpan(32 << 20));
        byte[] image = await s_vmdk.FilledAsync($"size={contents.Length}{options}", contents);
        await s_vmdk.DamageAsync(image,
            [(0, 80), (512, 400), (RedundantDirectory, 512), (Directory + 4096, 512), (RedundantTable, 64),
                (Directory, 16384)], first: 1, rounds: 120);
    }

    [Fact]
    public async Task Damage_to_a_stream_ends_in_an_error_or_none()
    {
        byte[] image = await StreamAsync();
        await s_vmdk.DamageAsync(image,
            [(0, 80), (512, 400), (FirstGrain, 64), (FirstGrain, image.Length - FirstGrain),
                (image.Length - 4096, 4096)], first: 1, rounds: 150);
    }

    [Fact]
    public async Task A_marker_that_promises_a_bomb_is_refused()
    {
        byte[] image = await StreamAsync();
        foreach (uint size in new uint[] { 0, 200_000, 0x7FFF_FFFF, uint.MaxValue })
        {
            byte[] damaged = (byte[])image.Clone();
            BinaryPrimitives.WriteUInt32LittleEndian(damaged.AsSpan(FirstGrain + 8), size);
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => s_vmdk.ReadAsync(damaged));
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.Contains((await s_vmdk.CheckAsync(damaged)).Findings, f => f.Kind.Equals("BadGrain", StringComparison.Ordinal));
        }
        byte[] other = (byte[])image.Clone();
        other[FirstGrain] = 7; // another sector of the disk
        Assert.Contains("marker", (await Assert.ThrowsAsync<DiskImageException>(() => s_vmdk.ReadAsync(other))).Message,
            StringComparison.Ordinal);
    }

    /// <summary>A few bytes that stand for a gigabyte: they end as damage when the grain is full, and no more room is taken.</summary>
    [Fact]
    public async Task A_grain_that_would_unpack_to_a_gigabyte_is_damage()
    {
        byte[] image = await StreamAsync();
        using var packed = new MemoryStream();
        using (var deflate = new ZLibStream(packed, CompressionLevel.SmallestSize, leaveOpen: true))
        {
            byte[] zeroes = new byte[1 << 20];
            for (int i = 0; i < 1024; i++)
            {
                deflate.Write(zeroes);
            }
        }
        byte[] whole = packed.ToArray(), bomb = whole[..Math.Min(whole.Length, 65_000)];
        byte[] file = [.. image];
        uint at = (uint)((file.Length + 511) / 512);
        file = [.. file, .. new byte[(at * 512) - file.Length], .. new byte[12], .. bomb, .. new byte[1024]];
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan((int)at * 512), 0);
        BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(((int)at * 512) + 8), (uint)bomb.Length);
        byte[] first = BitConverter.GetBytes((uint)(FirstGrain / 512));
        int entry = Enumerable.Range(FirstGrain / 512, (image.Length - FirstGrain) / 512).Select(s => s * 512)
            .First(o => image.AsSpan(o, 4).SequenceEqual(first));
        BitConverter.GetBytes(at).CopyTo(file, entry); // the first grain is there
        long before = GC.GetAllocatedBytesForCurrentThread();
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
        {
            await using BlockNode disk = await s_vmdk.OpenAsync(new MemoryNode(file, readOnly: true));
            await disk.ReadAsync(0, new byte[512]);
        });
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 64 << 20);
    }

    [Theory]
    [InlineData(4, 0u, DiskImageErrorKind.Unsupported)]
    [InlineData(4, 4u, DiskImageErrorKind.Unsupported)]
    [InlineData(8, 0x10003u, DiskImageErrorKind.Unsupported)] // compressed by method 0
    [InlineData(16, 0x4000_0000u, DiskImageErrorKind.Corrupt)]
    [InlineData(20, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(20, 3u, DiskImageErrorKind.Corrupt)]
    [InlineData(20, 0x8000_0000u, DiskImageErrorKind.Corrupt)]
    [InlineData(24, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(28, 0x7FFF_FFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(44, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(44, 3u, DiskImageErrorKind.Corrupt)]
    [InlineData(44, 0x8000_0000u, DiskImageErrorKind.Corrupt)]
    [InlineData(60, 0xFFFF_FFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(73, 0x0A0D200Du, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_vmdk.RefusesAsync((await s_vmdk.CreateAsync("size=1M")).ToArray(), offset, value, kind);

    [Theory]
    [InlineData("parentCID=", "`arentCID=")]
    [InlineData("\nCID=", "\nCIE=")]
    public async Task An_entry_that_every_descriptor_has_is_missed(string entry, string damaged)
    {
        using var folder = new TestFolder();
        string path = folder["a.vmdk"];
        await Images.CreateAsync(path, "vmdk", "size=1M");
        byte[] image = await File.ReadAllBytesAsync(path);
        int at = image.AsSpan().IndexOf(Encoding.ASCII.GetBytes(entry));
        Encoding.ASCII.GetBytes(damaged).CopyTo(image, at);
        await File.WriteAllBytesAsync(path, image);
        await using BlockNode disk = await Images.OpenAsync(path, "vmdk");
        CheckReport found = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
        Assert.Equal("DescriptorEntry", Assert.Single(found.Findings).Kind);
        Assert.Equal(1, found.Corruptions);
    }

    [NotOnWineTheory("sparse files, so a measurement takes holes for data")]
    [InlineData("")]
    [InlineData("zeroed_grain")]
    [InlineData("subformat=streamOptimized")]
    public async Task A_measurement_is_the_length_that_the_image_gets(string options)
    {
        byte[] contents = new byte[(70 << 20) + 512];
        for (int at = 0; at + Grain <= contents.Length; at += 5 * Grain)
        {
            new Random(at).NextBytes(contents.AsSpan(at, Grain)); // does not get smaller
        }
        using var folder = new TestFolder();
        await Images.WriteSparseAsync(folder["disk.raw"], contents);
        FormatDriver vmdk = Images.Registry.Format("vmdk");
        object record = ((ICreatable)vmdk).CreateOptions.Bind(OptionSchema.Split(options));
        await using BlockNode source = await Images.OpenAsync(folder["disk.raw"], "raw");
        ImageMeasurement measured = await ((IMeasurable)vmdk).MeasureAsync(record, source, CancellationToken.None);
        await Images.ConvertAsync(folder["disk.raw"], "raw", folder["a.vmdk"], "vmdk", options);
        Assert.Equal(measured.Required, new FileInfo(folder["a.vmdk"]).Length);
        Assert.True(measured.FullyAllocated >= contents.Length);
    }

    [Fact]
    public async Task Compacting_drops_zeroes_closes_gaps_and_keeps_the_rest()
    {
        byte[] contents = new byte[64 * Grain];
        new Random(3).NextBytes(contents);
        MemoryNode file = await s_vmdk.CreateAsync($"size={contents.Length}");
        BlockNode disk = await s_vmdk.OpenAsync(file);
        await disk.WriteAsync(0, contents);
        for (int grain = 0; grain < 64; grain += 3)
        {
            contents.AsSpan(grain * Grain, Grain).Clear();
            await disk.WriteZeroesAsync(grain * Grain, Grain, ZeroWriteMode.KeepAllocated);
        }
        Assert.Equal(22 * Grain, await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
        Assert.Empty((await s_vmdk.CheckAsync(file.ToArray())).Findings);
        byte[] read = new byte[contents.Length];
        await disk.ReadAsync(0, read);
        DiskFormat.Same(contents, read);
        await disk.WriteAsync(0, contents.AsMemory(Grain, Grain));
        await disk.DisposeAsync();
        Assert.Empty((await s_vmdk.CheckAsync(file.ToArray())).Findings);
    }

    [OracleTheory]
    [InlineData("", false)]
    [InlineData("", true)]
    [InlineData("zeroed_grain", true)]
    [InlineData("subformat=monolithicFlat", false)]
    [InlineData("subformat=twoGbMaxExtentSparse", false)]
    public async Task Grown_shrunk_and_grown_again_it_shows_nothing_old(string options, bool overParent)
    {
        using var folder = new TestFolder();
        byte[] model = new byte[6 << 20];
        string given = options.Length == 0 ? "" : "," + options;
        if (overParent)
        {
            await Images.MakeRawAsync(folder["base.raw"], model.Length, 7);
            model = await File.ReadAllBytesAsync(folder["base.raw"]);
            await Images.ConvertAsync(folder["base.raw"], "raw", folder["base.vmdk"], "vmdk");
            given += ",backing_file=base.vmdk";
        }
        await Images.CreateAsync(folder["a.vmdk"], "vmdk", $"size=6M{given}");
        int length = model.Length;
        var random = new Random(8);
        foreach (int size in new[] { (3 << 20) + 512, (5 << 20) + 1024, 1 << 20, 90 << 20, (2 << 20) + 512, 7 << 20 })
        {
            await using (BlockNode disk = await Images.OpenAsync(folder["a.vmdk"], writable: true))
            {
                int at = random.Next(length / 512) * 512, count = Math.Min(300_000, length - at);
                random.NextBytes(model.AsSpan(at, count));
                await disk.WriteAsync(at, model.AsMemory(at, count));
                await disk.ResizeAsync(size);
                Assert.Equal(size, disk.Length);
                byte[] kept = model[..Math.Min(size, length)];
                model = [.. kept, .. new byte[size - kept.Length]];
                length = size;
                byte[] read = new byte[size];
                await disk.ReadAsync(0, read);
                DiskFormat.Same(model, read);
            }
            await File.WriteAllBytesAsync(folder["model.raw"], model);
            await Programs.CompareAsync(folder["model.raw"], "raw", folder["a.vmdk"], "vmdk");
            await using BlockNode again = await Images.OpenAsync(folder["a.vmdk"]);
            Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
    }

    [Fact]
    public async Task A_stream_that_was_cut_says_so_and_one_that_is_complete_is_not_written_to()
    {
        byte[] image = await StreamAsync();
        DiskImageException cut = await Assert.ThrowsAsync<DiskImageException>(async ()
            => await s_vmdk.OpenAsync(new MemoryNode(image[..^2048], readOnly: true)));
        Assert.Contains("footer", cut.Message, StringComparison.Ordinal);
        byte[] padded = [.. image, .. new byte[5000]]; // programs that transfer files do that
        DiskFormat.Same(await s_vmdk.ReadAsync(image), await s_vmdk.ReadAsync(padded));
        DiskImageException written = await Assert.ThrowsAsync<DiskImageException>(async ()
            => await s_vmdk.OpenAsync(new MemoryNode(image)));
        Assert.Equal(DiskImageErrorKind.ReadOnly, written.Kind);
    }

    [Fact]
    public async Task A_stream_takes_no_step_back()
    {
        MemoryNode file = await s_vmdk.CreateAsync("size=1M,subformat=streamOptimized");
        byte[] data = new byte[1000];
        Array.Fill(data, (byte)5);
        await using (BlockNode disk = await s_vmdk.OpenAsync(file))
        {
            await disk.WriteAsync(100, data); // parts of one grain in any order
            await disk.WriteAsync(50, data);
            await disk.WriteZeroesAsync(60, 10);
            await disk.WriteAsync(5 * Grain, data);
            foreach (Func<ValueTask> back in new Func<ValueTask>[]
            {
                () => disk.WriteAsync(0, data), () => disk.WriteZeroesAsync(0, 100), () => disk.ReadAsync(0, data), ()
                    => disk.WriteAsync((5 * Grain) - 100, data),
            })
            {
                Assert.Equal(DiskImageErrorKind.Unsupported, (await Assert.ThrowsAsync<DiskImageException>(async () => await back())).Kind);
            }
        }
        byte[] read = await s_vmdk.ReadAsync(file.ToArray()), expected = new byte[1 << 20];
        Array.Fill(expected, (byte)5, 50, 1050);
        expected.AsSpan(60, 10).Clear();
        Array.Fill(expected, (byte)5, 5 * Grain, 1000);
        DiskFormat.Same(expected, read);
    }

    [Theory]
    [InlineData("compat6,hwversion=4", "compat6")]
    [InlineData("subformat=monolithicFlat,backing_file=b", "backing file")]
    [InlineData("subformat=monolithicFlat,zeroed_grain", "zeroed_grain")]
    [InlineData("subformat=streamOptimized,zeroed_grain", "zeroed_grain")]
    [InlineData("backing_file=b,backing_fmt=qcow2", "always a vmdk")]
    [InlineData("backing_file=b", "must be a VMDK")]
    public async Task Options_that_exclude_each_other_are_refused(string options, string message)
    {
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => s_vmdk.CreateAsync($"size=1M,{options}"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    internal static async Task<byte[]> StreamAsync()
    {
        byte[] contents = new byte[(33 << 20) + 512];
        for (int at = 0; at < 1 << 20; at++)
        {
            contents[at] = (byte)Encoding.ASCII.GetBytes("quick brown fox ")[at % 16];
        }
        new Random(2).NextBytes(contents.AsSpan(contents.Length - 100_000));
        MemoryNode file = await s_vmdk.CreateAsync($"size={contents.Length},subformat=streamOptimized");
        await using (BlockNode disk = await s_vmdk.OpenAsync(file))
        {
            await Images.FillAsync(disk, contents);
        }
        byte[] made = file.ToArray();
        DiskFormat.Same(contents, await s_vmdk.ReadAsync(made));
        return made;
    }
}
