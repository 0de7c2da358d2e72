using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Compacting: the disk, its snapshots and its bitmaps stay as they are, and the file has no gap left.</summary>
public sealed class Qcow2CompactTests
{
    public static TheoryData<string, int> Shapes()
    {
        var data = new TheoryData<string, int>();
        foreach (string options in CompactImage.Options)
        {
            foreach (int seed in Enumerable.Range(1, 6))
            {
                data.Add(options, seed);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Everything_reads_the_same_and_no_gap_is_left(string options, int seed)
    {
        string what = $"{options}, seed {seed}";
        byte[] image = await CompactImage.MakeAsync(options, seed, operations: 60);
        CompactImage before = await CompactImage.ReadAsync(image);
        var file = new MemoryNode((byte[])image.Clone());
        long again;
        await using (BlockNode disk = await CompactImage.OpenAsync(file))
        {
            long saved = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            Assert.Equal(image.Length - file.Length, saved);
            again = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        byte[] compact = file.ToArray();
        before.SameAs(await CompactImage.ReadAsync(compact), what);
        CheckReport report = await MemoryDisk.LeaksAtMostAsync(compact, what);
        // packed anew it may fit better
        Assert.True(again == 0 || report.CompressedClusters > 0, $"{what}: {again} bytes shorter when compacted again");
        Assert.True(report.Leaks == 0, $"{what}: {report.Leaks} leaks");
        (long clusters, long used) = await CompactImage.CountAsync(compact);
        Assert.True(clusters == used
            || report.CompressedClusters > 0, $"{what}: {clusters} clusters, {used} in use; before: "
                + $"{await CompactImage.CountAsync(image)}");
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task A_disk_that_was_compacted_is_written_to_like_any_other(string options, int seed)
    {
        string what = $"{options}, seed {seed}";
        var file = new MemoryNode(await CompactImage.MakeAsync(options, seed, operations: 30));
        byte[] expected;
        await using (BlockNode disk = await CompactImage.OpenAsync(file))
        {
            expected = new byte[disk.Length];
            await disk.ReadAsync(0, expected);
            for (int round = 0; round < 3; round++)
            {
                _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
                var random = new Random(seed + round);
                for (int i = 0; i < 10; i++)
                {
                    byte[] data = new byte[random.Next(1, 20_000)];
                    random.NextBytes(data);
                    int at = random.Next(expected.Length - data.Length);
                    await disk.WriteAsync(at, data);
                    data.CopyTo(expected, at);
                }
                if (disk is IBitmaps bitmaps && round == 1 && !options.Contains("0.10", StringComparison.Ordinal))
                {
                    _ = await bitmaps.AddBitmapAsync("later", 512, enabled: true, CancellationToken.None);
                }
            }
        }
        byte[] now = (await CompactImage.ReadAsync(file.ToArray())).Active;
        Assert.True(now.AsSpan().SequenceEqual(expected), what);
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), what)).Leaks);
    }

    [Fact]
    public async Task Zeroes_cost_nothing_afterwards()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=8M,cluster_size=4k"));
        long empty = file.Length;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[4 << 20]);
            await disk.WriteZeroesAsync(5 << 20, 1 << 20, ZeroWriteMode.KeepAllocated);
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        Assert.True(file.Length <= empty, $"{file.Length} bytes; {empty} when new");
    }

    [Fact]
    public async Task Leaks_are_given_back_and_corruptions_are_refused()
    {
        byte[] image = await CompactImage.MakeAsync("cluster_size=4k", 5, operations: 30);
        byte[] leaking = [.. image, .. new byte[40960]];
        long table = BigEndianAt(leaking, 48), block = BigEndianAt(leaking, (int)table);
        leaking[block + (image.Length / 4096 * 2) + 1] = 1; // a cluster behind the end is counted
        var file = new MemoryNode(leaking);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "leaking")).Leaks);
        Assert.True(file.Length <= image.Length);

        byte[] damaged = (byte[])image.Clone();
        damaged[block + 1] = 0; // the header is said to be free
        var bad = new MemoryNode((byte[])damaged.Clone());
        await using (BlockNode disk = await MemoryDisk.OpenAsync(bad))
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                async () => await ((ICompactable)disk).CompactAsync(null, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        }
        Assert.Equal(damaged, bad.ToArray());
    }

    [Fact]
    public async Task A_disk_that_is_not_open_for_writing_is_refused()
    {
        byte[] image = await CompactImage.MakeAsync("cluster_size=4k", 5, operations: 10);
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ((ICompactable)disk).CompactAsync(null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
    }

    [Theory]
    [InlineData("cluster_size=512,refcount_bits=64", 6 << 20)] // a refcount table of many clusters
    [InlineData("cluster_size=512", 3 << 20)] // an L1 table of many clusters
    [InlineData("cluster_size=2M", 64 << 20)]
    public async Task Tables_of_many_clusters_shrink_and_move(string options, int size)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={size},{options}"));
        byte[] kept = new byte[size / 100];
        new Random(1).NextBytes(kept);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            byte[] data = new byte[1 << 20];
            for (int at = 0; at < size; at += data.Length)
            {
                new Random(at).NextBytes(data);
                await disk.WriteAsync(at, data.AsMemory(0, Math.Min(data.Length, size - at)));
            }
            await disk.ResizeAsync(size * 4L);
            await disk.DiscardAsync(0, size);
            await disk.WriteAsync(size - kept.Length, kept);
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            byte[] got = new byte[kept.Length];
            await disk.ReadAsync(size - kept.Length, got);
            Assert.Equal(kept, got);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), options)).Leaks);
        (long clusters, long used) = await CompactImage.CountAsync(file.ToArray());
        // a table does not move into a gap that it touches
        Assert.True(clusters - used < 8, $"{options}: {clusters} clusters, {used} in use");
    }

    [Fact]
    public async Task A_disk_of_no_bytes_stays_as_it_is()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=0"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            await disk.ResizeAsync(1 << 20);
            await disk.WriteAsync(0, new byte[512]);
        }
        _ = await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "size=0");
    }

    private static long BigEndianAt(byte[] bytes, int at) => System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(at));
}
