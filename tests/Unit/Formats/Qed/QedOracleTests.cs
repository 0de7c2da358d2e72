using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qed;

/// <summary>QEMU and this library over the same images, in both directions.</summary>
public sealed class QedOracleTests : IDisposable
{
    private const int Size = (5 << 20) + 1536;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Pairs of the options' values.</summary>
    public static TheoryData<string> Options() =>
    [
        "", "cluster_size=4k,table_size=2", "cluster_size=4k,table_size=16", "cluster_size=8k,table_size=4",
        "cluster_size=64k,table_size=16", "cluster_size=1M,table_size=2",
        "cluster_size=2M,table_size=2",
    ];

    [OracleTheory]
    [MemberData(nameof(Options))]
    public Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(string options)
        => new BothWays(_folder, "qed").ConvertAsync(Size, options);

    [OracleTheory]
    [InlineData("cluster_size=4k,table_size=2", "raw", 1)]
    [InlineData("cluster_size=8k,table_size=4", "qcow2", 2)]
    [InlineData("cluster_size=64k", "none", 3)]
    [InlineData("cluster_size=4k,table_size=16", "none", 4)]
    [InlineData("cluster_size=256k,table_size=8", "raw", 5)]
    public async Task A_disk_that_both_write_to_reads_as_its_twin(string options, string backing, int seed)
    {
        var random = new Random(seed);
        byte[] twin = new byte[Size];
        if (!backing.Equals("none", StringComparison.Ordinal))
        {
            await Images.MakeRawAsync(_folder["base.raw"], (3 << 20) + 512, seed, unit: 24576);
            await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.qcow2"], "qcow2", "cluster_size=8k");
            (await File.ReadAllBytesAsync(_folder["base.raw"])).CopyTo(twin, 0);
            options += $",backing_file=base.{backing},backing_fmt={backing}";
        }
        await Images.CreateAsync(_folder["a.qed"], "qed", $"size={Size},{options}");
        // QEMU itself loses zeroes over a backing image: see docs/formats/qed.md
        int zeroes = backing.Equals("none", StringComparison.Ordinal) ? 65536 : 0;
        await new BothWays(_folder, "qed").TwinAsync(_folder["a.qed"], twin, random, canCheck: true, zeroes);
    }

