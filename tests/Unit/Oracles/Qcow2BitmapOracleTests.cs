using System.Text.Json;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>Dirty bitmaps, interchanged with qemu-img, qemu-io and qemu-nbd in both directions.</summary>
public sealed class Qcow2BitmapOracleTests
{
    public static TheoryData<string, int> Shapes()
    {
        var data = new TheoryData<string, int>();
        foreach (string options in new[]
        {
            "", "cluster_size=512", "cluster_size=4k", "cluster_size=16k,extended_l2=on", "cluster_size=2M,refcount_bits=64",
        })
        {
            foreach (int seed in new[] { 1, 2 })
            {
                data.Add(options, seed);
            }
        }
        return data;
    }

    [OracleTheory("qemu-nbd")]
    [MemberData(nameof(Shapes))]
    public async Task Random_changes_by_both_programs_agree(string options, int seed)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        var random = new Random(seed);
        long length = 5 << 20;
        var models = new List<BitmapModel>();
        await (seed % 2 == 0
            ? Programs.QemuImgAsync(options.Length == 0
                ? ["create", "-q", "-f", "qcow2", path, $"{length}"]
                : ["create", "-q", "-f", "qcow2", "-o", options, path, $"{length}"])
            : Images.CreateAsync(path, "qcow2", options.Length == 0 ? $"size={length}" : $"size={length},{options}"));
        for (int step = 0; step < 30; step++)
        {
            string what = $"{options}, seed {seed}, step {step}", name = $"b{step}";
            bool byQemu = random.Next(2) == 0;
            BitmapModel? model = models.Count > 0 ? models[random.Next(models.Count)] : null;
            switch (random.Next(10))
            {
                case 0 or 1:
                    long granularity = 512L << random.Next(13);
                    bool enabled = random.Next(3) > 0;
                    await BitmapAsync(
                        ["--add", "-g", $"{granularity}", .. enabled ? Array.Empty<string>() : ["--disable"], path, name],
                        b => Discard(b.AddBitmapAsync(name, granularity, enabled, default)));
                    models.Add(new(name, granularity, enabled, length));
                    break;
                case 2 when models.Count > 3:
                    await BitmapAsync(["--remove", path, model!.Name], b => b.RemoveBitmapAsync(model!.Name, default));
                    _ = models.Remove(model!);
                    break;
                case 3 when model is not null:
                    await BitmapAsync(["--clear", path, model.Name], b => b.ClearBitmapAsync(model.Name, default));
                    model.Clear();
                    break;
                case 4 when model is not null:
                    model.IsEnabled = !model.IsEnabled;
                    await BitmapAsync(
                        [model.IsEnabled ? "--enable" : "--disable", path, model.Name],
                        b => b.EnableBitmapAsync(model.Name, model.IsEnabled, default));
                    break;
                case 5 when models.Count > 1:
                    BitmapModel other = models.First(m => m != model);
                    await BitmapAsync(
                        ["--merge", other.Name, path, model!.Name],
                        async b => await b.MergeBitmapAsync(model.Name, await b.GetDirtyRangesAsync(other.Name, default), default));
                    other.Ranges().ForEach(r => model.Set(r.Offset, r.Length));
                    break;
                case 6:
                    length = (4 << 20) + (random.Next(4096) * 512L);
                    await (byQemu ? Programs.QemuImgAsync("resize", "-q", "--shrink", "-f", "qcow2", path, $"{length}")
                        : OnDiskAsync(path, d => d.ResizeAsync(length)));
                    models.ForEach(m => m.Resize(length));
                    break;
                default:
                    for (int i = random.Next(1, 6); i > 0; i--)
                    {
                        long offset = random.NextInt64(length / 512) * 512, count = Math.Min(length - offset, random.Next(1, 300) * 512L);
                        bool zero = random.Next(3) == 0;
                        await (byQemu
                            ? Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", $"write {(zero ? "-z" : "-P 7")} {offset} {count}", path)
                            : OnDiskAsync(path, d => zero ? d.WriteZeroesAsync(offset, count) : d.WriteAsync(offset, new byte[count])));
                        models.ForEach(m => m.Record(offset, count));
                    }
                    break;
            }
            await Programs.CheckAsync(path);
            await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
            {
                await BitmapModel.VerifyAsync(disk, models, what);
            }
            if (models.Count > 0 && step % 2 == 0)
            {
                BitmapModel judged = models[random.Next(models.Count)];
                Assert.Equal(judged.Ranges(), await DirtyByQemuAsync(folder, path, judged.Name));
            }

            async Task BitmapAsync(string[] theirs, Func<IBitmaps, ValueTask> ours)
                => await (byQemu ? Programs.QemuImgAsync(["bitmap", .. theirs]) : OnDiskAsync(path, d => ours((IBitmaps)d)));
        }
        Assert.Equal(await InfoByQemuAsync(path), models.Select(m => (m.Name, m.Granularity, m.IsEnabled ? "auto" : "")));
    }

    [OracleFact("qemu-io")]
    public async Task Both_programs_leave_bitmaps_in_use_when_they_crash_and_can_remove_them()
    {
        using var folder = new TestFolder();
        foreach (bool byQemu in new[] { true, false })
        {
            string path = folder[$"{byQemu}.qcow2"];
            await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", path, "1M");
            await Programs.QemuImgAsync("bitmap", "--add", path, "b");
            if (byQemu)
            {
                _ = await Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "flush", "-c", "abort", path);
            }
            else
            {
                var file = new MemoryNode(await File.ReadAllBytesAsync(path));
                BlockNode disk = await MemoryDisk.OpenAsync(file);
                await disk.WriteAsync(0, new byte[100]);
                await disk.FlushAsync();
                await File.WriteAllBytesAsync(path, file.ToArray());
            }
            Assert.Equal([("b", 65536, "in-use auto")], await InfoByQemuAsync(path));
            (int code, _, _) = await Programs.TryAsync("qemu-img", "bitmap", "--clear", path, "b");
            Assert.NotEqual(0, code);
            await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
            {
                Assert.Equal([new("b", 65536, IsEnabled: true, IsInUse: true, null)], await ((IBitmaps)disk).GetBitmapsAsync(default));
            }
            await Programs.CheckAsync(path);
            await (byQemu ? OnDiskAsync(path, d => ((IBitmaps)d).RemoveBitmapAsync("b", default))
                : Programs.QemuImgAsync("bitmap", "--remove", path, "b"));
            Assert.Empty(await InfoByQemuAsync(path));
            await Programs.CheckAsync(path);
        }
    }

    [OracleFact]
    public async Task Stale_bitmaps_are_leaks_for_both_programs()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", path, "1M");
        await Programs.QemuImgAsync("bitmap", "--add", path, "b");
        byte[] image = await File.ReadAllBytesAsync(path);
        image.AsSpan(88, 8).Clear();
        await File.WriteAllBytesAsync(path, image);
        (int code, string output, _) = await Programs.TryAsync("qemu-img", "check", "--output=json", "-f", "qcow2", path);
        Assert.Equal(3, code);
        using JsonDocument theirs = JsonDocument.Parse(output);
        CheckReport ours = await MemoryDisk.LeaksAtMostAsync(image, "stale");
        Assert.Equal(theirs.RootElement.GetProperty("leaks").GetInt64(), ours.Leaks);
        await OnDiskAsync(path, async d => _ = await ((IRepairable)d).RepairAsync(RepairMode.Leaks, null, default));
        await Programs.CheckAsync(path);
        Assert.Empty(await InfoByQemuAsync(path));
    }

    [OracleTheory]
    [InlineData("", "")]
    [InlineData("cluster_size=512", "cluster_size=4k")]
    [InlineData("cluster_size=2M", "cluster_size=512")]
    [InlineData("cluster_size=4k", "compat=0.10")]
    public async Task Bitmaps_measure_as_qemu_img_says(string sourceOptions, string options)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.CreateAsync(path, "qcow2", sourceOptions.Length == 0 ? "size=3G" : $"size=3G,{sourceOptions}");
        foreach (
            string[] bitmap in new[] { new[] { "-g", "512", path, "fine" }, [path, "default"], ["-g", "2G", path, new string('n', 900)] })
        {
            await Programs.QemuImgAsync(["bitmap", "--add", .. bitmap]);
        }
        using JsonDocument theirs = JsonDocument.Parse(await Programs.QemuImgAsync(
            options.Length == 0
                ? ["measure", "--output=json", "-O", "qcow2", path]
                : ["measure", "--output=json", "-O", "qcow2", "-o", options, path]));
        FormatDriver driver = Images.Registry.Format("qcow2");
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        ImageMeasurement ours = await ((IMeasurable)driver).MeasureAsync(
            ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options)), disk, default);
        Assert.Equal(theirs.RootElement.TryGetProperty("bitmaps", out JsonElement bytes) ? bytes.GetInt64() : null, ours.Bitmaps);
        Assert.Equal(theirs.RootElement.GetProperty("required").GetInt64(), ours.Required);
    }

    [OracleFact("qemu-nbd")]
    public async Task Bitmaps_are_copied_as_qemu_img_convert_does()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"], ours = folder["ours.qcow2"], theirs = folder["theirs.qcow2"];
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", path, "3M");
        await Programs.QemuImgAsync("bitmap", "--add", "-g", "4k", path, "fine");
        await Programs.QemuImgAsync("bitmap", "--add", "--disable", path, "off");
        await Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 100k 70k", "-c", "write 2M 1", path);
        await Programs.QemuImgAsync("bitmap", "--merge", "fine", path, "off");
        await BothAsync(skipBroken: false);

        await Programs.QemuImgAsync("bitmap", "--add", path, "broken");
        await Programs.QemuImgAsync("bitmap", "--disable", path, "fine");
        _ = await Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "flush", "-c", "abort", path);
        Assert.Contains("in-use", string.Concat(await InfoByQemuAsync(path)), StringComparison.Ordinal);
        (int code, _, _) = await Programs.TryAsync("qemu-img", "convert", "--bitmaps", "-O", "qcow2", path, theirs);
        Assert.NotEqual(0, code);
        await using (BlockNode source = await Images.OpenAsync(path, "qcow2"))
        {
            await Assert.ThrowsAsync<DiskImageException>(() => BitmapCopy.SelectAsync(source, skipBroken: false, default));
        }
        await BothAsync(skipBroken: true);

        async Task BothAsync(bool skipBroken)
        {
            File.Delete(ours);
            await Programs.QemuImgAsync(
                ["convert", "--bitmaps", .. skipBroken ? new[] { "--skip-broken-bitmaps" } : [], "-O", "qcow2", path, theirs]);
            await using (BlockNode source = await Images.OpenAsync(path, "qcow2"))
            {
                IReadOnlyList<DiskBitmap> selected = await BitmapCopy.SelectAsync(source, skipBroken, default);
                await Images.ConvertAsync(path, "qcow2", ours, "qcow2");
                await using BlockNode target = await Images.OpenAsync(ours, "qcow2", writable: true);
                IReadOnlyList<DiskBitmap> copied = await new BitmapCopy(source, target, selected).RunAsync(null, default);
                Assert.Equal(selected, copied);
            }
            await Programs.CheckAsync(ours);
            Assert.Equal((await InfoByQemuAsync(theirs)).Order(), (await InfoByQemuAsync(ours)).Order());
            foreach ((string name, _, _) in await InfoByQemuAsync(ours))
            {
                Assert.Equal(await DirtyByQemuAsync(folder, theirs, name), await DirtyByQemuAsync(folder, ours, name));
            }
        }
    }

    [OracleFact("qemu-nbd")]
    public async Task Bitmaps_survive_snapshots_rebase_amend_and_emptying()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", folder["base.qcow2"], "2M");
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", folder["base.qcow2"], path);
        await OnDiskAsync(path, async disk =>
        {
            _ = await ((IBitmaps)disk).AddBitmapAsync("b", null, enabled: true, default);
            await disk.WriteAsync(300_000, new byte[1]);
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, default);
            await disk.WriteAsync(700_000, new byte[1]);
            _ = await ((ISnapshots)disk).DeleteSnapshotAsync("s", default);
            await disk.WriteAsync(0, new byte[1]);
            await ((IRebasable)disk).SetBackingAsync(null, null, null, default);
            await disk.WriteAsync(1_000_000, new byte[1]);
            await ((IEmptiable)disk).MakeEmptyAsync(default);
        });
        List<(long, long)> expected = [(0, 65536), (262_144, 65536), (655_360, 65536), (983_040, 65536)];
        Assert.Equal(expected, await DirtyByQemuAsync(folder, path, "b"));
        await Programs.CheckAsync(path);
        FormatDriver driver = Images.Registry.Format("qcow2");
        await OnDiskAsync(path, async disk =>
        {
            await disk.WriteAsync(1_500_000, new byte[1]);
            object options = ((IAmendable)driver).AmendOptions.Bind(OptionSchema.Split("refcount_bits=32,lazy_refcounts=on"));
            await ((IAmendable)driver).AmendAsync(disk, options, null, default);
            await disk.WriteAsync(1_600_000, new byte[1]);
            await Assert.ThrowsAsync<DiskImageException>(async () => await ((IAmendable)driver).AmendAsync(
                disk,
                ((IAmendable)driver).AmendOptions.Bind(OptionSchema.Split("compat=0.10,refcount_bits=16,lazy_refcounts=off")),
                null,
                default));
        });
        expected.AddRange([(1_441_792, 65536), (1_572_864, 65536)]);
        Assert.Equal(expected, await DirtyByQemuAsync(folder, path, "b"));
        await Programs.CheckAsync(path);
    }

    private static async ValueTask Discard(ValueTask<DiskBitmap> added) => _ = await added;

    private static async Task<string> OnDiskAsync(string path, Func<BlockNode, ValueTask> change)
    {
        await using BlockNode disk = await Images.OpenAsync(path, writable: true);
        await change(disk);
        return "";
    }

    /// <summary>Name, granularity and flags, as qemu-img info shows them.</summary>
    private static async Task<List<(string Name, long Granularity, string Flags)>> InfoByQemuAsync(string path)
    {
        using JsonDocument info = JsonDocument.Parse(await Programs.QemuImgAsync("info", "--output=json", path));
        return info.RootElement.GetProperty("format-specific").GetProperty("data").TryGetProperty("bitmaps", out JsonElement bitmaps)
            ? [.. bitmaps.EnumerateArray().Select(b => (
                b.GetProperty("name").GetString()!,
                b.GetProperty("granularity").GetInt64(),
                string.Join(' ', b.GetProperty("flags").EnumerateArray().Select(f => f.GetString()))))]
            : [];
    }

    /// <summary>The dirty ranges that QEMU reads from an image, over its NBD server.</summary>
    private static async Task<List<(long Offset, long Length)>> DirtyByQemuAsync(TestFolder folder, string path, string name)
    {
        // of a copy: the server goes some time after its client
        string copy = folder[Guid.NewGuid().ToString("n")[..8]], socket = $"{copy}.nbd";
        File.Copy(path, copy);
        await Programs.RunAsync("qemu-nbd", "--fork", "-r", "-f", "qcow2", "-k", socket, "-B", name, copy);
        string map = await Programs.QemuImgAsync(
            "map",
            "--output=json",
            "--image-opts",
            $"driver=nbd,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{name}");
        using JsonDocument document = JsonDocument.Parse(map);
        return [.. document.RootElement.EnumerateArray().Where(
            e => !e.GetProperty("data").GetBoolean()).Select(e => (e.GetProperty("start").GetInt64(), e.GetProperty("length").GetInt64()))];
    }
}
