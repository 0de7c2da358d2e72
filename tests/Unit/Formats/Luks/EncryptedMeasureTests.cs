using System.Globalization;
using System.Text.Json;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Luks;
using DiskImage.Formats.Qcow2;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>What is measured of encrypted images, judged by the files that are made then, and by qemu-img.</summary>
public sealed class EncryptedMeasureTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public EncryptedMeasureTests() => Images.UseSecret(LuksQemu.Passphrase);

    public void Dispose() => _folder.Dispose();

    [OracleTheory]
    [InlineData("")]
    [InlineData("cipher-alg=aes-128,cipher-mode=cbc")]
    [InlineData("cipher-alg=aes-192")]
    [InlineData("detached-header=on")]
    [InlineData("version=2")]
    public async Task A_LUKS_file_has_the_measured_size(string options)
    {
        const int Size = (1 << 20) + 512;
        await Images.MakeRawAsync(_folder["raw"], Size, seed: 3, unit: 16384);
        var driver = new LuksDriver();
        ImageMeasurement empty = await MeasureAsync(driver, $"size={Size},{options}", null), copied;
        await using (BlockNode source = await Images.OpenAsync(_folder["raw"], format: "raw"))
        {
            copied = await MeasureAsync(driver, options, source);
        }
        Assert.Equal(empty, copied);
        await Images.CreateAsync(_folder["new"], "luks", $"size={Size},iter-time=1,{options}".TrimEnd(','));
        Assert.Equal(new FileInfo(_folder["new"]).Length, empty.Required);
        Assert.Equal(empty.Required, empty.FullyAllocated);
        if (!options.Contains("detached", StringComparison.Ordinal))
        {
            await Images.ConvertAsync(_folder["raw"], "raw", _folder["copy"], "luks", $"iter-time=1,{options}".TrimEnd(','));
            Assert.Equal(new FileInfo(_folder["copy"]).Length, copied.Required);
        }
        if (!options.Contains("=2", StringComparison.Ordinal) && !options.Contains("detached", StringComparison.Ordinal))
        {
            Assert.Equal((empty.Required, empty.FullyAllocated), await MeasuredByQemuAsync("luks", $"key-secret=s0,{options}".TrimEnd(','), Size));
        }
    }

    /// <summary>The count is QEMU's. A disk that is full of data has that size; with less data it is the unneeded tables less.</summary>
    [OracleTheory]
    [InlineData("encrypt.format=luks", 1 << 16)]
    [InlineData("encrypt.format=luks,cluster_size=4096", 4096)]
    [InlineData("encrypt.format=luks,cluster_size=2M", 2 << 20)]
    [InlineData("encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc", 1 << 16)]
    [InlineData("encrypt.format=aes", 1 << 16)]
    public async Task A_qcow2_file_has_the_measured_size(string options, int cluster)
    {
        const int Size = 8 << 20;
        byte[] data = new byte[Size];
        new Random(4).NextBytes(data);
        await File.WriteAllBytesAsync(_folder["raw"], data);
        var driver = new Qcow2Driver();
        ImageMeasurement empty = await MeasureAsync(driver, $"size={Size},{options}", null), copied;
        await using (BlockNode source = await Images.OpenAsync(_folder["raw"], format: "raw"))
        {
            copied = await MeasureAsync(driver, options, source);
        }
        Assert.Equal(empty.FullyAllocated, copied.Required);
        string speed = options.Contains("luks", StringComparison.Ordinal) ? ",encrypt.iter-time=1" : "";
        await Images.ConvertAsync(_folder["raw"], "raw", _folder["copy"], "qcow2", options + speed);
        Assert.InRange(new FileInfo(_folder["copy"]).Length, copied.Required - cluster, copied.Required);
        Assert.Equal(
            (empty.Required, empty.FullyAllocated), await MeasuredByQemuAsync("qcow2", $"encrypt.key-secret=s0,{options}", Size));
    }

    private static async Task<ImageMeasurement> MeasureAsync<T>(T driver, string options, BlockNode? source)
        where T : ICreatable, IMeasurable
        => await driver.MeasureAsync(driver.CreateOptions.Bind(OptionSchema.Split(options.TrimEnd(','))), source, default);

    private static async Task<(long Required, long FullyAllocated)> MeasuredByQemuAsync(string format, string options, long size)
    {
        string text = await Programs.QemuImgAsync(
            "measure", "--object", $"secret,id=s0,data={LuksQemu.Passphrase}", "--output=json", "-O", format, "-o", options,
            "--size", size.ToString(CultureInfo.InvariantCulture));
        JsonElement json = JsonDocument.Parse(text).RootElement;
        return (json.GetProperty("required").GetInt64(), json.GetProperty("fully-allocated").GetInt64());
    }
}