    [OracleFact]
    public async Task A_cluster_that_qemu_marked_as_zero_stays_zero_where_it_is_not_written()
    {
        byte[] model = new byte[1 << 20];
        Array.Fill(model, (byte)0xAA);
        await File.WriteAllBytesAsync(_folder["base.raw"], model);
        await Programs.QemuImgAsync("create", "-f", "qed", "-b", "base.raw", "-F", "raw", _folder["a.qed"]);
        await Programs.RunAsync("qemu-io", "-f", "qed", "-c", "write -z 65536 131072", _folder["a.qed"]);
        model.AsSpan(65536, 131072).Clear();
        model.AsSpan(70000, 512).Fill(3);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.qed"], writable: true))
        {
            await disk.WriteAsync(70000, model.AsMemory(70000, 512));
        }
        await File.WriteAllBytesAsync(_folder["model.raw"], model);
        await Programs.CheckAsync(_folder["a.qed"], "qed");
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["a.qed"], "qed");
    }

    [OracleFact]
    public async Task Info_says_what_qemu_says()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 1 << 20, 1);
        await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.qcow2"], "qcow2");
        foreach (string format in new[] { "raw", "qcow2" })
        {
            await Programs.QemuImgAsync("create", "-f", "qed", "-b", $"base.{format}", "-F", format, _folder[$"theirs-{format}.qed"]);
            await Images.CreateAsync(_folder[$"ours-{format}.qed"], "qed", $"size=1M,backing_file=base.{format},backing_fmt={format}");
            foreach (string name in new[] { "theirs", "ours" })
            {
                await using BlockNode disk = await Images.OpenAsync(_folder[$"{name}-{format}.qed"]);
                ImageDescription said = disk.As<IDescribed>()!.Describe();
                Assert.Equal($"base.{format}", said.BackingFile);
                Assert.Equal(format.Equals("raw", StringComparison.Ordinal) ? "raw" : null, said.BackingFormat);
                Assert.Equal(65536, said.ClusterSize);
                string info = await Programs.QemuImgAsync("info", "--output=json", _folder[$"{name}-{format}.qed"]);
                Assert.Contains($"\"backing-filename\": \"base.{format}\"", info, StringComparison.Ordinal);
            }
            Assert.Equal(
                await File.ReadAllBytesAsync(_folder[$"theirs-{format}.qed"]), await File.ReadAllBytesAsync(_folder[$"ours-{format}.qed"]));
        }
    }

    [OracleFact]
    public async Task Grown_shrunk_and_grown_again_it_shows_nothing_old()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 6 << 20, 7);
        byte[] model = await File.ReadAllBytesAsync(_folder["base.raw"]);
        await Images.CreateAsync(_folder["a.qed"], "qed", "size=6M,backing_file=base.raw,backing_fmt=raw,cluster_size=16k,table_size=2");
        int length = model.Length;
        var random = new Random(8);
        foreach (int size in new[] { (3 << 20) + 512, (5 << 20) + 1024, 1 << 20, 9 << 20, (2 << 20) + 512, 7 << 20 })
        {
            await using (BlockNode disk = await Images.OpenAsync(_folder["a.qed"], writable: true))
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
                Assert.True(model.AsSpan().SequenceEqual(read), $"at {size}: {model.AsSpan().CommonPrefixLength(read)}");
            }
            await Programs.CheckAsync(_folder["a.qed"], "qed");
            await File.WriteAllBytesAsync(_folder["model.raw"], model);
            await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["a.qed"], "qed");
        }
    }

    [OracleFact]
    public async Task A_rebase_and_a_merge_leave_what_qemu_reads_alike()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 4 << 20, 9);
        await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.qed"], "qed");
        await Images.CreateAsync(_folder["mid.qed"], "qed", "size=4M,backing_file=base.qed,cluster_size=4k");
        await Images.CreateAsync(_folder["top.qed"], "qed", "size=4M,backing_file=mid.qed");
        byte[] model = await File.ReadAllBytesAsync(_folder["base.raw"]);
        foreach (string name in new[] { "mid.qed", "top.qed" })
        {
            await using BlockNode disk = await Images.OpenAsync(_folder[name], writable: true);
            await DiskFormat.RequestsAsync(disk, model, new Random(name.Length), 20);
        }
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qed"], writable: true))
        await using (BlockNode target = await Images.OpenAsync(_folder["base.raw"], "raw"))
        {
            await new RebaseJob(top, target).RunAsync(null, CancellationToken.None);
            await top.As<IRebasable>()!.SetBackingAsync("base.raw", "raw", target, CancellationToken.None);
        }
        await File.WriteAllBytesAsync(_folder["model.raw"], model);
        await Programs.CheckAsync(_folder["top.qed"], "qed");
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["top.qed"], "qed");
        Assert.Contains("base.raw", await Programs.QemuImgAsync("info", _folder["top.qed"]), StringComparison.Ordinal);
        await using (BlockNode top = await Images.OpenAsync(_folder["top.qed"], writable: true))
        {
            await using (BlockNode target = await Images.OpenAsync(_folder["base.qed"], writable: true))
            {
                // base.qed holds what base.raw does, so the layers above it may as well go there
                await new CommitJob(top, 1, target).RunAsync(null, CancellationToken.None);
            }
            await top.As<IEmptiable>()!.MakeEmptyAsync(CancellationToken.None);
        }
        await Programs.CheckAsync(_folder["base.qed"], "qed");
        await Programs.CheckAsync(_folder["top.qed"], "qed");
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["base.qed"], "qed");
        await Programs.CompareAsync(_folder["base.raw"], "raw", _folder["top.qed"], "qed");
        Assert.Equal(65536 * 5, new FileInfo(_folder["top.qed"]).Length);
    }

    [OracleFact]
    public async Task An_image_that_was_not_closed_is_checked_before_it_is_written_to()
    {
        await Images.CreateAsync(_folder["a.qed"], "qed", "size=4M");
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.qed"], writable: true))
        {
            await disk.WriteAsync(0, new byte[] { 1 });
            await disk.WriteAsync(1 << 20, new byte[] { 2 });
            byte[] header = new byte[24];
            await disk.Child("file")!.ReadAsync(0, header);
            Assert.Equal(2, header[16]); // set before the first place is taken
            await disk.FlushAsync();
        }
        byte[] image = await File.ReadAllBytesAsync(_folder["a.qed"]);
        Assert.Equal(0, image[16]);
        image[16] = 2;
        image[(5 * 65536) + 7] = 0x40; // the first L2 entry leads far out of the file
        await File.WriteAllBytesAsync(_folder["a.qed"], image);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.qed"]))
        {
            Assert.True(disk.As<IDescribed>()!.Describe().Dirty);
            Assert.Equal(
                ["Misaligned", "OutOfFile"],
                [.. new[] { "Misaligned" }, .. (await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings.Where(
                    f => f.Severity == CheckSeverity.Corruption).Select(f => f.Kind)]);
        }
        Assert.Equal(image, await File.ReadAllBytesAsync(_folder["a.qed"])); // reading changes nothing
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.qed"], writable: true))
        {
            Assert.False(disk.As<IDescribed>()!.Describe().Dirty);
            byte[] one = new byte[1];
            await disk.ReadAsync(1 << 20, one);
            Assert.Equal(2, one[0]);
            await disk.ReadAsync(0, one);
            Assert.Equal(0, one[0]);
            await disk.WriteAsync(0, new byte[] { 1 });
        }
        await Programs.CheckAsync(_folder["a.qed"], "qed");
    }

    [Fact]
    public async Task A_measurement_is_the_length_that_the_image_gets()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], Size, seed: 6);
        FormatDriver qed = Images.Registry.Format("qed");
        foreach (string options in new[] { "", "cluster_size=4k,table_size=1", "cluster_size=1M,table_size=2" })
        {
            await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw");
            ImageMeasurement measured = await ((IMeasurable)qed).MeasureAsync(
                ((ICreatable)qed).CreateOptions.Bind(OptionSchema.Split(options)), source, CancellationToken.None);
            await Images.ConvertAsync(
                _folder["disk.raw"], "raw", _folder[$"{options}.qed"], "qed", options, new ConvertOptions { SparseSize = 0 });
            Assert.Equal(measured.FullyAllocated, new FileInfo(_folder[$"{options}.qed"]).Length);
            await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder[$"{options}-sparse.qed"], "qed", options);
            // written zeroes are counted, and not stored
            Assert.InRange(new FileInfo(_folder[$"{options}-sparse.qed"]).Length, 1, measured.Required);
        }
    }

    [Fact]
    public async Task The_same_bytes_come_of_any_number_of_workers()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 40 << 20, seed: 10);
        byte[]? first = null;
        foreach (int workers in new[] { 1, 2, 7 })
        {
            await Images.ConvertAsync(
                _folder["disk.raw"],
                "raw",
                _folder[$"{workers}.qed"],
                "qed",
                "cluster_size=16k,table_size=1",
                new ConvertOptions { Workers = workers });
            byte[] bytes = await File.ReadAllBytesAsync(_folder[$"{workers}.qed"]);
            first ??= bytes;
            Assert.True(first.AsSpan().SequenceEqual(bytes), $"{workers} workers");
        }
    }
}
