using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Bochs;
using DiskImage.Jobs;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Bochs;

/// <summary>A growing disk of its own contents.</summary>
public sealed class BochsNodeTests : NodeConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.bochs"], "bochs", $"size={contents.Length}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.bochs"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.bochs"], writable: writable);
    }
}

/// <summary>Half of the disk shows through from below, and the base image is shorter than the disk.</summary>
public sealed class BochsUndoableNodeTests : NodeConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        byte[] below = (byte[])contents.Clone();
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.WriteSparseAsync(Folder["disk.img"], below[..^4608]);
        await BochsDisks.MakeRedologAsync(Folder["disk.img.redolog"], Size, BochsSubtype.Undoable);
        await using (BlockNode node = await OpenAsync(writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(Size - 4608, contents.AsMemory(Size - 4608));
        }
        return await OpenAsync(writable);
    }

    private Task<BlockNode> OpenAsync(bool writable)
        => Images.OpenAsync(Folder["disk.img.redolog"], writable: writable, options: "base=disk.img,base-fmt=raw");
}

internal static class BochsDisks
{
    /// <summary>A redolog without changes, as Bochs makes one when it starts.</summary>
    public static async Task MakeRedologAsync(string path, long size, BochsSubtype subtype, int version = 2)
    {
        BochsHeader header = BochsHeader.Plan(size, path) with { Subtype = subtype, Version = version };
        byte[] file = [.. header.ToBytes(), .. Enumerable.Repeat((byte)0xFF, header.Catalog * 4)];
        await File.WriteAllBytesAsync(path, file);
    }
}

public sealed class BochsTests : IDisposable
{
    private const int Track = 16 * 63 * 512; // bximage knows whole cylinders only
    private const int Size = 12 * Track, Extent = 8192, Sectors = 2048;

