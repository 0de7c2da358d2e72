using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Campaign;

/// <summary>
/// One damaged image, through everything that can be done with it. What must hold: nothing but <see cref="DiskImageException"/> comes of
/// it, with bounded work and memory; an image that is called consistent reads, is judged the same by qemu-img, and can be written, resized
/// and snapshot; a repair keeps every sector that could be read, also of snapshots; and an image that it calls consistent is so.
/// </summary>
/// <param name="image">The image.</param>
/// <param name="folder">Where it is put for qemu-img; null to do without.</param>
internal sealed class CampaignCase(CampaignImage image, TestFolder? folder)
{
    private const int MostClusterSectors = (64 << 20) / Sector;
    private const int Sector = 512;
    private const long MostMemory = 768 << 20; // allocated by one operation, freed or not; an L1 table of the greatest size takes 32 MiB

    /// <summary>The check found nothing.</summary>
    public bool WasConsistent { get; private set; }

    public async Task RunAsync()
    {
        View? before = await LookAsync(image, "the image");
        WasConsistent = before is { IsConsistent: true };
        if (WasConsistent)
        {
            await RequireUsableAsync(image, before!, "called consistent");
        }
        foreach (RepairMode mode in new[] { RepairMode.Leaks, RepairMode.All })
        {
            await RepairAsync(mode, before);
        }
        await ChangeAsync(image, mustSucceed: false, before, "the image");
        await CompactAsync();
    }

    /// <summary>Looks and repairs only.</summary>
    public async Task RepairsAsync()
    {
        View? before = await LookAsync(image, "the image");
        foreach (RepairMode mode in new[] { RepairMode.Leaks, RepairMode.All })
        {
            await RepairAsync(mode, before);
        }
    }

