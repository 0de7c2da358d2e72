using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Changes of the whole image and what they leave behind.</summary>
public sealed class Qcow2WholeImageTests
{
    /// <summary>A disk that ends inside a cluster is cut inside the same cluster, then grown again.</summary>
    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=64k,compat=0.10")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    public async Task What_was_cut_off_does_not_come_back(string options)
    {
        const int Before = 100 << 10, Cut = 90 << 10, After = 110 << 10;
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(await MemoryDisk.NewAsync($"size={Before},{options}")));
        byte[] data = new byte[Before];
        Array.Fill(data, (byte)0x5A);
        await disk.WriteAsync(0, data);
        await disk.ResizeAsync(Cut);
        await disk.ResizeAsync(After);
        byte[] now = new byte[After];
        await disk.ReadAsync(0, now);
        Assert.Equal(Cut, now.AsSpan().LastIndexOfAnyExcept((byte)0) + 1);
    }

    /// <summary>An external data file's clusters have no refcounts that could be lowered.</summary>
    [Theory]
    [InlineData("")]
    [InlineData(",data_file_raw=on")]
    public async Task An_image_with_an_external_data_file_is_cut_and_emptied(string options)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"], dataFile = folder["a.data"];
        await Images.CreateAsync(path, "qcow2", $"size={200 << 10},cluster_size=512,data_file={dataFile}{options}");
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            byte[] data = new byte[disk.Length];
            Array.Fill(data, (byte)0x5A);
            await disk.WriteAsync(0, data);
            await disk.ResizeAsync(100 << 10); // whole L2 tables go
        }
        new Qcow2SpecReader(await File.ReadAllBytesAsync(path), await File.ReadAllBytesAsync(dataFile)).RequireSound("cut");
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            byte[] now = new byte[100 << 10];
            await disk.ReadAsync(0, now);
            Assert.Equal(-1, now.AsSpan().IndexOfAnyExcept((byte)0x5A));
            await ((IEmptiable)disk).MakeEmptyAsync(CancellationToken.None);
        }
        new Qcow2SpecReader(await File.ReadAllBytesAsync(path), await File.ReadAllBytesAsync(dataFile)).RequireSound("emptied");
    }

    /// <summary>Three compressed clusters share a host cluster: two bits cannot count them twice.</summary>
    [Fact]
    public async Task A_refused_snapshot_leaves_no_trace_in_what_is_written_later()
    {
        const int Cluster = 64 << 10;
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={20 * Cluster},refcount_bits=2"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            byte[] cluster = new byte[Cluster], packed = new byte[Cluster];
            Array.Fill(cluster, (byte)0x5A);
            foreach (int i in new[] { 3, 2, 1, 0 }) // not in a row in the file: some are counted before the refusal
            {
                await disk.WriteAsync(i * Cluster, cluster);
            }
            int length = ((ICompressedWritable)disk).Compress(cluster, packed)!.Value;
            for (int i = 4; i < 7; i++)
            {
                await ((ICompressedWritable)disk).WriteCompressedAsync(i * Cluster, packed.AsMemory(0, length), CancellationToken.None);
            }
            var error = await Assert.ThrowsAsync<DiskImageException>(
                async () => await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.OutOfRange, error.Kind);
            await disk.WriteAsync(10 * Cluster, cluster);
        }
        new Qcow2SpecReader(file.ToArray()).RequireSound("after a refused snapshot");
    }
}
