using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow;

/// <summary>A disk that can grow and not shrink: the conformance of its length is a test of its own.</summary>
public abstract class QcowConformance : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanShrink => false;

    private protected override bool CanPreallocate => false;
}

public sealed class QcowNodeTests : QcowConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.qcow"], "qcow", $"size={contents.Length}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.qcow"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.qcow"], writable: writable);
    }
}

/// <summary>Compressed by us, so that it needs no other program.</summary>
public sealed class QcowCompressedNodeTests : QcowConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.WriteSparseAsync(Folder["disk.raw"], contents);
        await Images.ConvertAsync(Folder["disk.raw"], "raw", Folder["disk.qcow"], "qcow", "", new() { Compress = true });
        return await Images.OpenAsync(Folder["disk.qcow"], writable: writable);
    }
}

/// <summary>Half of the disk shows through from below, and the backing image is shorter than the disk.</summary>
public sealed class QcowOverBackingNodeTests : QcowConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int BackingSize = Size - (400 << 10);
        byte[] below = contents[..BackingSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.WriteSparseAsync(Folder["base.raw"], below);
        await Images.CreateAsync(Folder["top.qcow"], "qcow", $"size={Size},backing_file=base.raw");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.qcow"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(BackingSize, contents.AsMemory(BackingSize));
        }
        return await Images.OpenAsync(Folder["top.qcow"], writable: writable);
    }
}

public sealed class QcowTests : IDisposable
{
    private const int Size = (5 << 20) + 1536, Sectors = 2048;

    private static readonly DiskFormat s_qcow = new("qcow");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(bool compress)
    {
        await Images.MakeRawAsync(_folder["disk.raw"], compress ? 5 << 20 : Size, seed: 5); // QEMU compresses whole clusters only
        string[] packed = compress ? ["-c"] : [];
        (int code, _, string errors) = await Programs.TryAsync(
            "qemu-img", ["convert", "-f", "raw", "-O", "qcow", .. packed, _folder["disk.raw"], _folder["theirs.qcow"]]);
        Assert.Equal("", errors);
        Assert.True(code == 0 || compress); // QEMU 7.2 always says 1 after it has compressed a qcow image, which is whole
        await Programs.CompareAsync(_folder["disk.raw"], "raw", _folder["theirs.qcow"], "qcow");
        await Images.ConvertAsync(_folder["theirs.qcow"], null, _folder["back.raw"], "raw");
        DiskFormat.Same(await File.ReadAllBytesAsync(_folder["disk.raw"]), await File.ReadAllBytesAsync(_folder["back.raw"]));
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.qcow"], "qcow", "", new() { Compress = compress });
        await Programs.CompareAsync(_folder["disk.raw"], "raw", _folder["ours.qcow"], "qcow");
        foreach (string name in new[] { "theirs", "ours" })
        {
            await using BlockNode disk = await Images.OpenAsync(_folder[$"{name}.qcow"]);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
            Assert.Empty(report.Findings);
            Assert.Equal(compress, report.CompressedClusters > 100);
        }
    }