    private async Task RepairAsync(RepairMode mode, View? before)
    {
        string what = $"after repair in mode {mode}";
        var file = new MemoryNode((byte[])image.File.Clone());
        CheckReport? report = null;
        BlockNode? disk = await TryAsync(file, what, async counted => await image.OpenAsync(counted, withBacking: false, forRepair: true));
        if (disk is null)
        {
            Assert.True(image.File.AsSpan().SequenceEqual(file.ToArray()), $"{what}: an open that failed changed the file");
            return;
        }
        await TryAsync(file, what, async _ => report = await disk.As<IRepairable>()!.RepairAsync(mode, null, CancellationToken.None));
        await TryAsync(file, what, async _ => await disk.DisposeAsync());
        CampaignImage repaired = image with { File = file.ToArray() };
        View? after = await LookAsync(repaired, what);
        if (before is not null)
        {
            Assert.True(after is not null, $"{what}: it does not open any more");
            RequireSame(before, after!, what);
        }
        if (report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 })
        {
            if (after is null && image.Shape.IsDifferencing)
            {
                // the damage may have changed which parent it wants
                View? alone = await LookAsync(repaired, $"{what}: said to be consistent", mustOpen: true, withBacking: false);
                Assert.True(alone!.IsConsistent, $"{what}: said to be consistent, and {alone.Finding}");
                return;
            }
            after ??= await LookAsync(repaired, $"{what}: said to be consistent", mustOpen: true);
            Assert.True(after!.IsConsistent, $"{what}: said to be consistent, and {after.Finding}");
            await RequireUsableAsync(repaired, after, what);
        }
    }

    private async Task RequireUsableAsync(CampaignImage subject, View view, string what)
    {
        if (view.WantsSecret)
        {
            return; // damage has made it an encrypted image, which nobody has the secret of
        }
        int unreadable = view.Sectors.FindIndex(s => s is null);
        Assert.True(unreadable < 0, $"{what}: sector {unreadable} cannot be read");
        await ChangeAsync(subject, mustSucceed: true, view, what);
        if (folder is null || subject.Shape.IsDifferencing)
        {
            return; // QEMU opens no differencing VHDX, and shows such a VHD without its parent
        }
        string path = await subject.SaveAsync(folder);
        if (!subject.Shape.Format.Equals("vpc", StringComparison.Ordinal)) // qemu-img has no check for it
        {
            (int code, string output, string errors) = await Programs.TryAsync("qemu-img", "check", path);
            Assert.True(code == 0, $"{what}: qemu-img check finds ({code}) {output}{errors}");
        }
        if (view.HidesData)
        {
            return; // a warning says so: QEMU shows what the bitmap of a VHD's block calls unwritten
        }
        (int converted, _, string why) = await Programs.TryAsync("qemu-img", "convert", "-O", "raw", path, folder["judged.raw"]);
        Assert.True(converted == 0, $"{what}: qemu-img convert says {why}");
        byte[] judged = await File.ReadAllBytesAsync(folder["judged.raw"]);
        for (int i = 0; i < Math.Min(view.Sectors.Count, judged.Length / Sector); i++)
        {
            Assert.True(
                view.Sectors[i]!.AsSpan().SequenceEqual(judged.AsSpan(i * Sector, Sector)), $"{what}: qemu-img reads sector {i} otherwise");
        }
    }

    /// <summary>
    /// Writes, zeroes, resizes, takes a snapshot. Where it must succeed, all else must go on reading as it did, and the check find nothing.
    /// </summary>
    private static async Task ChangeAsync(CampaignImage subject, bool mustSucceed, View? view, string what)
    {
        what = $"{what}: written to";
        if (subject.Shape.Format.Equals("parallels", StringComparison.Ordinal) && BitConverter.ToUInt32(subject.File, 28) > MostClusterSectors)
        {
            mustSucceed = false; // clusters so large are allowed, and the memory that stands for the file does not hold them
        }
        var file = new MemoryNode((byte[])subject.File.Clone());
        MemoryNode? data = subject.Shape.HasDataFile ? new MemoryNode((byte[])subject.Data.Clone()) : null;
        BlockNode? disk = await TryAsync(file, what, async counted => await subject.OpenAsync(counted, data: data), mustSucceed);
        if (disk is null)
        {
            return;
        }
        int sectors = (int)Math.Min(disk.Length / Sector, 4096);
        if (sectors == 0) // damage may leave less than a sector
        {
            await TryAsync(file, what, async _ => await disk.DisposeAsync(), mustSucceed);
            return;
        }
        byte[]?[] expected = view is not null && mustSucceed ? view.Sectors.ToArray() : new byte[]?[sectors];
        for (int i = 0; i < 24; i++)
        {
            int sector = (int)((long)sectors * i / 24), count = Math.Min(1 + (i % 5), sectors - sector);
            byte[] bytes = new byte[count * Sector];
            Array.Fill(bytes, (byte)(i + 1));
            Array.Fill<byte[]?>(expected, bytes[..Sector], sector, count);
            await TryAsync(file, what, async _ => await disk.WriteAsync((long)sector * Sector, bytes), mustSucceed);
        }
        await TryAsync(file, what, async _ => await disk.WriteZeroesAsync(0, Math.Min(disk.Length, 64 << 10)), mustSucceed);
        byte[] zeroes = new byte[Sector];
        Array.Fill<byte[]?>(expected, zeroes, 0, Math.Min(expected.Length, (64 << 10) / Sector));
        long length = disk.Length;
        bool isFixed = subject.Shape.Name.Contains("fixed", StringComparison.Ordinal);
        // of version 2, be it by the damage, they do not record their size
        bool canResize = !(subject.Shape.HasSnapshots && subject.File[7] == 2);
        if (length < 1L << 32 && length % Sector == 0 && canResize)
        {
            await TryAsync(file, what, async _ => await disk.ResizeAsync(length + (1 << 20)), mustSucceed);
            await TryAsync(file, what, async _ => await disk.ResizeAsync(length), mustSucceed && !isFixed);
        }
        bool hasWideRefcounts = subject.File[7] == 2 || subject.File[99] > 1; // each of up to three snapshots counts, and the disk
        if (disk is ISnapshots snapshots && !subject.Shape.HasDataFile && hasWideRefcounts)
        {
            await TryAsync(
                file,
                what,
                async _ => await snapshots.CreateSnapshotAsync("more", DateTimeOffset.UnixEpoch, CancellationToken.None),
                mustSucceed);
            await TryAsync(file, what, async _ => await disk.WriteAsync(0, zeroes), mustSucceed);
            await TryAsync(file, what, async _ => await snapshots.DeleteSnapshotAsync("more", CancellationToken.None), mustSucceed);
        }
        await TryAsync(file, what, async _ => await disk.DisposeAsync(), mustSucceed);
        if (!mustSucceed)
        {
            return;
        }
        View? after = await LookAsync(subject with { File = file.ToArray(), Data = data?.ToArray() ?? [] }, what, mustOpen: true);
        Assert.True(after!.IsConsistent, $"{what}: then {after.Finding}");
        for (int i = 0; i < sectors; i++)
        {
            Assert.True(after.Sectors[i].AsSpan().SequenceEqual(expected[i]), $"{what}: sector {i} reads otherwise");
        }
    }

    private async Task CompactAsync()
    {
        const string What = "compacted";
        var file = new MemoryNode((byte[])image.File.Clone());
        BlockNode? disk = await TryAsync(file, What, async counted => await image.OpenAsync(counted, withBacking: false));
        View? before = await LookAsync(image, What);
        if (disk?.As<ICompactable>() is { } compactable)
        {
            await TryAsync(file, What, async _ => await compactable.CompactAsync(null, CancellationToken.None));
        }
        if (disk is not null)
        {
            await TryAsync(file, What, async _ => await disk.DisposeAsync());
            View? after = await LookAsync(image with { File = file.ToArray() }, What);
            Assert.True(before is null || after is not null, $"{What}: it does not open any more");
            if (before is not null)
            {
                RequireSame(before, after!, What);
            }
        }
    }

    private static void RequireSame(View before, View after, string what)
    {
        for (int i = 0; i < before.Sectors.Count; i++)
        {
            Assert.True(
                before.Sectors[i] is null || (i < after.Sectors.Count && before.Sectors[i].AsSpan().SequenceEqual(after.Sectors[i])),
                $"{what}: sector {i} read before and "
                    + $"{(after.Sectors.ElementAtOrDefault(i) is null ? "cannot be read now" : "reads otherwise now")}");
        }
        foreach ((string id, byte[] contents) in after.Snapshots)
        {
            Assert.True(!before.Snapshots.TryGetValue(id, out byte[]? old)
                || old.AsSpan().SequenceEqual(contents), $"{what}: snapshot {id} reads otherwise");
        }
    }

    /// <summary>Reads and maps and checks; null if it does not open.</summary>
    private static async Task<View?> LookAsync(CampaignImage subject, string what, bool mustOpen = false, bool withBacking = true)
    {
        var file = new MemoryNode(subject.File, readOnly: true);
        BlockNode? disk = await TryAsync(file, what, async counted => await subject.OpenAsync(counted, withBacking), mustOpen);
        if (disk is null)
        {
            return null;
        }
        var view = new View();
        await using (disk)
        {
            _ = ((IDescribed)disk).Describe();
            await TryAsync(file, what, async _ => await ReadAsync(disk, view));
            await TryAsync(file, what, async _ =>
            {
                int extents = 0;
                await foreach (BlockExtent extent in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
                {
                    if (++extents == 10_000)
                    {
                        break;
                    }
                }
            });
            await TryAsync(file, what, async _ => await ReadSnapshotsAsync(disk, view));
            CheckReport? report = null;
            await TryAsync(file, what, async _ => report = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None));
            view.IsConsistent = report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 } && !((IDescribed)disk).Describe().Dirty;
            view.HidesData = report?.Findings.Any(f => f.Kind.Equals("BitmapHidesData", StringComparison.Ordinal)) == true;
            view.Finding = report?.Findings.FirstOrDefault(f => f.Severity != CheckSeverity.Warning)?.Message ?? "the check fails";
        }
        return view;
    }

    private static async Task ReadSnapshotsAsync(BlockNode disk, View view)
    {
        if (disk is not ISnapshots snapshots)
        {
            return;
        }
        foreach (DiskSnapshot snapshot in await snapshots.GetSnapshotsAsync(CancellationToken.None))
        {
            await using BlockNode shown = await snapshots.OpenSnapshotAsync(snapshot.Id, CancellationToken.None);
            byte[] contents = new byte[Math.Min(shown.Length, 1 << 20)];
            await shown.ReadAsync(0, contents);
            view.Snapshots[snapshot.Id] = contents;
        }
    }

    /// <summary>What each sector of the first 2 MiB reads as; null where it cannot be read.</summary>
    private static async Task ReadAsync(BlockNode disk, View view)
    {
        const int Many = 8;
        List<byte[]?> sectors = view.Sectors;
        long end = Math.Min(disk.Length / Sector, 4096);
        byte[] several = new byte[Many * Sector];
        while (sectors.Count < end)
        {
            int count = (int)Math.Min(Many, end - sectors.Count);
            if (await TryReadAsync(disk, view, (long)sectors.Count * Sector, several.AsMemory(0, count * Sector)))
            {
                sectors.AddRange(several.AsSpan(0, count * Sector).ToArray().Chunk(Sector));
                continue;
            }
            for (int i = 0; i < count; i++)
            {
                byte[] one = new byte[Sector];
                sectors.Add(await TryReadAsync(disk, view, (long)sectors.Count * Sector, one) ? one : null);
            }
        }
    }

    private static async Task<bool> TryReadAsync(BlockNode disk, View view, long offset, Memory<byte> buffer)
    {
        try
        {
            await disk.ReadAsync(offset, buffer);
            return true;
        }
        catch (DiskImageException e)
        {
            view.WantsSecret |= e.Kind == DiskImageErrorKind.SecretRequired;
            return false;
        }
    }

    private static async Task TryAsync(BlockNode file, string what, Func<BlockNode, Task> work, bool mustSucceed = false)
        => await TryAsync<object>(file, what, async counted =>
        {
            await work(counted);
            return null!;
        }, mustSucceed);

    /// <summary>Does one thing; the default if it fails as it may.</summary>
    private static async Task<T?> TryAsync<T>(BlockNode file, string what, Func<BlockNode, Task<T>> work, bool mustSucceed = false)
        where T : class
    {
        var counted = new CountingNode(file);
        long memory = GC.GetAllocatedBytesForCurrentThread(), most = (64L * file.Length) + (256 << 20);
        try
        {
            return await work(counted);
        }
        catch (DiskImageException e)
        {
            Assert.False(mustSucceed, $"{what}: {e.Message}");
            return null;
        }
        finally
        {
            Assert.True(counted.Bytes < most, $"{what}: read and wrote {counted.Bytes:#,0} bytes");
            memory = GC.GetAllocatedBytesForCurrentThread() - memory;
            Assert.True(memory < MostMemory, $"{what}: allocated {memory:#,0} bytes");
        }
    }

    private sealed class View
    {
        public List<byte[]?> Sectors { get; } = [];

        public Dictionary<string, byte[]> Snapshots { get; } = new(StringComparer.Ordinal);

        public bool IsConsistent { get; set; }

        public bool HidesData { get; set; }

        public bool WantsSecret { get; set; }

        public string? Finding { get; set; }
    }
}
