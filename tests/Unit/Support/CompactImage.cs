using DiskImage.Block;
using DiskImage.Formats.Qcow2;

namespace DiskImage.Tests.Support;

/// <summary>What a qcow2 image shows: its disk, its snapshots, its bitmaps. And images with gaps of every kind to compact.</summary>
internal sealed class CompactImage
{
    private const int Size = 1 << 20;
    private static readonly byte[] s_backing = SectorModel.Data(0, (Size / 2) / SectorModel.Bytes, 77);

    /// <summary>Create options to try; "backing" stands on another image.</summary>
    public static IReadOnlyList<string> Options { get; } =
    [
        "cluster_size=512", "cluster_size=4k", "cluster_size=4k,compat=0.10", "cluster_size=64k", "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,lazy_refcounts=on",
        "cluster_size=1k,refcount_bits=1",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=2",
        "cluster_size=4k,backing_file=b,backing_fmt=raw",
        "cluster_size=4k,compat=0.10,backing_file=b,backing_fmt=raw",
        "cluster_size=16k,extended_l2=on,backing_file=b,backing_fmt=raw",
    ];

    public required byte[] Active { get; init; }
    public required IReadOnlyDictionary<string, byte[]> Snapshots { get; init; }
    public required IReadOnlyList<string> Bitmaps { get; init; }

    /// <summary>Opens one with a cache so small that tables are read anew all the time, and moved in many batches.</summary>
    public static ValueTask<BlockNode> OpenAsync(BlockNode file) => MemoryDisk.OpenAsync(file, s_backing, "l2-cache-size=4k");

    /// <summary>An image that was written to, zeroed, discarded, packed and snapshot at random.</summary>
    public static async Task<byte[]> MakeAsync(string options, int seed, int operations)
    {
        var random = new Random(seed);
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},{options}"));
        await using BlockNode disk = await OpenAsync(file);
        bool isV2 = options.Contains("0.10", StringComparison.Ordinal);
        int mostSnapshots = options.Contains("refcount_bits=1", StringComparison.Ordinal)
            ? 0
            : options.Contains("refcount_bits=2", StringComparison.Ordinal) ? 1 : 5;
        var names = new List<string>();
        for (int step = 0; step < operations; step++)
        {
            int count = random.Next(1, random.Next(2, 90)) * 512, offset = random.Next((Size - count) / 512) * 512;
            switch (random.Next(12))
            {
                case 0:
                    await disk.WriteAsync(offset, new byte[count]);
                    break;
                case 1:
                    await disk.WriteZeroesAsync(offset, count, (ZeroWriteMode)random.Next(2));
                    break;
                case 2 or 3:
                    await disk.DiscardAsync(offset, Math.Min(Size - offset, count * 3));
                    break;
                case 4 when names.Count < mostSnapshots:
                    names.Add(
                        (await ((ISnapshots)disk).CreateSnapshotAsync($"s{step}", DateTimeOffset.UnixEpoch, CancellationToken.None)).Name);
                    break;
                case 5 when names.Count > 1:
                    string gone = names[random.Next(names.Count)];
                    _ = names.Remove(gone);
                    _ = await ((ISnapshots)disk).DeleteSnapshotAsync(gone, CancellationToken.None);
                    break;
                case 6 when names.Count > 0 && (isV2 || (await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None)).Count == 0):
                    _ = await ((ISnapshots)disk).RestoreSnapshotAsync(names[random.Next(names.Count)], CancellationToken.None);
                    break;
                case 7 when !isV2 && step > operations / 2:
                    _ = await ((IBitmaps)disk).AddBitmapAsync(
                        $"b{step}", 512L << random.Next(4), random.Next(2) == 0, CancellationToken.None);
                    break;
                case 8 when seed % 2 == 0:
                    await PackAsync(disk, random, offset, count);
                    break;
                default:
                    byte[] data = new byte[count];
                    random.NextBytes(data);
                    await disk.WriteAsync(offset, data);
                    break;
            }
        }
        await disk.DisposeAsync();
        return file.ToArray();
    }

    public static async Task<CompactImage> ReadAsync(byte[] image)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(image, readOnly: true));
        var snapshots = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        foreach (DiskSnapshot snapshot in await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None))
        {
            await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync(snapshot.Id, CancellationToken.None);
            snapshots.Add($"{snapshot}", await AllOfAsync(view));
        }
        var bitmaps = new List<string>();
        foreach (DiskBitmap bitmap in await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None))
        {
            bitmaps.Add($"{bitmap} "
                + $"{(bitmap.IsInUse ? "" : string.Join(' ', await ((IBitmaps)disk).GetDirtyRangesAsync(bitmap.Name, CancellationToken.None)))}");
        }
        return new() { Active = await AllOfAsync(disk), Snapshots = snapshots, Bitmaps = bitmaps };
    }

    /// <summary>Both must show the same.</summary>
    public void SameAs(CompactImage other, string what)
    {
        Assert.True(
            Active.AsSpan().SequenceEqual(other.Active),
            $"{what}: the disk differs from byte {Active.AsSpan().CommonPrefixLength(other.Active)} on");
        Assert.True(
            Snapshots.Keys.SequenceEqual(other.Snapshots.Keys, StringComparer.Ordinal),
            $"{what}: {string.Join("; ", other.Snapshots.Keys)}");
        foreach ((string snapshot, byte[] bytes) in Snapshots)
        {
            Assert.True(bytes.AsSpan().SequenceEqual(other.Snapshots[snapshot]), $"{what}: {snapshot} differs");
        }
        Assert.True(
            Bitmaps.SequenceEqual(other.Bitmaps, StringComparer.Ordinal),
            $"{what}: {string.Join("; ", other.Bitmaps)}; before: {string.Join("; ", Bitmaps)}");
    }

    /// <summary>Clusters of a file, and how many of them anything refers to.</summary>
    public static async Task<(long Clusters, long Used)> CountAsync(byte[] image)
    {
        var file = new MemoryNode(image, readOnly: true);
        Qcow2Header header = await Qcow2Header.ReadAsync(file, forRepair: false, CancellationToken.None);
        var checker = new Qcow2Checker(file, header, null, CancellationToken.None);
        _ = await checker.RunAsync();
        long clusters = new Qcow2Geometry(header).Clusters(image.Length), used = 0;
        for (long cluster = 0; cluster < clusters; cluster++)
        {
            used += checker.References[cluster] > 0 ? 1 : 0;
        }
        return (clusters, used);
    }

    private static async Task PackAsync(BlockNode disk, Random random, int offset, int count)
    {
        var packer = (ICompressedWritable)disk;
        int unit = packer.CompressionUnit;
        byte[] plain = new byte[unit], packed = new byte[unit];
        for (int at = offset / unit * unit; at < offset + count && at + unit <= disk.Length; at += unit)
        {
            random.NextBytes(plain.AsSpan(0, random.Next(1, unit * 3 / 4)));
            if (packer.Compress(plain, packed) is int length)
            {
                await packer.WriteCompressedAsync(at, packed.AsMemory(0, length), CancellationToken.None);
            }
        }
    }

    private static async Task<byte[]> AllOfAsync(BlockNode disk)
    {
        byte[] all = new byte[disk.Length];
        await disk.ReadAsync(0, all);
        return all;
    }
}
