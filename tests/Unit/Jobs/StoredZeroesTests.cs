using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Jobs;

/// <summary>With a sparse size of 0 a conversion stores everything: the target's own layer has bytes for all of the disk.</summary>
public sealed class StoredZeroesTests
{
    private const int Size = 4 << 20;

    [Theory]
    [InlineData("raw", "")]
    [InlineData("qcow2", "")]
    [InlineData("qcow2", "compat=0.10")]
    [InlineData("qcow2", "extended_l2=on")]
    [InlineData("qcow2", "cluster_size=2M")]
    [InlineData("vpc", "force_size=on")]
    [InlineData("vhdx", "block_size=1M")]
    public async Task Nothing_is_left_out(string format, string options)
    {
        using var folder = new TestFolder();
        await MakeSourceAsync(folder["source.raw"]);
        await Images.ConvertAsync(folder["source.raw"], "raw", folder["copy"], format, options, new ConvertOptions { SparseSize = 0 });
        await using BlockNode source = await Images.OpenAsync(
            folder["source.raw"], "raw"), copy = await Images.OpenAsync(folder["copy"], format);
        Assert.True((await new CompareJob(source, copy, strict: false).RunAsync(null, CancellationToken.None)).Identical);
        Assert.True(
            copy.Child("file")!.AllocatedLength is null or >= Size, $"the file takes {copy.Child("file")!.AllocatedLength:#,0} bytes");
        for (long at = 0; at < copy.Length;)
        {
            BlockExtent extent = await copy.GetExtentAsync(at, copy.Length - at);
            Assert.True(extent is { IsAllocated: true, IsData: true }, $"{extent}");
            at = extent.End;
        }
    }

    [Fact]
    public async Task Compressed_zeroes_are_stored_compressed()
    {
        using var folder = new TestFolder();
        await MakeSourceAsync(folder["source.raw"]);
        await Images.ConvertAsync(
            folder["source.raw"], "raw", folder["copy"], "qcow2", "", new ConvertOptions { SparseSize = 0, Compress = true });
        await using BlockNode source = await Images.OpenAsync(
            folder["source.raw"], "raw"), copy = await Images.OpenAsync(folder["copy"], "qcow2");
        Assert.True((await new CompareJob(source, copy, strict: false).RunAsync(null, CancellationToken.None)).Identical);
        CheckReport report = await ((ICheckable)copy).CheckAsync(null, CancellationToken.None);
        Assert.Equal((report.TotalClusters, report.TotalClusters), (report.AllocatedClusters, report.CompressedClusters));
    }

    /// <summary>A hole, text, written zeroes, text.</summary>
    private static async Task MakeSourceAsync(string path)
    {
        await using FileStream file = File.Create(path);
        file.SetLength(Size);
        byte[] text = new byte[300_000];
        Array.Fill(text, (byte)'x');
        file.Position = Size / 2;
        await file.WriteAsync(text);
        await file.WriteAsync(new byte[600_000]);
        await file.WriteAsync(text);
    }
}
