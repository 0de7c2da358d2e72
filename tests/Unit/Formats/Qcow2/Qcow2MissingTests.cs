using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// Files that end before what their tables lead to: copies that were cut short. What is missing is an error, never silently zeroes; what a
/// cluster that is there in part lacks reads as zeroes, for good images end so, too.
/// </summary>
public sealed class Qcow2MissingTests
{
    private const int Size = 600 << 10;

    [Theory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=4k,compat=0.10")]
    [InlineData("cluster_size=16k,extended_l2=on")]
    [InlineData("cluster_size=64k")]
    public async Task A_file_that_was_cut_reads_right_or_not_at_all(string options)
    {
        (byte[] image, byte[] contents, int cluster) = await MakeAsync(options);
        int start = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(40)); // before its L1 table nothing can be opened
        int missing = 0;
        for (int cut = start; cut < image.Length; cut += Math.Max(512, (image.Length - start) / 97 / 512 * 512))
        {
            missing += await ReadAllAsync(image[..cut], contents, cluster, $"{options}, cut at {cut:#,0} of {image.Length:#,0}");
        }
        Assert.True(missing > 100, $"only {missing} reads failed");
    }

    [Fact]
    public async Task The_error_says_where_and_what_to_do()
    {
        (byte[] image, _, _) = await MakeAsync("cluster_size=64k");
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image[..(400 << 10)]));
        BlockExtent last = default;
        for (long at = 0; at < Size; at = last.End)
        {
            try
            {
                last = await disk.GetExtentAsync(at, 1);
            }
            catch (DiskImageException e)
            {
                Assert.Equal((DiskImageErrorKind.Corrupt, "memory"), (e.Kind, e.Path));
                Assert.Contains($"guest offset {at:#,0}", e.Message, StringComparison.Ordinal);
                Assert.Contains($"host offset {e.Offset:#,0}", e.Message, StringComparison.Ordinal);
                Assert.Contains("only 409,600 bytes", e.Message, StringComparison.Ordinal);
                Assert.Contains("missing-clusters=zero", e.Message, StringComparison.Ordinal);
                DiskImageException write = await Assert.ThrowsAsync<DiskImageException>(() => disk.WriteAsync(at, new byte[512]).AsTask());
                Assert.Equal(DiskImageErrorKind.Corrupt, write.Kind);
                return;
            }
        }
        Assert.Fail("nothing was missing");
    }

    /// <summary>Whoever asks for all is told of what is there first: the first entry that is wrong is the error of whoever asks there.</summary>
    [Theory]
    [InlineData("cluster_size=512")] // its tables are many
    [InlineData("cluster_size=64k")]
    public async Task Extents_end_before_what_is_missing(string options)
    {
        (byte[] image, _, _) = await MakeAsync(options);
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image[..(image.Length * 2 / 3)], readOnly: true));
        (long one, long all) = (await FirstMissingAsync(at => 1), await FirstMissingAsync(at => Size - at));
        Assert.InRange(one, 1, Size - 1);
        Assert.Equal(one, all);

        async Task<long> FirstMissingAsync(Func<long, long> length)
        {
            long at = 0;
            try
            {
                while (at < Size)
                {
                    at = (await disk.GetExtentAsync(at, length(at))).End;
                }
            }
            catch (DiskImageException)
            {
                // There.
            }
            return at;
        }
    }

    /// <summary>On request what is missing reads as zeroes; qemu-img is the judge.</summary>
    [OracleTheory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    public async Task On_request_it_reads_as_QEMU_does(string options)
    {
        using var folder = new TestFolder();
        (byte[] image, _, _) = await MakeAsync(options);
        foreach (int cut in new[] { image.Length / 2, (image.Length / 4 * 3) + 512, image.Length - 512 })
        {
            await File.WriteAllBytesAsync(folder["cut.qcow2"], image[..cut]);
            await Programs.QemuImgAsync("convert", "-f", "qcow2", "-O", "raw", folder["cut.qcow2"], folder["cut.raw"]);
            await using BlockNode disk = await Images.OpenAsync(folder["cut.qcow2"], options: "missing-clusters=zero");
            byte[] contents = new byte[Size];
            await disk.ReadAsync(0, contents);
            byte[] expected = await File.ReadAllBytesAsync(folder["cut.raw"]);
            Assert.True(contents.AsSpan().SequenceEqual(expected), $"{options}, {cut}");
        }
    }

    /// <summary>A check sees what reading would; after a repair all of it can be read, and qemu-img agrees.</summary>
    [OracleTheory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    public async Task A_check_finds_it_and_a_repair_makes_it_readable(string options)
    {
        using var folder = new TestFolder();
        (byte[] image, byte[] contents, int cluster) = await MakeAsync(options);
        int start = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(40)) + 512; // without an L1 table nothing can be told
        for (int cut = start; cut < image.Length; cut += Math.Max(512, (image.Length - start) / 23 / 512 * 512))
        {
            string what = $"{options}, cut at {cut:#,0} of {image.Length:#,0}";
            bool isReadable = await ReadAllAsync(image[..cut], contents, cluster, what) == 0;
            CheckReport found;
            await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image[..cut], readOnly: true), forRepair: true))
            {
                found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            }
            Assert.True(isReadable || found.Corruptions > 0, $"{what}: cannot be read, and the check finds nothing");
            var file = new MemoryNode(image[..cut]);
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true))
            {
                CheckReport left = await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None);
                Assert.True(left.Corruptions == 0, $"{what}: {string.Join('\n', left.Findings.Take(3))}");
            }
            await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true)))
            {
                await disk.ReadAsync(0, new byte[Size]);
            }
            await File.WriteAllBytesAsync(folder["mended.qcow2"], file.ToArray());
            await Programs.CheckAsync(folder["mended.qcow2"]);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData(",data_file_raw=on")]
    public async Task A_data_file_that_was_cut_is_an_error_where_it_is_missing(string options)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={Size},data_file={folder["a.data"]}{options}");
        byte[] data = new byte[Size];
        Array.Fill(data, (byte)0x5A);
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            await disk.WriteAsync(0, data);
        }
        await using (FileStream file = File.OpenWrite(folder["a.data"]))
        {
            file.SetLength(100_000); // inside the second cluster
        }
        await using BlockNode cut = await Images.OpenAsync(folder["a.qcow2"]);
        byte[] got = new byte[128 << 10];
        await cut.ReadAsync(0, got);
        Assert.Equal(100_000, got.AsSpan().IndexOfAnyExcept((byte)0x5A));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => cut.ReadAsync(128 << 10, new byte[512]).AsTask());
        Assert.Equal((DiskImageErrorKind.Corrupt, folder["a.data"]), (error.Kind, error.Path));
    }

    /// <summary>Reads a cut image cluster by cluster; the number of clusters that cannot be read.</summary>
    private static async Task<int> ReadAllAsync(byte[] image, byte[] contents, int cluster, string what)
    {
        BlockNode disk;
        try
        {
            disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        }
        catch (DiskImageException e)
        {
            Assert.True(e.Kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat, $"{what}: {e.Message}");
            return 1;
        }
        int failed = 0, partial = 0;
        await using (disk)
        {
            for (int at = 0; at < Size; at += cluster)
            {
                byte[] got = new byte[Math.Min(cluster, Size - at)];
                try
                {
                    await disk.ReadAsync(at, got);
                }
                catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
                {
                    failed++;
                    continue;
                }
                ReadOnlySpan<byte> right = contents.AsSpan(at, got.Length);
                if (!got.AsSpan().SequenceEqual(right))
                {
                    int same = got.AsSpan().CommonPrefixLength(right);
                    Assert.True(same > 0 && !got.AsSpan(same).ContainsAnyExcept((byte)0), $"{what}: guest offset {at:#,0} reads wrong");
                    partial++;
                }
            }
        }
        Assert.True(partial <= 1, $"{what}: {partial} clusters read as zeroes in part; a file ends in one of them at most");
        return failed;
    }

    /// <summary>An image whose clusters are all written, in no order, none with a zero in it.</summary>
    private static async Task<(byte[] Image, byte[] Contents, int Cluster)> MakeAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},{options}"));
        byte[] contents = new byte[Size];
        var random = new Random(11);
        for (int i = 0; i < Size; i++)
        {
            contents[i] = (byte)random.Next(1, 256);
        }
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            int[] pieces = [.. Enumerable.Range(0, 75)];
            random.Shuffle(pieces);
            foreach (int piece in pieces)
            {
                await disk.WriteAsync(piece * 8192, contents.AsMemory(piece * 8192, 8192));
            }
        }
        byte[] image = file.ToArray();
        return (image, contents, 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20)));
    }
}
