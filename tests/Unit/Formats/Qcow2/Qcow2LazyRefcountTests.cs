using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Lazy refcounts: fewer barriers while an image is open, nothing lost after a crash, nothing wrong after closing.</summary>
public sealed class Qcow2LazyRefcountTests
{
    private const int Size = 900 << 10;
    private const int IncompatibleAt = 72;

    [Theory]
    [InlineData("cluster_size=4k,lazy_refcounts=on", "")]
    [InlineData("cluster_size=512,lazy_refcounts=on,refcount_bits=1", "l2-cache-size=0,refcount-cache-size=0")]
    [InlineData("cluster_size=16k,extended_l2=on", "lazy-refcounts=on")]
    [InlineData("cluster_size=512", "lazy-refcounts=on,refcount-cache-size=0")]
    public async Task Every_prefix_of_the_writes_opens_clean_and_shows_what_was_flushed(string create, string open)
    {
        byte[] image = await MemoryDisk.NewAsync($"size={Size},{create}");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        var flushed = new Dictionary<int, byte[]>();
        await using (BlockNode disk = await MemoryDisk.OpenAsync(log, options: open))
        {
            await WorkAsync(disk, twin => flushed[log.Count] = twin);
        }
        byte[] last = flushed[flushed.Keys.Max()];
        Assert.True(log.Count > 60 && flushed.Count > 5, $"{log.Count} requests");
        var file = new MemoryNode((byte[])image.Clone());
        int marked = 0;
        for (int prefix = 0; prefix <= log.Count; prefix++)
        {
            if (prefix > 0)
            {
                await WriteLogNode.ReplayAsync(log.Entries[prefix - 1], file);
            }
            if (prefix % 3 != 0 && !flushed.ContainsKey(prefix) && prefix < log.Count - 10)
            {
                continue;
            }
            string what = $"{create}, {prefix} of {log.Count} requests";
            var crashed = new MemoryNode(file.ToArray());
            marked += IsDirty(crashed.ToArray()) ? 1 : 0;
            await using BlockNode disk = await MemoryDisk.OpenAsync(crashed); // repairs what is marked
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(report is { Corruptions: 0, CheckErrors: 0 }, $"{what}: {string.Join("; ", report.Findings)}");
            if (flushed.TryGetValue(prefix, out byte[]? expected) || (prefix == log.Count && (expected = last) is not null))
            {
                byte[] now = new byte[Size];
                await disk.ReadAsync(0, now);
                Assert.True(now.AsSpan().SequenceEqual(expected), $"{what}: what was flushed is gone");
            }
        }
        Assert.True(marked > 5, "the image was never marked");
        Assert.False(IsDirty(file.ToArray()), "the mark is left after closing");
        await MemoryDisk.LeaksAtMostAsync(file.ToArray(), create);
    }

    [Fact]
    public async Task A_flush_has_fewer_barriers_than_with_refcounts_in_order()
    {
        int[] barriers = new int[2];
        foreach (bool lazy in new[] { false, true })
        {
            var log = new WriteLogNode(new MemoryNode(await MemoryDisk.NewAsync($"size={Size},cluster_size=4k")));
            await using BlockNode disk = await MemoryDisk.OpenAsync(log, options: lazy ? "lazy-refcounts=on" : "lazy-refcounts=off");
            await WorkAsync(disk, _ => { });
            barriers[lazy ? 1 : 0] = log.Entries.Count(e => e.Kind == WriteLogKind.Flush);
        }
        Assert.True(barriers[1] < barriers[0], $"{barriers[0]} in order, {barriers[1]} lazily");
    }

    [OracleFact]
    public async Task A_closed_image_is_clean_for_qemu()
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={Size},cluster_size=4k,lazy_refcounts=on");
        byte[] expected = [];
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            await WorkAsync(disk, twin => expected = twin);
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
            await WorkAsync(disk, twin => expected = twin);
            Assert.Equal(0, (await ((ICheckable)disk).CheckAsync(null, CancellationToken.None)).Corruptions);
        }
        await File.WriteAllBytesAsync(folder["a.raw"], expected);
        await Programs.CheckAsync(folder["a.qcow2"]);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.qcow2"], "qcow2");
    }

    [Fact]
    public async Task Version_2_has_none()
    {
        byte[] image = await MemoryDisk.NewAsync("size=1M,compat=0.10");
        var error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await MemoryDisk.OpenAsync(new MemoryNode(image), options: "lazy-refcounts=on"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("lazy-refcounts", error.Message, StringComparison.Ordinal);
    }

    private static bool IsDirty(byte[] image) => (BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(IncompatibleAt)) & 1) != 0;

    /// <summary>Writes, zeroes and discards, with a flush after every eight; each flush hands over what the disk then reads as.</summary>
    private static async Task WorkAsync(BlockNode disk, Action<byte[]> flushed)
    {
        var random = new Random(5);
        byte[] twin = new byte[Size];
        await disk.ReadAsync(0, twin);
        for (int i = 1; i <= 64; i++)
        {
            byte[] data = new byte[random.Next(1, 24) * 512];
            int at = random.Next((Size - data.Length) / 512) * 512;
            if (i % 5 == 0)
            {
                await disk.WriteZeroesAsync(at, data.Length);
            }
            else
            {
                random.NextBytes(data);
                await disk.WriteAsync(at, data);
            }
            data.CopyTo(twin, at);
            if (i % 8 == 0)
            {
                await disk.FlushAsync();
                flushed((byte[])twin.Clone());
            }
        }
    }
}
