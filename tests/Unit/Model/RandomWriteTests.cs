using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Model;

/// <summary>
/// A qcow2 disk and a raw twin in memory under the same random requests, reopened now and then. At the end qemu-img checks the image
/// and compares it with the twin. The seed stands in the test's name; another can be tried with DISKIMAGE_TEST_SEED.
/// </summary>
public sealed class RandomWriteTests
{
    private const int Size = (5 << 20) + 3 * 512;

    public static TheoryData<string, int> Matrix()
    {
        var data = new TheoryData<string, int>();
        int seed = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), out int given) ? given : 1000;
        for (int bits = 9; bits <= 21; bits++)
        {
            data.Add($"cluster_size={1 << bits}", seed++);
        }
        for (int bits = 1; bits <= 64; bits *= 2)
        {
            data.Add($"refcount_bits={bits},cluster_size={(bits % 3 == 1 ? 512 : 4096)}", seed++);
        }
        foreach (string options in new[]
        {
            "compat=0.10", "compat=0.10,cluster_size=512", "compat=0.10,cluster_size=2M", "lazy_refcounts=on",
            "preallocation=metadata",
            "preallocation=metadata,cluster_size=512",
            "preallocation=falloc",
            "preallocation=full",
            "preallocation=full,compat=0.10,cluster_size=4k",
            "backing_file=base.raw,backing_fmt=raw", "backing_file=base.raw,backing_fmt=raw,cluster_size=512,refcount_bits=64",
            "backing_file=base.raw,backing_fmt=raw,cluster_size=2M", "backing_file=base.raw,backing_fmt=raw,compat=0.10,cluster_size=8k",
            "backing_file=base.qcow2,backing_fmt=qcow2,cluster_size=16k",
            "backing_file=base.qcow2,backing_fmt=qcow2,cluster_size=1k,compat=0.10",
        })
        {
            data.Add(options, seed++);
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Matrix))]
    public async Task The_disk_reads_as_its_twin(string options, int seed)
    {
        using var folder = new TestFolder();
        var random = new Random(seed);
        byte[] twin = await MakeAsync(folder, options, random);
        for (int session = 0; session < 3; session++)
        {
            string caches = session == 1 ? "l2-cache-size=0,refcount-cache-size=0" : "";
            await using BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"], writable: true, options: caches);
            await RequestsAsync(disk, twin, random, count: 40);
        }
        await AgreeAsync(folder, twin);
    }

    [OracleTheory]
    [InlineData("", 1)]
    [InlineData("cluster_size=512", 2)]
    [InlineData("cluster_size=2M", 3)]
    [InlineData("backing_file=base.qcow2,backing_fmt=qcow2,cluster_size=32k", 4)]
    [InlineData("compat=0.10,backing_file=base.raw,backing_fmt=raw,cluster_size=4k", 5)]
    public async Task Tasks_that_write_side_by_side_do_not_disturb_each_other(string options, int seed)
    {
        const int Tasks = 6, Part = Size / Tasks;
        using var folder = new TestFolder();
        byte[] twin = await MakeAsync(folder, options, new Random(seed));
        await using (BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"], writable: true, options: "l2-cache-size=0"))
        {
            await Task.WhenAll(Enumerable.Range(0, Tasks).Select(
                task => Task.Run(() => RequestsAsync(disk, twin, new Random((seed * 100) + task), 40, task * Part, Part))));
        }
        await AgreeAsync(folder, twin);
    }

    [OracleTheory]
    [InlineData("cluster_size=512", 1)]
    [InlineData("cluster_size=4k,refcount_bits=1", 2)]
    [InlineData("cluster_size=64k,backing_file=base.raw,backing_fmt=raw", 3)]
    public async Task Where_tasks_overlap_every_sector_is_one_of_theirs(string options, int seed)
    {
        const int Sectors = 1500, Tasks = 6;
        using var folder = new TestFolder();
        _ = await MakeAsync(folder, options, new Random(seed));
        var model = new SectorModel(new int[Sectors]);
        await using (BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"], writable: true))
        {
            await disk.WriteZeroesAsync(0, Sectors * SectorModel.Bytes);
            List<GuestOperation>[] sequences =
            [
                .. Enumerable.Range(0, Tasks).Select(task => GuestOperation.Sequence(
                    (seed * 100) + task, Sectors, 60, 200, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Flush)
                    .Select(o => o with { Tag = o.Tag == 0 ? 0 : o.Tag + ((task + 1) * 1000) }).ToList()),
            ];
            await Task.WhenAll(sequences.Select(sequence => Task.Run(async () =>
            {
                foreach (GuestOperation operation in sequence)
                {
                    await operation.RunAsync(disk);
                }
            })));
            foreach (GuestOperation operation in sequences.SelectMany(s => s))
            {
                model.Began(operation);
            }
        }
        await using (BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"]))
        {
            await model.VerifyAsync(disk, crashed: true);
        }
        await Programs.CheckAsync(folder["disk.qcow2"]);
    }

    /// <summary>A new image, over a backing image that is shorter if the options name one; returns what it reads as.</summary>
    private static async Task<byte[]> MakeAsync(TestFolder folder, string options, Random random)
    {
        byte[] twin = new byte[Size];
        if (options.Contains("backing_file", StringComparison.Ordinal))
        {
            const int BackingSize = (3 << 20) + 512;
            await Images.MakeRawAsync(folder["base.raw"], BackingSize, random.Next(), unit: 24576);
            await Images.ConvertAsync(
                folder["base.raw"], "raw", folder["base.qcow2"], "qcow2", "cluster_size=8k", new() { Compress = true });
            (await File.ReadAllBytesAsync(folder["base.raw"])).CopyTo(twin, 0);
        }
        await Images.CreateAsync(folder["disk.qcow2"], "qcow2", $"size={Size},{options}");
        return twin;
    }

    private static async Task AgreeAsync(TestFolder folder, byte[] twin)
    {
        await using (BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"]))
        {
            byte[] all = new byte[Size];
            await disk.ReadAsync(0, all);
            int same = twin.AsSpan().CommonPrefixLength(all);
            Assert.True(same == Size, $"differs at {same}");
        }
        await File.WriteAllBytesAsync(folder["twin.raw"], twin);
        await Programs.CheckAsync(folder["disk.qcow2"]);
        await Programs.CompareAsync(folder["twin.raw"], "raw", folder["disk.qcow2"], "qcow2");
    }

    /// <summary>Random requests in [start, start + length) of a disk and its twin; reads are compared at once.</summary>
    private static async Task RequestsAsync(BlockNode disk, byte[] twin, Random random, int count, int start = 0, int length = Size)
    {
        for (int i = 0; i < count; i++)
        {
            int bytes = Math.Min(1 + random.Next(1 << random.Next(1, 20)), length);
            int offset = start + random.Next(length - bytes + 1);
            if (random.Next(3) == 0) // whole clusters, of some cluster size
            {
                int unit = 512 << random.Next(8);
                int aligned = (offset + unit - 1) / unit * unit;
                bytes = Math.Max(1, Math.Min(start + length - aligned, (bytes + unit - 1) / unit * unit));
                offset = Math.Min(aligned, start + length - bytes);
            }
            Memory<byte> range = twin.AsMemory(offset, bytes);
            switch (random.Next(9))
            {
                case 0 or 1 or 2 or 3:
                    random.NextBytes(range.Span);
                    await disk.WriteAsync(offset, range);
                    break;
                case 4:
                    range.Span.Clear();
                    await disk.WriteZeroesAsync(offset, bytes, ZeroWriteMode.MayUnmap);
                    break;
                case 5:
                    range.Span.Clear();
                    await disk.WriteZeroesAsync(offset, bytes, ZeroWriteMode.KeepAllocated);
                    break;
                case 6:
                    await disk.DiscardAsync(offset, bytes);
                    await disk.ReadAsync(offset, range); // undefined, but from here on it stays what it is
                    break;
                case 7:
                    await disk.FlushAsync();
                    break;
                default:
                    byte[] read = new byte[bytes];
                    await disk.ReadAsync(offset, read);
                    Assert.True(range.Span.SequenceEqual(read), $"request {i}: {bytes} bytes at {offset}");
                    break;
            }
        }
    }
}
