using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>raw → vhdx → raw, with qemu-img as the judge in both directions, and libvhdi as a second one.</summary>
public sealed class VhdxConvertTests
{
    private static readonly string[] CreateOptions =
    [
        "", "subformat=dynamic", "subformat=fixed", "block_size=1M", "block_size=2M,block_state_zero=off", "block_size=32M",
        "block_size=256M",
        "log_size=3M", "subformat=fixed,block_size=1M,block_state_zero=off", "log_size=1500k,block_size=0",
    ];

    public static TheoryData<long, string> Matrix()
    {
        var data = new TheoryData<long, string>();
        foreach (long size in new long[] { 512, 65536, (3 << 20) + 512, (17 << 20) + 3584 })
        {
            foreach (string options in CreateOptions)
            {
                data.Add(size, options);
            }
        }
        return data;
    }

    public static TheoryData<string> QemuMatrix() => new(CreateOptions);

    [OracleTheory]
    [MemberData(nameof(Matrix))]
    public async Task What_we_write_qemu_checks_clean_and_reads_identical(long size, string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], size, seed: 1);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.vhdx"], "vhdx", options);
        await Programs.CheckAsync(folder["b.vhdx"], "vhdx");
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.vhdx"], "vhdx");
        await Images.ConvertAsync(folder["b.vhdx"], null, folder["c.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["c.raw"]));
    }

    [OracleTheory]
    [MemberData(nameof(QemuMatrix))]
    public async Task What_qemu_writes_we_read_identical(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (9 << 20) + 1536, seed: 2);
        string[] convert = ["convert", "-f", "raw", "-O", "vhdx", .. options.Length == 0 ? Array.Empty<string>() : ["-o", options]];
        await Programs.QemuImgAsync([.. convert, folder["a.raw"], folder["b.vhdx"]]);
        await Images.ConvertAsync(folder["b.vhdx"], null, folder["c.raw"], "raw");
        Assert.Equal(await File.ReadAllBytesAsync(folder["a.raw"]), await File.ReadAllBytesAsync(folder["c.raw"]));
    }

    [OracleFact]
    public async Task An_image_of_qemu_that_we_write_to_is_still_one_for_qemu()
    {
        using var folder = new TestFolder();
        const int Size = (21 << 20) + 512;
        await Images.MakeRawAsync(folder["a.raw"], Size, seed: 3);
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", folder["a.raw"], folder["b.vhdx"]);
        byte[] expected = await File.ReadAllBytesAsync(folder["a.raw"]);
        var random = new Random(4);
        await using (BlockNode disk = await Images.OpenAsync(folder["b.vhdx"], writable: true))
        {
            for (int i = 0; i < 100; i++)
            {
                byte[] data = new byte[random.Next(1, 300_000)];
                random.NextBytes(data);
                int at = random.Next(Size - data.Length);
                if (i % 3 == 0)
                {
                    Array.Clear(data);
                    await disk.WriteZeroesAsync(at, data.Length);
                }
                else
                {
                    await disk.WriteAsync(at, data);
                }
                data.CopyTo(expected, at);
            }
        }
        await Programs.CheckAsync(folder["b.vhdx"], "vhdx");
        await File.WriteAllBytesAsync(folder["expected.raw"], expected);
        await Programs.CompareAsync(folder["expected.raw"], "raw", folder["b.vhdx"], "vhdx");
    }

    [OracleTheory]
    [InlineData(1L << 30)]
    [InlineData((1L << 30) + 512)]
    [InlineData(100L << 30)]
    [InlineData((100L << 30) + 512)]
    [InlineData(32L << 40)]
    [InlineData((32L << 40) + 512)]
    public async Task The_block_size_is_the_one_qemu_chooses(long size)
    {
        using var folder = new TestFolder();
        await Programs.QemuImgAsync("create", "-f", "vhdx", folder["theirs.vhdx"], $"{size}");
        await Images.CreateAsync(folder["ours.vhdx"], "vhdx", $"size={size}");
        await using BlockNode theirs = await Images.OpenAsync(folder["theirs.vhdx"]), ours = await Images.OpenAsync(folder["ours.vhdx"]);
        Assert.Equal(((IDescribed)theirs).Describe().ClusterSize, ((IDescribed)ours).Describe().ClusterSize);
        Assert.Equal(size, ours.Length);
        await Programs.CheckAsync(folder["ours.vhdx"], "vhdx");
    }
}
