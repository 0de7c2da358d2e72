using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Dirty bitmaps against a model, at their limits, and with damaged structures.</summary>
public sealed class Qcow2BitmapTests
{
    private const int AutoClearAt = 88;

    public static TheoryData<string, int> Shapes()
    {
        var data = new TheoryData<string, int>();
        foreach (string options in new[]
        {
            "cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=16k,extended_l2=on",
            "cluster_size=2M,refcount_bits=1",
        })
        {
            foreach (int seed in new[] { 1, 2, 3 })
            {
                data.Add(options, seed);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Bitmaps_say_what_was_written(string options, int seed)
    {
        var random = new Random(seed);
        long length = (6 << 20) - 512;
        byte[] image = await MemoryDisk.NewAsync($"size={length},{options}");
        var models = new List<BitmapModel>();
        bool canSnapshot = !options.Contains("refcount_bits=1", StringComparison.Ordinal);
        for (int session = 0; session < 12; session++)
        {
            string what = $"{options}, seed {seed}, session {session}";
            var file = new MemoryNode(image);
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                for (int step = 0; step < 12; step++)
                {
                    await StepAsync(disk, models, random, canSnapshot, $"b{session}.{step}");
                    if (step % 4 == 0)
                    {
                        await BitmapModel.VerifyAsync(disk, models, $"{what}, step {step}");
                    }
                }
            }
            image = file.ToArray();
            await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)))
            {
                await BitmapModel.VerifyAsync(disk, models, what);
            }
            CheckReport report = await MemoryDisk.LeaksAtMostAsync(image, what);
            Assert.True(report.Leaks == 0, $"{what}: {report.Leaks} leaks");
        }
    }

    private static async Task StepAsync(BlockNode disk, List<BitmapModel> models, Random random, bool canSnapshot, string name)
    {
        var bitmaps = (IBitmaps)disk;
        BitmapModel? model = models.Count > 0 ? models[random.Next(models.Count)] : null;
        long offset = random.NextInt64(disk.Length / 512) * 512;
        long count = Math.Min(disk.Length - offset, random.Next(1, random.Next(2, 600)) * 512L);
        switch (random.Next(20))
        {
            case 0 or 1:
                long granularity = 512L << random.Next(random.Next(1, 22));
                bool enabled = random.Next(3) > 0;
                DiskBitmap added = await bitmaps.AddBitmapAsync(name, granularity, enabled, CancellationToken.None);
                models.Add(new(name, granularity, enabled, disk.Length));
                Assert.Equal(new DiskBitmap(name, granularity, enabled, IsInUse: false, 0), added);
                break;
            case 2 when models.Count > 4:
                await bitmaps.RemoveBitmapAsync(model!.Name, CancellationToken.None);
                _ = models.Remove(model);
                break;
            case 3 when model is not null:
                await bitmaps.ClearBitmapAsync(model.Name, CancellationToken.None);
                model.Clear();
                break;
            case 4 when model is not null:
                model.IsEnabled = !model.IsEnabled;
                await bitmaps.EnableBitmapAsync(model.Name, model.IsEnabled, CancellationToken.None);
                break;
            case 5 when model is not null:
                await bitmaps.MergeBitmapAsync(model.Name, [(offset, count), (0, 512), (disk.Length, 0)], CancellationToken.None);
                model.Set(offset, count);
                model.Set(0, 512);
                break;
            case 6 when canSnapshot:
                _ = await ((ISnapshots)disk).CreateSnapshotAsync(name, DateTimeOffset.UnixEpoch, CancellationToken.None);
                break;
            case 7:
                long length = Math.Max(512, disk.Length + (random.Next(-1500, 2000) * 512L));
                await disk.ResizeAsync(length);
                models.ForEach(m => m.Resize(length));
                break;
            case 8:
                await disk.WriteZeroesAsync(offset, count);
                models.ForEach(m => m.Record(offset, count));
                break;
            case 9:
                await disk.DiscardAsync(offset, count);
                long unit = disk.Limits.AllocationUnit == 16384 ? 512 : disk.Limits.AllocationUnit;
                long start = (offset + unit - 1) / unit * unit;
                long end = offset + count == disk.Length ? disk.Length : (offset + count) / unit * unit;
                models.ForEach(m => m.Record(start, Math.Max(0, end - start)));
                break;
            case 10:
                await disk.FlushAsync();
                break;
            case 11 when offset / disk.Limits.AllocationUnit * disk.Limits.AllocationUnit is var cluster
                && cluster + disk.Limits.AllocationUnit <= disk.Length:
                byte[] packed = new byte[disk.Limits.AllocationUnit];
                int? size = ((ICompressedWritable)disk).Compress(new byte[disk.Limits.AllocationUnit], packed);
                await ((ICompressedWritable)disk).WriteCompressedAsync(cluster, packed.AsMemory(0, size!.Value), CancellationToken.None);
                models.ForEach(m => m.Record(cluster, disk.Limits.AllocationUnit));
                break;
            default:
                byte[] data = new byte[count];
                random.NextBytes(data);
                await disk.WriteAsync(offset, data);
                models.ForEach(m => m.Record(offset, count));
                break;
        }
    }

    [Fact]
    public async Task Granularity_follows_the_cluster_size_within_4k_and_64k()
    {
        foreach (
            (string cluster, long expected) in new[] { ("512", 4096L), ("4k", 4096L), ("16k", 16384L), ("64k", 65536L), ("2M", 65536L) })
        {
            await using BlockNode disk = await MemoryDisk.OpenAsync(
                new MemoryNode(await MemoryDisk.NewAsync($"size=1M,cluster_size={cluster}")));
            Assert.Equal(expected, (await ((IBitmaps)disk).AddBitmapAsync("b", null, enabled: true, CancellationToken.None)).Granularity);
        }
    }

    [Fact]
    public async Task What_cannot_be_is_refused_and_changes_nothing()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M"));
        await using BlockNode disk = await MemoryDisk.OpenAsync(file);
        var bitmaps = (IBitmaps)disk;
        _ = await bitmaps.AddBitmapAsync("b", null, enabled: false, CancellationToken.None);
        byte[] before = file.ToArray();
        foreach (string name in new[] { "", new string('x', 1024), new string('ä', 512), "a\0b" })
        {
            await RefusedAsync(
                DiskImageErrorKind.InvalidOption, () => bitmaps.AddBitmapAsync(name, null, true, CancellationToken.None).AsTask());
        }
        foreach (long granularity in new[] { 0, -1, 256, 1000, 1L << 32, long.MinValue })
        {
            await RefusedAsync(
                DiskImageErrorKind.InvalidOption, () => bitmaps.AddBitmapAsync("c", granularity, true, CancellationToken.None).AsTask());
        }
        await RefusedAsync(
            DiskImageErrorKind.AlreadyExists, () => bitmaps.AddBitmapAsync("b", null, true, CancellationToken.None).AsTask());
        await RefusedAsync(DiskImageErrorKind.NotFound, () => bitmaps.RemoveBitmapAsync("B", CancellationToken.None).AsTask());
        await RefusedAsync(DiskImageErrorKind.NotFound, () => bitmaps.GetDirtyRangesAsync("B", CancellationToken.None).AsTask());
        foreach (
            (long offset, long length) in new[] { (-1L, 1L), (0L, (1L << 20) + 1), (0L, -1L), (long.MaxValue, 1L), (1L, long.MaxValue) })
        {
            await RefusedAsync(
                DiskImageErrorKind.OutOfRange,
                () => bitmaps.MergeBitmapAsync("b", [(0, 1), (offset, length)], CancellationToken.None).AsTask());
        }
        Assert.Equal(before, file.ToArray());
        Assert.Equal(0, Assert.Single(await bitmaps.GetBitmapsAsync(CancellationToken.None)).DirtyBytes);

        await using BlockNode old = await MemoryDisk.OpenAsync(new MemoryNode(await MemoryDisk.NewAsync("size=1M,compat=0.10")));
        await RefusedAsync(
            DiskImageErrorKind.Unsupported, () => ((IBitmaps)old).AddBitmapAsync("b", null, true, CancellationToken.None).AsTask());
        await using BlockNode readOnly = await MemoryDisk.OpenAsync(new MemoryNode(before, readOnly: true));
        await RefusedAsync(DiskImageErrorKind.ReadOnly, () => ((IBitmaps)readOnly).ClearBitmapAsync("b", CancellationToken.None).AsTask());

        async Task RefusedAsync(DiskImageErrorKind kind, Func<Task> action)
            => Assert.Equal(kind, (await Assert.ThrowsAsync<DiskImageException>(action)).Kind);
    }

    [Fact]
    public async Task The_largest_bitmap_takes_memory_for_what_is_dirty_only()
    {
        const long Length = 1L << 41; // 512 MiB of bits at a granularity of 512
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Length},cluster_size=64k"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            var bitmaps = (IBitmaps)disk;
            long before = GC.GetTotalAllocatedBytes();
            _ = await bitmaps.AddBitmapAsync("b", 512, enabled: true, CancellationToken.None);
            await disk.WriteAsync(Length - 512, new byte[512]);
            await bitmaps.MergeBitmapAsync("b", [(4096, Length - (1L << 40))], CancellationToken.None);
            Assert.Equal(
                [(4096, Length - (1L << 40)), (Length - 512, 512)], await bitmaps.GetDirtyRangesAsync("b", CancellationToken.None));
            Assert.True(GC.GetTotalAllocatedBytes() - before < 64 << 20);
            Assert.Equal(
                DiskImageErrorKind.OutOfRange,
                (await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(Length + 4096))).Kind);
        }
        Assert.True(file.Length < 4 << 20);
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        Assert.Equal(Length - (1L << 40) + 512, Assert.Single(await ((IBitmaps)again).GetBitmapsAsync(CancellationToken.None)).DirtyBytes);

        await using BlockNode larger = await MemoryDisk.OpenAsync(new MemoryNode(await MemoryDisk.NewAsync($"size={Length + 4096}")));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ((IBitmaps)larger).AddBitmapAsync("b", 512, enabled: true, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.OutOfRange, error.Kind);
    }

    [Fact]
    public async Task A_bitmap_that_was_not_saved_is_shown_as_such_and_can_only_be_removed()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M,cluster_size=4k"));
        byte[] crashed;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((IBitmaps)disk).AddBitmapAsync("on", null, enabled: true, CancellationToken.None);
            _ = await ((IBitmaps)disk).AddBitmapAsync("off", null, enabled: false, CancellationToken.None);
            await disk.WriteAsync(8192, new byte[512]);
            await disk.FlushAsync();
            crashed = file.ToArray();
        }
        var after = new MemoryNode(crashed);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(after))
        {
            var bitmaps = (IBitmaps)disk;
            Assert.Equal(
                [new("on", 4096, IsEnabled: true, IsInUse: true, null), new DiskBitmap("off", 4096, IsEnabled: false, IsInUse: false, 0)],
                await bitmaps.GetBitmapsAsync(CancellationToken.None));
            foreach (Func<Task> action in new Func<Task>[]
            {
                () => bitmaps.ClearBitmapAsync("on", CancellationToken.None).AsTask(),
                () => bitmaps.EnableBitmapAsync("on", false, CancellationToken.None).AsTask(),
                () => bitmaps.MergeBitmapAsync("on", [], CancellationToken.None).AsTask(),
                () => bitmaps.GetDirtyRangesAsync("on", CancellationToken.None).AsTask(),
                () => disk.ResizeAsync(2 << 20).AsTask(),
                () => disk.ResizeAsync(1 << 19).AsTask(),
                () => BitmapCopy.SelectAsync(disk, skipBroken: false, CancellationToken.None),
            })
            {
                Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(action)).Kind);
            }
            Assert.Equal("off", Assert.Single(await BitmapCopy.SelectAsync(disk, skipBroken: true, CancellationToken.None)).Name);
            await disk.WriteAsync(0, new byte[512]);
            await bitmaps.MergeBitmapAsync("off", [(0, 1)], CancellationToken.None);
            await bitmaps.RemoveBitmapAsync("on", CancellationToken.None);
            await disk.ResizeAsync(2 << 20);
            Assert.Equal(
                [new DiskBitmap("off", 4096, IsEnabled: false, IsInUse: false, 4096)],
                await bitmaps.GetBitmapsAsync(CancellationToken.None));
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(after.ToArray(), "removed")).Leaks);
    }

    [Fact]
    public async Task A_disk_that_cannot_hold_bitmaps_says_so_before_anything_is_copied()
    {
        DiskBitmap[] bitmaps = [new("a", 4096, IsEnabled: true, IsInUse: false, 0), new("b", 512, IsEnabled: false, IsInUse: false, 0)];
        await using BlockNode version2 = await MemoryDisk.OpenAsync(new MemoryNode(await MemoryDisk.NewAsync("size=1M,compat=0.10")));
        foreach (BlockNode target in new[] { new MemoryNode(new byte[512]), version2 })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => BitmapCopy.RequireHoldsAsync(target, bitmaps, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
        }
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await BitmapCopy.RequireHoldsAsync(disk, bitmaps, CancellationToken.None);
            Assert.Empty(await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None));
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "removed again")).Leaks);
    }

    [Fact]
    public async Task Bitmaps_of_other_contents_are_not_shown_and_dropped_on_writing()
    {
        byte[] image = await WithBitmapsAsync("cluster_size=4k");
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(AutoClearAt), 0); // as a program leaves it that does not know bitmaps
        await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)))
        {
            Assert.Empty(await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None));
        }
        var file = new MemoryNode(image);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            Assert.Empty(await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None));
            await disk.WriteAsync(0, new byte[512]);
            Assert.True((await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "dropped")).Leaks > 0);
            CheckReport report = await ((IRepairable)disk).RepairAsync(RepairMode.Leaks, null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Leaks, report.Corruptions));
            _ = await ((IBitmaps)disk).AddBitmapAsync("new", null, enabled: true, CancellationToken.None);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "added")).Leaks);
    }

    [Fact]
    public async Task Operations_while_writes_are_recorded_lose_nothing()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=4M,cluster_size=4k"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            var bitmaps = (IBitmaps)disk;
            _ = await bitmaps.AddBitmapAsync("b", 4096, enabled: true, CancellationToken.None);
            Task writes = Parallel.ForAsync(0, 512, async (i, stop) => await disk.WriteAsync(i * 8192, new byte[512], stop));
            for (int i = 0; i < 40; i++)
            {
                _ = await bitmaps.AddBitmapAsync($"x{i}", 65536, enabled: false, CancellationToken.None);
                _ = i % 8 == 0 ? await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None) : null;
                _ = i % 8 == 1 ? await ((IRepairable)disk).RepairAsync(RepairMode.Leaks, null, CancellationToken.None) : null;
                _ = await bitmaps.GetBitmapsAsync(CancellationToken.None);
            }
            await writes;
            Assert.Equal(512, (await bitmaps.GetDirtyRangesAsync("b", CancellationToken.None)).Count);
        }
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        Assert.Equal(512, (await ((IBitmaps)again).GetDirtyRangesAsync("b", CancellationToken.None)).Count);
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "closed")).Leaks);
    }

    [Fact]
    public async Task A_snapshot_has_no_bitmaps_and_is_not_restored_under_them()
    {
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(await WithBitmapsAsync("cluster_size=4k")));
        _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
        await using (BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync("s", CancellationToken.None))
        {
            Assert.Empty(await ((IBitmaps)view).GetBitmapsAsync(CancellationToken.None));
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ((ISnapshots)disk).RestoreSnapshotAsync("s", CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
    }

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(0, 40)];

    /// <summary>Forty images a seed, each with some bytes of the extension, directory, tables and bits changed, or cut short.</summary>
    [Theory]
    [MemberData(nameof(Seeds))]
    public async Task Damaged_bitmaps_are_errors_and_take_bounded_memory(int seed)
    {
        var random = new Random(seed);
        byte[] original = await WithBitmapsAsync(seed % 2 == 0 ? "cluster_size=512" : "cluster_size=4k");
        List<int> places = Places(original);
        for (int i = 0; i < 40; i++)
        {
            byte[] image = (byte[])original.Clone();
            for (int changes = random.Next(1, 4); changes > 0; changes--)
            {
                int at = places[random.Next(places.Count)];
                image[at] = random.Next(3) switch { 0 => (byte)random.Next(256), 1 => (byte)(
                    image[at] ^ (1 << random.Next(8))), _ => (byte)(random.Next(2) * 255) };
            }
            image = random.Next(5) == 0 ? image[..random.Next(original.Length * 3 / 4, original.Length)] : image;
            long before = GC.GetTotalAllocatedBytes();
            await UseAsync(image, $"seed {seed}, image {i}");
            Assert.True(
                GC.GetTotalAllocatedBytes() - before < 512 << 20, $"seed {seed}, image {i}: {GC.GetTotalAllocatedBytes() - before} bytes");
        }
    }

    /// <summary>The bytes of the extension, directory, tables and bits.</summary>
    private static List<int> Places(byte[] image)
    {
        int clusterSize = 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20));
        int extension = image.AsSpan().IndexOf(new byte[] { 0x23, 0x85, 0x28, 0x75 });
        int directory = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(extension + 24));
        int length = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(extension + 16));
        var places = new List<int>(
            [.. Enumerable.Range(extension, 32), .. Enumerable.Range(directory, length), .. Enumerable.Range(directory, length)]);
        for (int at = directory; at < directory + length;)
        {
            int table = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(at));
            int entries = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(at + 8));
            places.AddRange(Enumerable.Range(table, entries * 8));
            places.AddRange(Enumerable.Range((int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(table)) & ~(clusterSize - 1), 8));
            at += (24 + BinaryPrimitives.ReadInt16BigEndian(
                image.AsSpan(at + 18)) + BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(at + 20)) + 7) & ~7;
        }
        return places;
    }

    private static async Task UseAsync(byte[] image, string what)
    {
        try
        {
            await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)))
            {
                await TryAsync(() => disk.ReadAsync(0, new byte[65536]).AsTask());
                await TryAsync(() => ((ICheckable)disk).CheckAsync(null, CancellationToken.None).AsTask());
                await ListAsync(disk);
            }
            BlockNode writable = await MemoryDisk.OpenAsync(new MemoryNode(image));
            var bitmaps = (IBitmaps)writable;
            await ListAsync(writable);
            await TryAsync(() => writable.WriteAsync(70_000, new byte[1000]).AsTask());
            await TryAsync(() => writable.ResizeAsync(writable.Length + 100_352).AsTask());
            await TryAsync(() => writable.ResizeAsync(writable.Length - 200_704).AsTask());
            foreach (DiskBitmap bitmap in await bitmaps.GetBitmapsAsync(CancellationToken.None))
            {
                await TryAsync(() => bitmaps.EnableBitmapAsync(bitmap.Name, !bitmap.IsEnabled, CancellationToken.None).AsTask());
                await TryAsync(() => bitmaps.MergeBitmapAsync(bitmap.Name, [(0, 100_000)], CancellationToken.None).AsTask());
                await TryAsync(() => bitmaps.ClearBitmapAsync(bitmap.Name, CancellationToken.None).AsTask());
                await TryAsync(() => bitmaps.RemoveBitmapAsync(bitmap.Name, CancellationToken.None).AsTask());
            }
            await TryAsync(() => writable.DisposeAsync().AsTask());
        }
        catch (DiskImageException)
        {
            // refused as a whole
        }

        async Task ListAsync(BlockNode disk)
        {
            var bitmaps = (IBitmaps)disk;
            IReadOnlyList<DiskBitmap> list = [];
            await TryAsync(async () => list = await bitmaps.GetBitmapsAsync(CancellationToken.None));
            foreach (DiskBitmap bitmap in list)
            {
                await TryAsync(() => bitmaps.GetDirtyRangesAsync(bitmap.Name, CancellationToken.None).AsTask());
            }
        }

        async Task TryAsync(Func<Task> action)
        {
            try
            {
                await action();
            }
            catch (Exception e) when (e is not DiskImageException)
            {
                Assert.Fail($"{what}: {e}");
            }
            catch (DiskImageException)
            {
                // as it should be
            }
        }
    }

    /// <summary>An image with data and three bitmaps, one of them disabled.</summary>
    private static async Task<byte[]> WithBitmapsAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size=1M,{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((IBitmaps)disk).AddBitmapAsync("a", 512, enabled: true, CancellationToken.None);
            _ = await ((IBitmaps)disk).AddBitmapAsync("second", 4096, enabled: false, CancellationToken.None);
            _ = await ((IBitmaps)disk).AddBitmapAsync("third", 65536, enabled: true, CancellationToken.None);
            await disk.WriteAsync(100_000, new byte[300_000]);
            await ((IBitmaps)disk).MergeBitmapAsync("second", [(8192, 1), (400_000, 5000)], CancellationToken.None);
        }
        return file.ToArray();
    }
}
