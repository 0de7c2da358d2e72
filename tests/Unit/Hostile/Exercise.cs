using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Jobs;
using DiskImage.Tests.Campaign;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Hostile;

/// <summary>
/// Does everything with an image that may be damaged. Only <see cref="DiskImageException"/> may come of it, in bounded work and memory,
/// and an image that does not open stays as it is.
/// </summary>
internal static class Exercise
{
    /// <summary>
    /// In all, over several openings, checks and repairs, each with an L1 table as large as QEMU allows and a message for every bad
    /// entry of it. Little of that at once.
    /// </summary>
    private const long MostBytes = 1L << 30;

    /// <summary>Read and written in all, likewise. What asks for nothing and does not end, the test run ends.</summary>
    private const long MostTransferred = 4L << 30;

    /// <summary>Reads, maps, checks, writes and repairs; the kinds of the errors it met.</summary>
    public static async Task<List<DiskImageErrorKind>> RunAsync(byte[] image, string what)
    {
        var errors = new Trial();
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            await LookAsync(image, errors);
            await ChangeAsync(image, errors);
            await RepairAsync(image, errors);
        }
        catch (Exception e) when (e is not Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e}");
        }
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        long transferred = errors.Files.Sum(f => f.Bytes);
        Assert.True(allocated < MostBytes, $"{what}: {allocated:#,0} bytes allocated");
        Assert.True(transferred < MostTransferred, $"{what}: {transferred:#,0} bytes read and written");
        return errors;
    }

    private static async Task LookAsync(byte[] image, Trial errors)
    {
        if (await OpenAsync(image, new MemoryNode(image, readOnly: true), errors) is not { } disk)
        {
            return;
        }
        await using (disk)
        {
            _ = ((IDescribed)disk).Describe();
            byte[] buffer = new byte[1 << 20];
            int part = (int)Math.Min(buffer.Length, disk.Length);
            await TryAsync(errors, () => disk.ReadAsync(0, buffer.AsMemory(0, part)));
            await TryAsync(errors, () => disk.ReadAsync(disk.Length - part, buffer.AsMemory(0, part)));
            await TryAsync(errors, async () =>
            {
                int extents = 0;
                await foreach (BlockExtent extent in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
                {
                    if (++extents == 2000)
                    {
                        break;
                    }
                }
            });
            await TryAsync(errors, async () => _ = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None));
        }
    }

    private static async Task ChangeAsync(byte[] image, Trial errors)
    {
        var file = new MemoryNode((byte[])image.Clone());
        if (await OpenAsync(image, file, errors) is not { } disk)
        {
            return;
        }
        byte[] data = new byte[70_000];
        Array.Fill(data, (byte)0x77);
        long last = Math.Max(0, disk.Length - data.Length);
        int part = (int)Math.Min(data.Length, disk.Length);
        foreach (long offset in new[] { 0, last / 2, last })
        {
            await TryAsync(errors, () => disk.WriteAsync(offset, data.AsMemory(0, part)));
            await TryAsync(errors, () => disk.WriteZeroesAsync(offset, part));
            await TryAsync(errors, () => disk.DiscardAsync(offset, part));
            await TryAsync(errors, () => disk.FlushAsync());
        }
        await TryAsync(errors, disk.DisposeAsync);
    }

    private static async Task RepairAsync(byte[] image, Trial errors)
    {
        foreach (RepairMode mode in new[] { RepairMode.Leaks, RepairMode.All })
        {
            var file = new MemoryNode((byte[])image.Clone());
            if (await OpenAsync(image, file, errors, forRepair: true) is not { } disk)
            {
                return;
            }
            await TryAsync(errors, async () => _ = await ((IRepairable)disk).RepairAsync(mode, null, CancellationToken.None));
            await TryAsync(errors, disk.DisposeAsync);
        }
    }

    private static async Task<BlockNode?> OpenAsync(byte[] image, MemoryNode file, Trial errors, bool forRepair = false)
    {
        byte[] before = (byte[])image.Clone();
        try
        {
            var counted = new CountingNode(file);
            errors.Files.Add(counted);
            return await MemoryDisk.OpenAsync(counted, forRepair: forRepair);
        }
        catch (DiskImageException e)
        {
            errors.Add(e.Kind);
            Assert.True(before.AsSpan().SequenceEqual(file.ToArray()), $"a failed open changed the image: {e.Message}");
            Assert.False(file.IsClosed, "a failed open closed the file");
            return null;
        }
    }

    private static async Task TryAsync(Trial errors, Func<ValueTask> action)
    {
        try
        {
            await action();
        }
        catch (DiskImageException e)
        {
            errors.Add(e.Kind);
        }
    }

    /// <summary>Images that exercise every structure, each by a name.</summary>
    public static async Task<byte[]> ImageAsync(string name)
    {
        byte[] contents = new byte[(1 << 20) + 1024];
        var random = new Random(1);
        for (int at = 0; at + 3000 < contents.Length; at += 9000)
        {
            random.NextBytes(contents.AsSpan(at, 3000));
        }
        string size = $"size={contents.Length}";
        return name switch
        {
            "v3" => await FilledAsync($"{size},cluster_size=4k"),
            "v2" => await FilledAsync($"{size},compat=0.10,cluster_size=1k"),
            "tiny" => await FilledAsync($"{size},cluster_size=512,refcount_bits=1"),
            "wide" => await FilledAsync($"{size},cluster_size=64k,refcount_bits=64"),
            "backing" => await FilledAsync($"{size},cluster_size=4k,backing_file=base.raw,backing_fmt=raw"),
            "compressed" => await MemoryDisk.CompressedAsync(contents, ",cluster_size=4k"),
            _ => throw new ArgumentOutOfRangeException(nameof(name), name, null),
        };

        async Task<byte[]> FilledAsync(string options)
        {
            var file = new MemoryNode();
            await MemoryDisk.CreateAsync(file, options);
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                await Images.FillAsync(disk, contents);
                await disk.WriteZeroesAsync(200_000, 100_000);
            }
            return file.ToArray();
        }
    }

    /// <summary>The places of an image's structures: header, tables, refcount blocks.</summary>
    public static async Task<List<(long Offset, int Length)>> StructuresAsync(byte[] image)
    {
        await using var disk = (Qcow2Node)await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        Qcow2Header header = disk.Header;
        int cluster = header.ClusterSize;
        var places = new List<(long, int)> { (0, 512), (header.L1TableOffset, header.L1Size * 8), (header.RefcountTableOffset, 64) };
        foreach ((long table, int entries) in new[] { (header.L1TableOffset, header.L1Size), (header.RefcountTableOffset, cluster / 8) })
        {
            for (int i = 0; i < entries; i++)
            {
                long place = L2Entry.OffsetOf(BigEndian.U64(image, (int)table + (i * 8)));
                if (place != 0)
                {
                    places.Add((place, Math.Min(cluster, 512)));
                }
            }
        }
        return places;
    }

    /// <summary>The errors that one image led to, and the files that it was opened as.</summary>
    private sealed class Trial : List<DiskImageErrorKind>
    {
        public List<CountingNode> Files { get; } = [];
    }
}