    [OracleTheory]
    [InlineData("none", 1)]
    [InlineData("raw", 2)]
    [InlineData("qcow2", 3)]
    public async Task A_disk_that_both_write_to_reads_as_its_twin(string backing, int seed)
    {
        var random = new Random(seed);
        byte[] twin = new byte[Size];
        await Images.MakeRawAsync(_folder["base.raw"], (3 << 20) + 512, seed, unit: 24576);
        await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.qcow2"], "qcow2", "cluster_size=8k");
        if (backing.Equals("none", StringComparison.Ordinal))
        {
            twin = new byte[5 << 20]; // QEMU compresses whole clusters only
            (await File.ReadAllBytesAsync(_folder["base.raw"])).CopyTo(twin, 0);
            await File.WriteAllBytesAsync(_folder["start.raw"], twin);
            // says 1: see above
            _ = await Programs.TryAsync("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow", _folder["start.raw"], _folder["a.qcow"]);
            await Programs.CompareAsync(_folder["start.raw"], "raw", _folder["a.qcow"], "qcow");
        }
        else
        {
            (await File.ReadAllBytesAsync(_folder["base.raw"])).CopyTo(twin, 0);
            await Images.CreateAsync(_folder["a.qcow"], "qcow", $"size={Size},backing_file=base.{backing}");
        }
        await new BothWays(_folder, "qcow").TwinAsync(_folder["a.qcow"], twin, random);
        await using BlockNode again = await Images.OpenAsync(_folder["a.qcow"]);
        // compressed ones that were replaced
        Assert.All(
            (await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings,
            f => Assert.Equal(CheckSeverity.Leak, f.Severity));
    }

    [OracleFact]
    public async Task A_new_image_is_the_one_that_qemu_makes()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 1 << 20, 1);
        foreach ((
            string options,
            string[] given) in new[] { ("size=1M", new[] { "1M" }),
            ("size=3G", ["3G"]),
            ("size=64T", ["64T"]),
            ("size=1M,backing_file=base.raw", ["-b", "base.raw", "-F", "raw"]) })
        {
            File.Delete(_folder["theirs.qcow"]);
            File.Delete(_folder["ours.qcow"]);
            if (options.Contains("64T", StringComparison.Ordinal))
            {
                Assert.Equal(
                    DiskImageErrorKind.InvalidOption,
                    (await Assert.ThrowsAsync<DiskImageException>(() => Images.CreateAsync(_folder["ours.qcow"], "qcow", options))).Kind);
                continue;
            }
            await Programs.QemuImgAsync(["create", "-q", "-f", "qcow", .. given.Length == 1 ? []
                : given, _folder["theirs.qcow"], .. given.Length == 1 ? given : []]);
            await Images.CreateAsync(_folder["ours.qcow"], "qcow", options);
            DiskFormat.Same(await File.ReadAllBytesAsync(_folder["theirs.qcow"]), await File.ReadAllBytesAsync(_folder["ours.qcow"]));
        }
    }

    [OracleFact]
    public async Task It_grows_past_its_l1_table_and_shows_nothing_old()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 6 << 20, 7);
        byte[] model = (await File.ReadAllBytesAsync(_folder["base.raw"]))[..((1 << 20) + 512)];
        await Images.CreateAsync(_folder["a.qcow"], "qcow", $"size={model.Length},backing_file=base.raw");
        foreach (int size in new[] { (1 << 20) + 1024, 3 << 20, (5 << 20) + 512, 9 << 20, 200 << 20 })
        {
            await using (BlockNode disk = await Images.OpenAsync(_folder["a.qcow"], writable: true))
            {
                await disk.WriteAsync(1000, model.AsMemory(0, 3000));
                model.AsSpan(0, 3000).ToArray().CopyTo(model, 1000);
                await disk.ResizeAsync(size);
                model = [.. model, .. new byte[size - model.Length]];
            }
            await File.WriteAllBytesAsync(_folder["model.raw"], model);
            await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["a.qcow"], "qcow");
        }
        await using BlockNode last = await Images.OpenAsync(_folder["a.qcow"], writable: true);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await last.ResizeAsync(1 << 20));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
    }

    [OracleFact]
    public async Task A_rebase_and_a_merge_leave_what_qemu_reads_alike()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 4 << 20, 9);
        await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.qcow"], "qcow", "", new() { Compress = true });
        await Images.CreateAsync(_folder["top.qcow"], "qcow", "size=4M,backing_file=base.qcow");
        byte[] model = await File.ReadAllBytesAsync(_folder["base.raw"]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["top.qcow"], writable: true))
        {
            await DiskFormat.RequestsAsync(disk, model, new Random(1), 20);
        }
        await File.WriteAllBytesAsync(_folder["model.raw"], model);
        await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["a-base-with-a-much-longer-name-than-before.qcow2"], "qcow2");
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qcow"], writable: true))
        {
            await top.As<IRebasable>()!.SetBackingAsync(
                "a-base-with-a-much-longer-name-than-before.qcow2", "qcow2", null, CancellationToken.None);
        }
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["top.qcow"], "qcow");
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qcow"], writable: true))
        {
            await top.As<IRebasable>()!.SetBackingAsync("base.qcow", "qcow", null, CancellationToken.None);
        }
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qcow"], writable: true))
        {
            await using (BlockNode target = await Images.OpenAsync(_folder["base.raw"], "raw", writable: true))
            {
                await new CommitJob(top, 1, target).RunAsync(null, CancellationToken.None);
            }
            await top.As<IEmptiable>()!.MakeEmptyAsync(CancellationToken.None);
        }
        DiskFormat.Same(model, await File.ReadAllBytesAsync(_folder["base.raw"]));
        await Images.ConvertAsync(_folder["base.qcow"], null, _folder["below.raw"], "raw");
        await Programs.CompareAsync(_folder["below.raw"], "raw", _folder["top.qcow"], "qcow");
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qcow"], writable: true))
        {
            await new RebaseJob(top, null).RunAsync(null, CancellationToken.None);
            await top.As<IRebasable>()!.SetBackingAsync(null, null, null, CancellationToken.None);
        }
        File.Delete(_folder["base.qcow"]);
        await Programs.CompareAsync(_folder["below.raw"], "raw", _folder["top.qcow"], "qcow");
    }

    [Fact]
    public async Task The_same_bytes_come_of_any_number_of_workers_and_a_measurement_is_their_length()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 20 << 20, seed: 10);
        foreach (bool compress in new[] { false, true })
        {
            byte[]? first = null;
            foreach (int workers in new[] { 1, 2, 7 })
            {
                await Images.ConvertAsync(
                    _folder["disk.raw"],
                    "raw",
                    _folder[$"{compress}{workers}.qcow"],
                    "qcow",
                    "",
                    new ConvertOptions { Workers = workers, Compress = compress });
                byte[] bytes = await File.ReadAllBytesAsync(_folder[$"{compress}{workers}.qcow"]);
                first ??= bytes;
                DiskFormat.Same(first, bytes);
            }
        }
        var creatable = (ICreatable)s_qcow.Driver;
        await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw");
        ImageMeasurement measured = await (
            (IMeasurable)s_qcow.Driver).MeasureAsync(creatable.CreateOptions.Bind(OptionSchema.Split("")), source, CancellationToken.None);
        Assert.InRange(new FileInfo(_folder["False1.qcow"]).Length, 1, measured.Required);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["full.qcow"], "qcow", "", new ConvertOptions { SparseSize = 0 });
        Assert.Equal(measured.FullyAllocated, new FileInfo(_folder["full.qcow"]).Length);
    }

    /// <summary>Where (0 L1, 1 L2), what the first entry becomes (null: the same as the one after it), what is found.</summary>
    public static TheoryData<int, ulong?, string> Damage() => new()
    {
        { 1, 1 << 30, "OutOfFile" }, { 1, 100, "OutOfFile" }, { 1, 0, "Leak" }, { 1, null, "Overlap" }, { 1, 4096, "Overlap" },
        { 1, (1UL << 63) | (100UL << 51) | 9000, "BadCluster" },
        { 1, (1UL << 63) | (100UL << 51) | (1 << 30), "OutOfFile" },
        { 1, 1UL << 63, "OutOfFile" },
        { 0, 1 << 30, "OutOfFile" },
        { 0, ulong.MaxValue, "OutOfFile" },
        { 0, null, "Overlap" },
        { 0, 0, "Leak" },
    };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_and_not_written_to(int where, ulong? value, string kind)
    {
        byte[] contents = new byte[5 << 20];
        new Random(4).NextBytes(contents);
        byte[] image = await s_qcow.FilledAsync($"size={contents.Length}", contents);
        Assert.Empty((await s_qcow.CheckAsync(image)).Findings);
        int l2 = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48)), at = where == 0 ? 48 : l2;
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(at), value ?? BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(at + 8)));
        Assert.Contains((await s_qcow.CheckAsync(image)).Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (kind is "OutOfFile" or "Overlap")
        {
            byte[] before = (byte[])image.Clone();
            await Assert.ThrowsAsync<DiskImageException>(async () => await s_qcow.OpenAsync(new MemoryNode(image)));
            Assert.Equal(before, image);
        }
        await using BlockNode disk = await s_qcow.OpenAsync(new MemoryNode(image, readOnly: true));
        byte[] last = new byte[4096];
        await disk.ReadAsync(contents.Length - 4096, last);
        Assert.Equal(contents[^4096..], last);
    }

    [Theory]
    [InlineData(false, 1)]
    [InlineData(true, 2)]
    public async Task A_crash_leaks_at_most(bool overBacking, int seed)
    {
        int[] tags = [.. Enumerable.Range(0, Sectors).Select(s => overBacking && s < Sectors - 300 ? 1_000_000 + s : 0)];
        byte[]? backing = overBacking ? [.. tags.Take(Sectors - 300).SelectMany((tag, sector) => SectorModel.Data(sector, 1, tag))] : null;
        byte[] image = (await s_qcow.CreateAsync($"size={Sectors * 512}{(overBacking ? ",backing_file=base" : "")}")).ToArray();
        List<GuestOperation> operations = GuestOperation.Sequence(
            seed, Sectors, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard, GuestAction.Flush);
        await s_qcow.CrashAsync(image, backing, tags, operations, $"seed {seed}", disk => disk.ResizeAsync(200 << 20).AsTask());
    }

    [Theory]
    [InlineData(0, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(4, 2u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(8, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(24, 0x7FFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(24, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0x08090000u, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0x11090000u, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0x0C050000u, DiskImageErrorKind.Corrupt)]
    [InlineData(32, 0x0C0E0000u, DiskImageErrorKind.Corrupt)]
    [InlineData(36, 2u, DiskImageErrorKind.Unsupported)]
    [InlineData(44, 8u, DiskImageErrorKind.Corrupt)]
    [InlineData(44, 49u, DiskImageErrorKind.Corrupt)]
    [InlineData(40, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
    {
        byte[] image = [.. (await s_qcow.CreateAsync("size=1M,backing_file=base")).ToArray(), .. new byte[4096]];
        await s_qcow.RefusesAsync(image, offset, value, kind, bigEndian: true);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none(bool compress)
    {
        byte[] contents = new byte[(3 << 20) + 512];
        new Random(1).NextBytes(contents.AsSpan(0, contents.Length / 2));
        MemoryNode file = await s_qcow.CreateAsync($"size={contents.Length}");
        await using (BlockNode disk = await s_qcow.OpenAsync(file))
        {
            await new ConvertJob(
                new MemoryNode(contents, readOnly: true),
                disk,
                new ConvertOptions { Compress = compress, SparseSize = 0 }).RunAsync(null, CancellationToken.None);
        }
        byte[] image = file.ToArray();
        int table = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48));
        await s_qcow.DamageAsync(image, [(0, 48), (48, 16), (table, 256), (table, 4096), (0, image.Length)], first: 1, rounds: 200);
    }
}
