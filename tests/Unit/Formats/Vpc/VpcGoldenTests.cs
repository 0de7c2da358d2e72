using System.IO.Compression;
using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Images that are kept with the tests; Data/MANIFEST.md tells how each was made.</summary>
public sealed class VpcGoldenTests : IDisposable
{
    private const long Bytes = 10 << 20, Chs = 300L * 4 * 17 * 512;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("virtual-pc-dynamic", Chs)]
    [InlineData("hyper-v-dynamic", Bytes)]
    [InlineData("disk2vhd-dynamic", Bytes)]
    [InlineData("azure-dynamic", Bytes)]
    public async Task Equal_fields_and_another_creator_make_another_size(string name, long size)
    {
        await using BlockNode disk = await OpenAsync(name);
        Assert.Equal(size, disk.Length);
        VpcInfo info = VpcOracleTests.Info(disk);
        Assert.Equal(
            (Bytes, 300, 4, 17, size == Chs),
            (info.CurrentSize, info.Cylinders, info.Heads, info.SectorsPerTrack, info.IsSizeFromGeometry));
        Assert.Equal(new Version(6, 3), info.CreatorVersion);
        byte[] expected = new byte[size];
        expected.AsSpan(0, 2 << 20).Fill(0x5A);
        foreach (int sector in new[] { 0, 5, 6, 7, 4095 })
        {
            int at = (8 << 20) + (sector * 512);
            if (at < size)
            {
                expected.AsSpan(at, 512).Fill(0xA5);
            }
        }
        Assert.Equal(expected, await VpcDisks.ReadAsync(disk));
        BlockExtent extent = await disk.GetExtentAsync((8 << 20) + (5 * 512), 1 << 20);
        Assert.Equal((3 * 512, true), (extent.Length, extent.IsData));
        Assert.Equal(size == Chs
            ? ["SizesDiffer"]
            : [], (await VpcDisks.CheckAsync(disk)).Findings.Select(f => f.Kind), StringComparer.Ordinal);
    }

    [Theory]
    [InlineData("fixed", 0)]
    [InlineData("fixed-511", 1)]
    public async Task Fixed_disks_have_a_footer_of_512_or_511_bytes(string name, int findings)
    {
        await using BlockNode disk = await OpenAsync(name);
        byte[] expected = new byte[1 << 20];
        Array.Fill(expected, (byte)0x11);
        Assert.Equal(expected, await VpcDisks.ReadAsync(disk));
        Assert.Equal(findings, (await VpcDisks.CheckAsync(disk)).Findings.Count);
    }

    [Fact]
    public async Task Each_sector_of_a_chain_comes_from_its_layer()
    {
        foreach (string name in new[] { "base", "middle", "top" })
        {
            await UnpackAsync(name);
        }
        await using BlockNode disk = await Images.OpenAsync(_folder["top.vhd"], "vpc");
        byte[] contents = await VpcDisks.ReadAsync(disk);
        Assert.Equal(256 << 10, contents.Length);
        for (int sector = 0; sector < 512; sector++)
        {
            int within = sector % 128;
            int layer = (sector / 128) switch
            {
                0 => within % 4 == 3 ? 3 : within % 2 == 1 ? 2 : 1,
                2 => within is 0 or 63 or 64 ? 3 : within < 64 ? 1 : 0,
                3 => within == 127 ? 2 : 0,
                _ => 0,
            };
            Assert.True(contents[sector * 512] == layer && contents[(sector * 512) + 511] == layer, $"sector {sector}");
        }
        Assert.True(VpcOracleTests.Info(disk.Child("backing")!).FooterRecovered);
    }

    [Fact]
    public async Task Qemus_images_read_as_written()
    {
        await using BlockNode dynamic = await OpenAsync("qemu-dynamic"), @fixed = await OpenAsync("qemu-fixed");
        byte[] contents = await VpcDisks.ReadAsync(dynamic);
        Assert.True(contents.Length >= 5 << 20);
        Assert.Equal(65536, contents.Count(b => b == 1));
        Assert.Equal(512, contents.AsSpan(3 << 20, 512).Count((byte)2));
        contents = await VpcDisks.ReadAsync(@fixed);
        Assert.Equal(1 << 20, contents.Length);
        Assert.Equal(65536, contents.AsSpan(512 << 10, 65536).Count((byte)3));
    }

    private async Task<BlockNode> OpenAsync(string name)
    {
        await UnpackAsync(name);
        return await Images.OpenAsync(_folder[name + ".vhd"], "vpc");
    }

    private async Task UnpackAsync(string name)
    {
        await using FileStream packed = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "vpc", name + ".vhd.gz"));
        await using var unpack = new GZipStream(packed, CompressionMode.Decompress);
        await using FileStream target = File.Create(_folder[name + ".vhd"]);
        await unpack.CopyToAsync(target);
    }
}