    private static readonly DiskFormat s_bochs = new("bochs");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleFact]
    public async Task What_we_write_qemu_reads()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], Size, seed: 5, unit: 24576);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.bochs"], "bochs");
        await Programs.CompareAsync(_folder["disk.raw"], "raw", _folder["ours.bochs"], "bochs");
        byte[] twin = await File.ReadAllBytesAsync(_folder["disk.raw"]);
        for (int session = 0; session < 3; session++)
        {
            await using (BlockNode disk = await Images.OpenAsync(_folder["ours.bochs"], writable: true))
            {
                await DiskFormat.RequestsAsync(disk, twin, new Random(session), 60);
            }
            await File.WriteAllBytesAsync(_folder["twin.raw"], twin);
            await Programs.CompareAsync(_folder["twin.raw"], "raw", _folder["ours.bochs"], "bochs");
            await using BlockNode again = await Images.OpenAsync(_folder["ours.bochs"]);
            Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
    }

    [OracleFact("bximage")]
    public async Task What_bximage_makes_is_read_and_what_we_make_it_reads()
    {
        await Images.MakeRawAsync(_folder["disk.img"], Size, seed: 6);
        _ = await Programs.RunAsync("bximage", "-func=convert", "-imgmode=growing", "-q", _folder["disk.img"], _folder["theirs.bochs"]);
        await Images.ConvertAsync(_folder["theirs.bochs"], null, _folder["back.raw"], "raw");
        byte[] contents = await File.ReadAllBytesAsync(_folder["disk.img"]);
        DiskFormat.Same(contents, await File.ReadAllBytesAsync(_folder["back.raw"]));
        await Images.ConvertAsync(_folder["disk.img"], "raw", _folder["ours.bochs"], "bochs");
        _ = await Programs.RunAsync("bximage", "-func=convert", "-imgmode=flat", "-q", _folder["ours.bochs"], _folder["flat.img"]);
        DiskFormat.Same(contents, await File.ReadAllBytesAsync(_folder["flat.img"]));
    }

    [OracleFact("bximage")]
    public async Task A_new_disk_is_the_one_that_bximage_makes()
    {
        foreach (int megabytes in new[] { 10, 100, 1000, 5000, 30000 })
        {
            string theirs = _folder[$"{megabytes}.img"], ours = _folder[$"{megabytes}.bochs"];
            _ = await Programs.RunAsync("bximage", "-func=create", $"-hd={megabytes}M", "-imgmode=growing", "-q", theirs);
            byte[] bytes = await File.ReadAllBytesAsync(theirs);
            await Images.CreateAsync(ours, "bochs", $"size={BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(88))}");
            DiskFormat.Same(bytes, await File.ReadAllBytesAsync(ours));
        }
    }

    [OracleFact("bximage")]
    public async Task Changes_in_an_undoable_redolog_are_those_that_bximage_commits()
    {
        await Images.MakeRawAsync(_folder["disk.img"], Size, seed: 7);
        byte[] twin = await File.ReadAllBytesAsync(_folder["disk.img"]);
        await BochsDisks.MakeRedologAsync(_folder["disk.img.redolog"], Size, BochsSubtype.Undoable);
        await using (
            BlockNode disk = await Images.OpenAsync(_folder["disk.img.redolog"], writable: true, options: "base=disk.img,base-fmt=raw"))
        {
            await DiskFormat.RequestsAsync(disk, twin, new Random(3), 60);
        }
        _ = await Programs.RunAsync("bximage", "-func=commit", "-q", _folder["disk.img"], _folder["disk.img.redolog"]);
        DiskFormat.Same(twin, await File.ReadAllBytesAsync(_folder["disk.img"]));
    }

    [Fact]
    public async Task A_redolog_of_changes_opens_over_a_base_that_is_named_only()
    {
        await Images.MakeRawAsync(_folder["disk.img"], Size, seed: 8);
        foreach (BochsSubtype subtype in new[] { BochsSubtype.Undoable, BochsSubtype.Volatile })
        {
            string path = _folder[$"{subtype}.img.redolog"];
            await BochsDisks.MakeRedologAsync(path, Size, subtype, version: 1);
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(path));
            Assert.Contains($"base={subtype}.img", error.Message, StringComparison.Ordinal);
            await using BlockNode disk = await Images.OpenAsync(path, options: "base=disk.img,base-fmt=raw");
            byte[] read = new byte[Size];
            await disk.ReadAsync(0, read);
            DiskFormat.Same(await File.ReadAllBytesAsync(_folder["disk.img"]), read);
            Assert.Equal((subtype.ToString(), 1), disk.As<IDescribed>()!.Describe().FormatSpecific is BochsInfo info
                ? (info.Subtype, info.Version) : default);
        }
        await Images.CreateAsync(_folder["growing.bochs"], "bochs", "size=1M");
        Assert.Equal(
            DiskImageErrorKind.InvalidOption,
            (await Assert.ThrowsAsync<DiskImageException>(
                () => Images.OpenAsync(_folder["growing.bochs"], options: "base=disk.img"))).Kind);
    }

    [Fact]
    public async Task The_same_bytes_come_of_any_number_of_workers_and_a_measurement_is_their_length()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 40 << 20, seed: 10);
        byte[]? first = null;
        foreach (int workers in new[] { 1, 2, 7 })
        {
            await Images.ConvertAsync(
                _folder["disk.raw"], "raw", _folder[$"{workers}.bochs"], "bochs", "", new ConvertOptions { Workers = workers });
            byte[] bytes = await File.ReadAllBytesAsync(_folder[$"{workers}.bochs"]);
            first ??= bytes;
            Assert.True(first.AsSpan().SequenceEqual(bytes), $"{workers} workers");
        }
        var measurable = (IMeasurable)s_bochs.Driver;
        object options = ((ICreatable)s_bochs.Driver).CreateOptions.Defaults();
        await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw");
        ImageMeasurement measured = await measurable.MeasureAsync(options, source, CancellationToken.None);
        Assert.InRange(first!.Length, 1, measured.Required);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["full.bochs"], "bochs", "", new ConvertOptions { SparseSize = 0 });
        Assert.Equal(measured.FullyAllocated, new FileInfo(_folder["full.bochs"]).Length);
    }

    public static TheoryData<string, uint> Damage() => new() { { "OutOfFile", 4000 }, { "Overlap", 1 }, { "Leak", uint.MaxValue } };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_refused_and_repaired_and_the_rest_reads_as_before(string kind, uint entry)
    {
        byte[] contents = new byte[64 * Extent];
        new Random(4).NextBytes(contents);
        byte[] image = await s_bochs.FilledAsync($"size={Sectors * 2048}", contents);
        int extent = BinaryPrimitives.ReadInt32LittleEndian(image.AsSpan(80));
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(512 + (2 * 4)), entry);
        Assert.Contains((await s_bochs.CheckAsync(image)).Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (!kind.Equals("Leak", StringComparison.Ordinal))
        {
            await Assert.ThrowsAsync<DiskImageException>(async () => await s_bochs.OpenAsync(new MemoryNode((byte[])image.Clone())));
        }
        var damaged = new MemoryNode(image);
        await using (BlockNode disk = await s_bochs.OpenAsync(damaged, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Corruptions, report.Leaks));
        }
        Assert.Empty((await s_bochs.CheckAsync(damaged.ToArray())).Findings);
        byte[] read = await s_bochs.ReadAsync(damaged.ToArray());
        byte[] expected = [.. contents[..(2 * extent)], .. entry == 1
            ? contents[extent..(2 * extent)]
            : new byte[extent], .. contents[(3 * extent)..]];
        Assert.True(expected.AsSpan().SequenceEqual(read.AsSpan(0, expected.Length)));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_crash_leaks_at_most(int seed)
    {
        byte[] image = (await s_bochs.CreateAsync($"size={Sectors * 512}")).ToArray();
        List<GuestOperation> operations = GuestOperation.Sequence(
            seed, Sectors, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard, GuestAction.Flush);
        await s_bochs.CrashAsync(
            image,
            null,
            new int[Sectors],
            operations,
            $"seed {seed}",
            async disk => _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
    }

    [Fact]
    public async Task Compacting_drops_extents_that_hold_nothing()
    {
        byte[] contents = new byte[1 << 20];
        new Random(4).NextBytes(contents);
        var file = new MemoryNode(await s_bochs.FilledAsync($"size={contents.Length}", contents));
        int extent = BinaryPrimitives.ReadInt32LittleEndian(file.ToArray().AsSpan(80));
        await using (BlockNode disk = await s_bochs.OpenAsync(file))
        {
            contents.AsSpan(0, 10 * extent).Clear();
            await disk.WriteZeroesAsync(0, 10 * extent);
            contents.AsSpan(20 * extent, 7 * extent).Clear();
            await disk.WriteAsync(20 * extent, new byte[7 * extent]);
            Assert.Equal(17 * (extent + 512), await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
        }
        Assert.Empty((await s_bochs.CheckAsync(file.ToArray())).Findings);
        DiskFormat.Same(contents, await s_bochs.ReadAsync(file.ToArray()));
    }

    [Theory]
    [InlineData(0, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(32, 0x31u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(48, 0x31u, DiskImageErrorKind.Unsupported)]
    [InlineData(64, 3u, DiskImageErrorKind.Unsupported)]
    [InlineData(68, 100u, DiskImageErrorKind.Corrupt)]
    [InlineData(68, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(72, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(72, 0x200000u, DiskImageErrorKind.Corrupt)]
    [InlineData(72, 0x100000u, DiskImageErrorKind.Corrupt)]
    [InlineData(76, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(76, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(80, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(80, 256u, DiskImageErrorKind.Corrupt)]
    [InlineData(80, 3000u, DiskImageErrorKind.Corrupt)]
    [InlineData(80, 0x1000000u, DiskImageErrorKind.Corrupt)]
    [InlineData(92, 1u, DiskImageErrorKind.Corrupt)]
    [InlineData(92, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_bochs.RefusesAsync((await s_bochs.CreateAsync("size=1M")).ToArray(), offset, value, kind);

    [Fact]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none()
    {
        byte[] contents = new byte[300 * 512];
        new Random(1).NextBytes(contents);
        byte[] image = await s_bochs.FilledAsync("size=1M", contents);
        await s_bochs.DamageAsync(image, [(48, 48), (64, 32), (512, 200), (512, 2048), (0, image.Length)], first: 1, rounds: 200);
    }
}
