using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>An overlay grows over a backing file that is longer than it was: that file's old data past the end never shows.</summary>
public sealed class Qcow2GrowCrashTests
{
    private const int Old = (100 << 10) + 512, New = 900 << 10; // the old end lies inside a cluster

    [Theory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    [InlineData("cluster_size=4k,compat=0.10")]
    public async Task Every_prefix_shows_the_old_disk_or_zeroes_behind_it(string options)
    {
        byte[] below = new byte[New - 5_120];
        Array.Fill(below, (byte)0xBB);
        var image = new MemoryNode([]);
        var driver = (ICreatable)Images.Registry.Format("qcow2");
        await driver.CreateAsync(
            new FormatCreateContext(
                image, driver.CreateOptions.Bind(OptionSchema.Split($"size={Old},backing_file=below,backing_fmt=raw,{options}"))),
            CancellationToken.None);
        byte[] expected = new byte[New];
        below.AsSpan(0, Old).CopyTo(expected);

        var log = new WriteLogNode(new MemoryNode(image.ToArray()));
        await using (BlockNode disk = await OpenAsync(log, below))
        {
            await disk.ResizeAsync(New);
        }
        var file = new MemoryNode(image.ToArray());
        Assert.NotEmpty(log.Entries);
        long length = Old;
        for (int prefix = 0; prefix <= log.Entries.Count; prefix++)
        {
            if (prefix > 0)
            {
                await WriteLogNode.ReplayAsync(log.Entries[prefix - 1], file);
            }
            await using BlockNode disk = await OpenAsync(new MemoryNode(file.ToArray()), below);
            length = disk.Length;
            Assert.True(length is Old or New, $"{options}, {prefix} of {log.Entries.Count} requests: {length} bytes");
            byte[] now = new byte[length];
            await disk.ReadAsync(0, now);
            Assert.True(
                now.AsSpan().SequenceEqual(expected.AsSpan(0, (int)length)),
                $"{options}, {prefix} of {log.Entries.Count} requests: old backing data shows");
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(
                report.Corruptions == 0, $"{options}, {prefix} of {log.Entries.Count} requests: {string.Join("; ", report.Findings)}");
        }
        Assert.Equal(New, length);
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, byte[] below)
    {
        FormatDriver driver = Images.Registry.Format("qcow2");
        return driver.OpenAsync(
            new FormatOpenContext(
                file,
                driver.OpenOptions.Defaults(),
                (_, _, _) => new(new MemoryNode(below)),
                (_, _, _) => throw new InvalidOperationException()),
            CancellationToken.None);
    }
}
