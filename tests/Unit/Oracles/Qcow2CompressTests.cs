using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>Compressed writing, with qemu-img as the judge.</summary>
public sealed class Qcow2CompressTests
{
    [OracleTheory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=2M")]
    [InlineData("refcount_bits=1")]
    [InlineData("refcount_bits=2,cluster_size=8k")]
    [InlineData("refcount_bits=64")]
    [InlineData("compression_type=zstd")]
    [InlineData("compression_type=zstd,cluster_size=4k,extended_l2=off")]
    [InlineData("extended_l2=on,cluster_size=16k")]
    public async Task Compressed_images_check_clean_and_read_identical(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (11 << 20) + 1536, seed: 5, unit: 40960);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2", options, new ConvertOptions { Compress = true });
        await Programs.CheckAsync(folder["b.qcow2"]);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2");
        await Images.ConvertAsync(folder["b.qcow2"], null, folder["c.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["c.raw"]));
        string json = await Programs.QemuImgAsync("check", "--output=json", folder["b.qcow2"]);
        Assert.Contains("compressed-clusters", json, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_bytes_do_not_depend_on_the_number_of_workers(bool compress)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], 24 << 20, seed: 6, unit: 40960);
        foreach (int workers in new[] { 1, 2, 7 })
        {
            await Images.ConvertAsync(
                folder["a.raw"],
                "raw",
                folder[$"{workers}.qcow2"],
                "qcow2",
                "",
                new ConvertOptions { Compress = compress, Workers = workers });
            Assert.Equal(await File.ReadAllBytesAsync(folder["1.qcow2"]), await File.ReadAllBytesAsync(folder[$"{workers}.qcow2"]));
        }
    }
}
