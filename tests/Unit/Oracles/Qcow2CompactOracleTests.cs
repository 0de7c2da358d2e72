using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>Images made by qemu-img and compacted by us, with qemu-img and qemu-io as the judges.</summary>
public sealed class Qcow2CompactOracleTests
{
    private const int Size = 12 << 20;

    [OracleTheory]
    [InlineData("cluster_size=64k", false)]
    [InlineData("cluster_size=64k", true)]
    [InlineData("cluster_size=4k,compression_type=zstd", true)]
    [InlineData("cluster_size=512", false)]
    [InlineData("compat=0.10,cluster_size=4k", true)]
    [InlineData("cluster_size=64k,extended_l2=on", false)]
    [InlineData("preallocation=metadata,cluster_size=4k", false)]
    [InlineData("refcount_bits=64,cluster_size=1k", true)]
    public async Task Disk_snapshots_and_bitmaps_stay_and_the_file_gets_shorter(string options, bool compressed)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        bool hasBitmaps = !options.Contains("0.10", StringComparison.Ordinal);
        await Images.MakeRawAsync(folder["a.raw"], Size, 4, unit: 8192);
        await Programs.QemuImgAsync([.. Arguments(
            "convert -f raw -O qcow2 -S 0"), .. compressed ? ["-c"] : Array.Empty<string>(), "-o", options, folder["a.raw"], path]);
        if (hasBitmaps)
        {
            await Programs.QemuImgAsync("bitmap", "--add", "-g", "4k", path, "dirty");
        }
        await QemuIoAsync(path, "write -P 1 1M 300k", "write -z 2M 1M", "discard 4M 2M");
        await Programs.QemuImgAsync("snapshot", "-c", "first", path);
        await QemuIoAsync(path, "write -P 2 0 100k", "discard 7M 3M", "write -P 0 10M 1M");
        await Programs.QemuImgAsync("snapshot", "-c", "second", path);
        await QemuIoAsync(path, "write -P 3 3M 900k", "discard 5M 500k");
        await Programs.QemuImgAsync("snapshot", "-d", "first", path);
        await Programs.QemuImgAsync("convert", "-O", "raw", path, folder["now.raw"]);
        await Programs.QemuImgAsync("convert", "-l", "second", "-O", "raw", path, folder["second.raw"]);
        string bitmaps = await BitmapsAsync(path);
        long before = new FileInfo(path).Length;

        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            long saved = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            Assert.True(saved > 0);
            Assert.Equal(before - saved, new FileInfo(path).Length);
        }
        await JudgeAsync();
        Assert.Equal(bitmaps, await BitmapsAsync(path));

        await QemuIoAsync(path, "write -P 4 6M 1M", "discard 0 64k"); // it goes on using the image
        await QemuIoAsync(folder["now.raw"], "write -P 4 6M 1M", "write -z 0 64k");
        await JudgeAsync();

        async Task JudgeAsync()
        {
            await Programs.CheckAsync(path);
            await Programs.CompareAsync(folder["now.raw"], "raw", path, "qcow2");
            await Programs.QemuImgAsync("convert", "-l", "second", "-O", "raw", path, folder["again.raw"]);
            Assert.Equal(await File.ReadAllBytesAsync(folder["second.raw"]), await File.ReadAllBytesAsync(folder["again.raw"]));
        }
    }

    [OracleTheory]
    [InlineData("")]
    [InlineData("data_file_raw=on")]
    [InlineData("extended_l2=on")]
    public async Task A_data_file_reads_as_before_and_gets_holes(string options)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"], more = options.Length == 0 ? "" : "," + options;
        await Images.MakeRawAsync(folder["a.raw"], Size, 5, unit: 65536);
        await Programs.QemuImgAsync(
            "convert", "-f", "raw", "-O", "qcow2", "-S", "0", "-o", $"data_file={folder["a.data"]}{more}", folder["a.raw"], path);
        byte[] data = await File.ReadAllBytesAsync(folder["a.data"]);
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        await Programs.CheckAsync(path);
        await Programs.CompareAsync(folder["a.raw"], "raw", path, "qcow2");
        Assert.Equal(data, await File.ReadAllBytesAsync(folder["a.data"]));
        await using BlockNode file = await Images.OpenAsync(folder["a.data"], "raw");
        Assert.True(file.AllocatedLength < Size * 3 / 4, $"{file.AllocatedLength} bytes");
    }

    [OracleFact]
    public async Task An_overlay_hides_its_backing_image_as_before()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["base.raw"], Size, 6, unit: 8192);
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-b", folder["base.raw"], "-F", "raw", folder["top.qcow2"]);
        await QemuIoAsync(
            folder["top.qcow2"], "write -P 0 0 3M", "write -P 9 3M 1M", "write -P 9 8M 1M", "write -P 0 3M 512k", "discard 8M 512k");
        await Programs.QemuImgAsync("convert", "-O", "raw", folder["top.qcow2"], folder["now.raw"]);
        long before = new FileInfo(folder["top.qcow2"]).Length;
        await using (BlockNode disk = await Images.OpenAsync(folder["top.qcow2"], writable: true))
        {
            Assert.True(await ((ICompactable)disk).CompactAsync(null, CancellationToken.None) >= 3 << 20);
        }
        Assert.True(new FileInfo(folder["top.qcow2"]).Length <= before - (3 << 20));
        await Programs.CheckAsync(folder["top.qcow2"]);
        await Programs.CompareAsync(folder["now.raw"], "raw", folder["top.qcow2"], "qcow2");
    }

    [OracleFact]
    public async Task An_image_that_was_not_closed_properly_is_repaired_first()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["a.raw"], Size, 7, unit: 8192);
        await Programs.QemuImgAsync(
            "convert", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4k", folder["a.raw"], path);
        _ = await Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 5M", "-c", "flush", "-c", "sigraise 9", path);
        await using (BlockNode disk = await Images.OpenAsync(path))
        {
            Assert.True(((IDescribed)disk).Describe().Dirty);
        }
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        await QemuIoAsync(folder["a.raw"], "write -P 5 0 5M");
        await Programs.CheckAsync(path);
        await Programs.CompareAsync(folder["a.raw"], "raw", path, "qcow2");
    }

    private static string[] Arguments(string text) => text.Split(' ');

    private static Task<string> QemuIoAsync(string path, params string[] commands)
        => Programs.RunAsync(
            "qemu-io",
            ["-f", path.EndsWith(".raw", StringComparison.Ordinal)
                ? "raw"
                : "qcow2", "-d", "unmap", .. commands.SelectMany(c => new[] { "-c", c }), path]);

    private static async Task<string> BitmapsAsync(string path)
    {
        await using BlockNode disk = await Images.OpenAsync(path);
        var bitmaps = (IBitmaps)disk;
        var texts = new List<string>();
        foreach (DiskBitmap bitmap in await bitmaps.GetBitmapsAsync(CancellationToken.None))
        {
            texts.Add($"{bitmap} {string.Join(' ', await bitmaps.GetDirtyRangesAsync(bitmap.Name, CancellationToken.None))}");
        }
        return string.Join('\n', texts);
    }
}
