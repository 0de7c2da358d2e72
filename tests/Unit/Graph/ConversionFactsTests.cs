using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

public sealed class ConversionFactsTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(512, 512)]
    [InlineData(512, 4096)]
    [InlineData(4096, 4096)]
    public async Task Vhdx_keeps_the_sector_sizes_of_vhdx(int logical, int physical)
    {
        await Images.CreateAsync(_folder["a.vhdx"], "vhdx", $"size=1M,logical_sector_size={logical},physical_sector_size={physical}");
        await using BlockNode source = await Images.OpenAsync(_folder["a.vhdx"]);
        var kept = ConversionFacts.KeptOptions(
            source, ((ICreatable)Images.Registry.Format("vhdx")).CreateOptions).ToDictionary(StringComparer.Ordinal);
        Assert.Equal(((long)logical, (long)physical), ((long)kept["logical_sector_size"]!, (long)kept["physical_sector_size"]!));
        Assert.Empty(ConversionFacts.KeptOptions(source, ((ICreatable)Images.Registry.Format("vpc")).CreateOptions));

        foreach ((
            string format,
            string options) in new[] { ("vhdx", string.Join(',', kept.Select(k => $"{k.Key}={k.Value}"))),
            ("vhdx", "logical_sector_size=512"),
            ("vpc", ""),
            ("qcow2", ""),
            ("raw", "") })
        {
            bool isKept = logical == 512 || options.Contains("4096", StringComparison.Ordinal);
            string[] losses = [.. await LossesAsync(source, format, $"size=1M{(options.Length == 0 ? "" : ",")}{options}")];
            Assert.Equal(isKept ? 0 : 1, losses.Length);
            Assert.All(losses, l => Assert.Contains("logical sectors had 4096 bytes and have 512", l, StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task Another_size_snapshots_and_bitmaps_are_told()
    {
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", "size=1M");
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.qcow2"], writable: true))
        {
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("one", DateTimeOffset.UnixEpoch, CancellationToken.None);
            _ = await ((IBitmaps)disk).AddBitmapAsync("b", null, true, CancellationToken.None);
        }
        await using BlockNode source = await Images.OpenAsync(_folder["a.qcow2"]);
        IReadOnlyList<string> losses = await LossesAsync(source, "vpc", "size=1M,force_size=off");
        Assert.Equal(3, losses.Count);
        Assert.Contains("1,048,576", losses[0], StringComparison.Ordinal);
        Assert.StartsWith("1 snapshot inside the source is not copied", losses[1], StringComparison.Ordinal);
        Assert.Equal("1 dirty bitmap of the source is not copied", losses[2]);
        losses = await LossesAsync(source, "qcow2", "size=1M");
        Assert.EndsWith("they are with a request for them", losses[1], StringComparison.Ordinal);
        await using BlockNode snapshot = await ((ISnapshots)source).OpenSnapshotAsync("one", CancellationToken.None);
        Assert.Empty(await LossesAsync(source, "qcow2", "size=1M", snapshot, copiesBitmaps: true));
    }

    private async Task<IReadOnlyList<string>> LossesAsync(
        BlockNode source, string format, string options, BlockNode? disk = null, bool copiesBitmaps = false)
    {
        await Images.CreateAsync(_folder["t"], format, options);
        try
        {
            await using BlockNode target = await Images.OpenAsync(_folder["t"], format);
            return [.. (await ConversionFacts.LossesAsync(
                source, disk ?? source, target, copiesBitmaps, CancellationToken.None)).Select(l => l.ToString())];
        }
        finally
        {
            File.Delete(_folder["t"]); // which Windows refuses while it is open
        }
    }
}
