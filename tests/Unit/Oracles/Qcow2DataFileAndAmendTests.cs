using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>External data files and changed options, with qemu-img as the judge.</summary>
public sealed class Qcow2DataFileAndAmendTests
{
    [OracleTheory]
    [InlineData("")]
    [InlineData("data_file_raw=on")]
    [InlineData("cluster_size=4k")]
    [InlineData("data_file_raw=on,extended_l2=on")]
    public async Task Data_in_another_file_reads_the_same_for_both_programs(string options)
    {
        using var folder = new TestFolder();
        string more = options.Length == 0 ? "" : "," + options;
        await Images.MakeRawAsync(folder["a.raw"], (3 << 20) + 512, 1, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2", $"data_file={folder["b.data"]}{more}");
        await Programs.CheckAsync(folder["b.qcow2"]);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2");
        await Programs.QemuImgAsync(
            "convert", "-f", "raw", "-O", "qcow2", "-o", $"data_file={folder["c.data"]}{more}", folder["a.raw"], folder["c.qcow2"]);
        foreach (string name in new[] { "b", "c" })
        {
            byte[] twin = await File.ReadAllBytesAsync(folder["a.raw"]);
            await using (BlockNode disk = await Images.OpenAsync(folder[name + ".qcow2"], writable: true))
            {
                var random = new Random(7);
                for (int i = 0; i < 40; i++)
                {
                    byte[] data = new byte[random.Next(1, 50_000)];
                    int at = random.Next(twin.Length - data.Length);
                    if (i % 4 == 0)
                    {
                        await disk.WriteZeroesAsync(at, data.Length);
                    }
                    else
                    {
                        random.NextBytes(data);
                        await disk.WriteAsync(at, data);
                    }
                    data.CopyTo(twin, at);
                }
            }
            await File.WriteAllBytesAsync(folder["twin.raw"], twin);
            await Programs.CheckAsync(folder[name + ".qcow2"]);
            await Programs.CompareAsync(folder["twin.raw"], "raw", folder[name + ".qcow2"], "qcow2");
            if (options.Contains("raw", StringComparison.Ordinal))
            {
                await Programs.CompareAsync(folder["twin.raw"], "raw", folder[name + ".data"], "raw");
            }
        }
    }

    [OracleFact]
    public async Task An_existing_raw_file_is_wrapped_untouched()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], 3 << 20, 1, unit: 8192);
        byte[] before = await File.ReadAllBytesAsync(folder["a.raw"]);
        await Images.CreateAsync(
            folder["b.qcow2"], "qcow2", $"size={3 << 20},data_file={folder["a.raw"]},data_file_raw=on,keep_data_file=on");
        Assert.Equal(before, await File.ReadAllBytesAsync(folder["a.raw"]));
        await Programs.CheckAsync(folder["b.qcow2"]);
        await using (BlockNode disk = await Images.OpenAsync(folder["b.qcow2"]))
        {
            byte[] got = new byte[before.Length];
            await disk.ReadAsync(0, got);
            Assert.Equal(before, got);
        }
        var error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.CreateAsync(folder["c.qcow2"], "qcow2", $"size={4 << 20},data_file=a.raw,data_file_raw=on,keep_data_file=on"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Equal(before, await File.ReadAllBytesAsync(folder["a.raw"]));
    }

    [OracleTheory]
    [InlineData(false, "")]
    [InlineData(true, "")]
    [InlineData(false, ",preallocation=metadata")]
    public async Task An_image_with_snapshots_becomes_version_2(bool hasBacking, string more)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["base.raw"], 3 << 20, 1, unit: 8192);
        await Images.CreateAsync(
            path, "qcow2", $"size=3M,cluster_size=4k{more}{(hasBacking ? ",backing_file=base.raw,backing_fmt=raw" : "")}");
        byte[] twin = hasBacking ? await File.ReadAllBytesAsync(folder["base.raw"]) : new byte[3 << 20];
        byte[] kept = [];
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            var random = new Random(7);
            for (int i = 0; i < 80; i++)
            {
                byte[] data = new byte[random.Next(1, 60_000)];
                int at = random.Next(twin.Length - data.Length);
                if (i % 2 == 0)
                {
                    random.NextBytes(data);
                }
                await (i % 2 == 0 ? disk.WriteAsync(at, data) : disk.WriteZeroesAsync(at, data.Length));
                data.CopyTo(twin, at);
                if (i == 40)
                {
                    kept = (byte[])twin.Clone();
                    _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
                }
            }
            var driver = (IAmendable)Images.Registry.Format("qcow2");
            await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split("compat=0.10")), null, CancellationToken.None);
            await disk.WriteAsync(5, kept.AsMemory(0, 20_000));
            kept.AsSpan(0, 20_000).CopyTo(twin.AsSpan(5));
        }
        Assert.Contains("compat: 0.10", await Programs.QemuImgAsync("info", path), StringComparison.Ordinal);
        await Programs.CheckAsync(path);
        await File.WriteAllBytesAsync(folder["twin.raw"], twin);
        await File.WriteAllBytesAsync(folder["kept.raw"], kept);
        await Programs.CompareAsync(folder["twin.raw"], "raw", path, "qcow2");
        await Programs.QemuImgAsync("convert", "-l", "s", "-O", "raw", path, folder["s.raw"]);
        await Programs.CompareAsync(folder["kept.raw"], "raw", folder["s.raw"], "raw");
    }

    [OracleTheory]
    [InlineData("metadata")]
    [InlineData("falloc")]
    [InlineData("full")]
    public async Task With_subclusters_an_overlay_can_be_preallocated(string mode)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["base.raw"], 3 << 20, 1, unit: 8192);
        byte[] twin = new byte[5 << 20];
        (await File.ReadAllBytesAsync(folder["base.raw"])).CopyTo(twin, 0);
        await Images.CreateAsync(
            folder["a.qcow2"], "qcow2", $"size=3M,backing_file=base.raw,backing_fmt=raw,extended_l2=on,preallocation={mode}");
        await Programs.QemuImgAsync(
            "create",
            "-f",
            "qcow2",
            "-o",
            $"backing_file=base.raw,backing_fmt=raw,extended_l2=on,preallocation={mode}",
            folder["b.qcow2"],
            "3M");
        Assert.True(new FileInfo(folder["a.qcow2"]).Length >= 3 << 20);
        foreach (string path in new[] { folder["a.qcow2"], folder["b.qcow2"] })
        {
            await Programs.CompareAsync(folder["base.raw"], "raw", path, "qcow2");
            await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
            {
                byte[] data = new byte[70_000];
                Array.Fill(data, (byte)'y');
                await disk.WriteAsync(100_000, data);
                data.CopyTo(twin, 100_000);
                await disk.ResizeAsync(5 << 20, Enum.Parse<PreallocationMode>(mode, ignoreCase: true));
                await disk.WriteAsync(4 << 20, data);
                data.CopyTo(twin, 4 << 20);
            }
            await File.WriteAllBytesAsync(folder["twin.raw"], twin);
            await Programs.CheckAsync(path);
            await Programs.CompareAsync(folder["twin.raw"], "raw", path, "qcow2");
        }
    }

    [OracleFact]
    public async Task A_snapshot_that_version_2_cannot_describe_keeps_the_image_as_it_is()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.CreateAsync(path, "qcow2", "size=3M");
        await Programs.QemuImgAsync("snapshot", "-c", "small", path);
        await Programs.QemuImgAsync("resize", path, "4M");
        byte[] before = await File.ReadAllBytesAsync(path);
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            var driver = (IAmendable)Images.Registry.Format("qcow2");
            var error = await Assert.ThrowsAsync<DiskImageException>(async () => await driver.AmendAsync(
                disk, driver.AmendOptions.Bind(OptionSchema.Split("compat=0.10,size=5M")), null, CancellationToken.None));
            Assert.Contains("'small'", error.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(path));
    }

    [OracleTheory]
    [InlineData("compat=0.10", "compat=1.1,lazy_refcounts=on")]
    [InlineData("", "compat=0.10")]
    [InlineData("cluster_size=4k", "refcount_bits=64")]
    [InlineData("cluster_size=512,refcount_bits=64", "refcount_bits=1")]
    [InlineData("refcount_bits=8", "refcount_bits=16,compat=0.10")]
    [InlineData("", "size=9M,refcount_bits=4")]
    [InlineData("compat=0.10", "size=9M,refcount_bits=2,compat=v3")]
    public async Task Amended_images_check_clean_and_read_the_same(string options, string changes)
    {
        using var folder = new TestFolder();
        foreach (bool hasBacking in new[] { false, true })
        {
            string path = folder[$"{hasBacking}.qcow2"];
            byte[] twin = new byte[9 << 20];
            await Images.MakeRawAsync(folder["a.raw"], 3 << 20, 1, unit: 8192);
            if (hasBacking)
            {
                (await File.ReadAllBytesAsync(folder["a.raw"])).CopyTo(twin, 0);
            }
            await Images.CreateAsync(
                path,
                "qcow2",
                $"size={3 << 20}{(options.Length == 0 ? "" : ",")}{options}{(hasBacking ? ",backing_file=a.raw,backing_fmt=raw" : "")}");
            await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
            {
                var random = new Random(7);
                for (int i = 0; i < 40; i++)
                {
                    byte[] data = new byte[random.Next(1, 90_000)];
                    int at = random.Next((3 << 20) - data.Length);
                    await (i % 3 == 0 ? disk.WriteZeroesAsync(at, data.Length) : disk.WriteAsync(at, data));
                    data.CopyTo(twin, at);
                }
                var driver = (IAmendable)Images.Registry.Format("qcow2");
                await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split(changes)), null, CancellationToken.None);
                byte[] more = new byte[70_000];
                random.NextBytes(more);
                await disk.WriteAsync(1000, more);
                more.CopyTo(twin, 1000);
            }
            await Programs.CheckAsync(path);
            await File.WriteAllBytesAsync(folder["twin.raw"], twin);
            await Programs.CompareAsync(folder["twin.raw"], "raw", path, "qcow2");
            string info = await Programs.QemuImgAsync("info", path);
            if (changes.Contains("refcount_bits=64", StringComparison.Ordinal))
            {
                Assert.Contains("refcount bits: 64", info, StringComparison.Ordinal);
            }
            if (changes.Contains("compat=0.10", StringComparison.Ordinal))
            {
                Assert.Contains("compat: 0.10", info, StringComparison.Ordinal);
            }
        }
    }
}
