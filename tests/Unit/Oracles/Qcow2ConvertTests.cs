using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>raw → qcow2 → raw, with qemu-img as the judge in both directions.</summary>
public sealed class Qcow2ConvertTests
{
    public static TheoryData<long, string> Matrix()
    {
        var data = new TheoryData<long, string>();
        foreach (long size in new long[] { 0, 512, 65536, (3 << 20) + 512, (17 << 20) + 3584 })
        {
            foreach (string options in new[]
            {
                "", "compat=0.10", "compat=v3", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "lazy_refcounts=on",
                "refcount_bits=1",
                "refcount_bits=2,cluster_size=1k",
                "refcount_bits=4",
                "refcount_bits=8",
                "refcount_bits=32",
                "refcount_bits=64,cluster_size=512",
                "preallocation=metadata", "preallocation=falloc", "preallocation=full", "preallocation=metadata,cluster_size=512",
            })
            {
                data.Add(size, options);
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Matrix))]
    public async Task What_we_write_qemu_checks_clean_and_reads_identical(long size, string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], size, seed: 1);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2", options);
        await Programs.CheckAsync(folder["b.qcow2"]);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2");
        await Images.ConvertAsync(folder["b.qcow2"], null, folder["c.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["c.raw"]));
    }

    [OracleTheory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=2M")]
    [InlineData("refcount_bits=1")]
    [InlineData("preallocation=metadata")]
    [InlineData("preallocation=full")]
    public async Task What_qemu_writes_we_read_identical(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (9 << 20) + 1536, seed: 2);
        string[] convert = ["convert", "-f", "raw", "-O", "qcow2", .. options.Length == 0 ? Array.Empty<string>() : ["-o", options]];
        await Programs.QemuImgAsync([.. convert, folder["a.raw"], folder["b.qcow2"]]);
        await Images.ConvertAsync(folder["b.qcow2"], null, folder["c.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["c.raw"]));
        if (!options.StartsWith("preallocation", StringComparison.Ordinal))
        {
            await Programs.QemuImgAsync([.. convert, "-c", folder["a.raw"], folder["d.qcow2"]]);
            await Images.ConvertAsync(folder["d.qcow2"], null, folder["e.raw"], "raw");
            Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["e.raw"]));
        }
    }

    [OracleFact]
    public async Task A_write_into_a_compressed_image_over_a_chain_keeps_the_rest()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["base.raw"], 4 << 20, seed: 3);
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "qcow2", "-c", folder["base.raw"], folder["mid.qcow2"]);
        await Images.CreateAsync(folder["top.qcow2"], "qcow2", $"size={6 << 20},backing_file=mid.qcow2,backing_fmt=qcow2");
        byte[] expected = new byte[6 << 20];
        (await File.ReadAllBytesAsync(folder["base.raw"])).CopyTo(expected, 0);
        var random = new Random(4);
        foreach (string name in new[] { "mid.qcow2", "top.qcow2" })
        {
            await using BlockNode disk = await Images.OpenAsync(folder[name], writable: true);
            for (int i = 0; i < 60; i++)
            {
                byte[] data = new byte[random.Next(1, 200_000)];
                random.NextBytes(data);
                long at = random.NextInt64(disk.Length - data.Length);
                await disk.WriteAsync(at, data);
                data.CopyTo(expected, at);
            }
        }
        await Programs.CheckAsync(folder["mid.qcow2"]);
        await Programs.CheckAsync(folder["top.qcow2"]);
        await File.WriteAllBytesAsync(folder["expected.raw"], expected);
        await Programs.CompareAsync(folder["expected.raw"], "raw", folder["top.qcow2"], "qcow2");
        await Images.ConvertAsync(folder["top.qcow2"], null, folder["ours.raw"], "raw");
        Assert.Equal(expected, await File.ReadAllBytesAsync(folder["ours.raw"]));
    }
}
