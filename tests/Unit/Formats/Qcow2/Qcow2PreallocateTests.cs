using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Growing with space claimed ahead: over a backing file, into the last cluster, on a full disk, interrupted.</summary>
public sealed class Qcow2PreallocateTests
{
    private const int Old = (300 << 10) + 512, New = 900 << 10; // the old end lies inside a cluster

    public static TheoryData<string, PreallocationMode> Cases()
    {
        var data = new TheoryData<string, PreallocationMode>();
        foreach (string options in new[]
        {
            "cluster_size=64k", "cluster_size=4k", "cluster_size=64k,compat=0.10", "cluster_size=64k,extended_l2=on",
        })
        {
            foreach (PreallocationMode mode in new[] { PreallocationMode.Metadata, PreallocationMode.Falloc, PreallocationMode.Full })
            {
                data.Add(options, mode);
            }
        }
        return data;
    }

    /// <summary>
    /// The backing file is longer than the disk was: nothing of it shows in the new space, and all of that has its place.
    /// </summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public async Task New_space_over_a_longer_backing_file_is_zero_and_has_its_place(string options, PreallocationMode mode)
    {
        using var folder = new TestFolder();
        byte[] below = new byte[New + 4096], expected = new byte[New];
        Array.Fill(below, (byte)0xBB);
        below.AsSpan(0, Old).CopyTo(expected);
        await File.WriteAllBytesAsync(folder["base.raw"], below);
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={Old},backing_file=base.raw,backing_fmt=raw,{options}");
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            await disk.ResizeAsync(New, mode);
            await RequirePlacesAsync(disk, Old, New);
        }
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"]))
        {
            byte[] got = new byte[New];
            await disk.ReadAsync(0, got);
            Assert.True(got.AsSpan().SequenceEqual(expected), $"differs from {got.AsSpan().CommonPrefixLength(expected):#,0} on");
            Assert.Empty((await ((ICheckable)disk).CheckAsync(null, CancellationToken.None)).Findings);
        }
        if (Programs.WhyMissing("qemu-img") is null)
        {
            await File.WriteAllBytesAsync(folder["expected"], expected);
            await Programs.CheckAsync(folder["a.qcow2"]);
            await Programs.CompareAsync(folder["expected"], "raw", folder["a.qcow2"], "qcow2");
        }
    }

    /// <summary>Without a backing file, too, the cluster that the old end lies in has its place afterwards.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public async Task The_last_cluster_has_its_place(string options, PreallocationMode mode)
    {
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(await MemoryDisk.NewAsync($"size={Old},{options}")));
        await disk.ResizeAsync(New, mode);
        // its places are reserved for clusters none of whose subclusters is stored
        bool isExtended = options.Contains("extended", StringComparison.Ordinal);
        await RequirePlacesAsync(disk, Old, isExtended ? (Old + 65_535) & -65_536 : New);
        byte[] got = new byte[New];
        await disk.ReadAsync(0, got);
        Assert.False(got.AsSpan().ContainsAnyExcept((byte)0));
    }

    [NotOnWineTheory("files with holes")]
    [InlineData("")]
    [InlineData(",data_file_raw=on")]
    public async Task Tables_for_a_data_file_take_none_of_its_space(string options)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size=8M,preallocation=metadata,data_file={folder["a.data"]}{options}");
        await using BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true);
        BlockNode data = disk.Child("data-file")!;
        Assert.True(data.AllocatedLength is null or < 1 << 20, $"{data.AllocatedLength:#,0} bytes after creation");
        await disk.ResizeAsync(16 << 20, PreallocationMode.Metadata);
        Assert.True(data.AllocatedLength is null or < 1 << 20, $"{data.AllocatedLength:#,0} bytes after growing");
        await disk.ResizeAsync(24 << 20, PreallocationMode.Falloc);
        Assert.True(data.AllocatedLength is null or >= 8 << 20, $"{data.AllocatedLength:#,0} bytes reserved");
        byte[] got = new byte[24 << 20];
        await disk.ReadAsync(0, got);
        Assert.False(got.AsSpan().ContainsAnyExcept((byte)0));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Any_failing_request_leaves_the_old_disk(string options, PreallocationMode mode)
    {
        byte[] image = await MakeAsync(options);
        var counted = new FaultInjectionNode(new MemoryNode((byte[])image.Clone()));
        long total;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(counted))
        {
            long before = counted.Requests(RequestKinds.All);
            await disk.ResizeAsync(New, mode);
            total = counted.Requests(RequestKinds.All) - before;
        }
        for (long number = 1; number <= total; number += Math.Max(1, total / 40))
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new FaultInjectionNode(memory);
            string what = $"{options}, {mode}, request {number} of {total}";
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                file.Arm(new Fault(RequestKinds.All, number, DiskImageErrorKind.NoSpace));
                bool failed = await FailsAsync(disk, mode);
                file.Arm(null);
                Assert.Equal(failed ? Old : New, disk.Length);
            }
            await RequireUnchangedAsync(image, memory.ToArray(), what);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_full_disk_leaves_the_old_disk(string options, PreallocationMode mode)
    {
        byte[] image = await MakeAsync(options);
        for (long room = image.Length; room < image.Length + (New - Old); room += 40_000)
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new FullDisk(memory);
            string what = $"{options}, {mode}, room for {room:#,0}";
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                file.Room = room;
                Assert.True(await FailsAsync(disk, mode), $"{what}: it did not fail");
                Assert.Equal(Old, disk.Length);
            }
            await RequireUnchangedAsync(image, memory.ToArray(), what);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Cancelled_it_leaves_the_old_disk(string options, PreallocationMode mode)
    {
        byte[] image = await MakeAsync(options);
        int cancelled = 0;
        for (long number = 1; number <= 60; number += 3)
        {
            using var stop = new CancellationTokenSource();
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new Trigger(memory);
            bool isCancelled = false;
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                file.At(number, stop.Cancel);
                try
                {
                    await disk.ResizeAsync(New, mode, stop.Token);
                }
                catch (OperationCanceledException)
                {
                    isCancelled = true;
                }
                file.At(0, () => { });
                Assert.Equal(isCancelled ? Old : New, disk.Length);
            }
            cancelled += isCancelled ? 1 : 0;
            await RequireUnchangedAsync(image, memory.ToArray(), $"{options}, {mode}, cancelled at request {number}");
        }
        Assert.NotEqual(0, cancelled);
    }

    /// <summary>Writes that end anywhere leave a file that ends with a cluster.</summary>
    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=4k,compat=0.10")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    public async Task A_file_ends_with_a_cluster(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size=1M,{options}"));
        Assert.Equal(0, file.Length % 4096);
        foreach (int length in new[] { 1, 700, 5_000 })
        {
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file = new MemoryNode(file.ToArray())))
            {
                await disk.WriteAsync(length * 130L, Enumerable.Repeat((byte)1, length).ToArray());
                _ = await ((ISnapshots)disk).CreateSnapshotAsync($"s{length}", DateTimeOffset.UnixEpoch, CancellationToken.None);
            }
            int cluster = options.StartsWith("cluster_size=4k", StringComparison.Ordinal) ? 4096 : 65536;
            Assert.True(file.Length % cluster == 0, $"{options}, {length}: {file.Length:#,0} bytes");
        }
    }

    private static async Task<bool> FailsAsync(BlockNode disk, PreallocationMode mode)
    {
        try
        {
            await disk.ResizeAsync(New, mode);
            return false;
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
        {
            return true;
        }
    }

    /// <summary>
    /// If it still has its old size, the image reads as it did, nothing is leaked, and the file has grown by tables at most.
    /// </summary>
    private static async Task RequireUnchangedAsync(byte[] image, byte[] after, string what)
    {
        await using BlockNode old = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(after, readOnly: true));
        byte[] expected = new byte[old.Length], got = new byte[disk.Length];
        await old.ReadAsync(0, expected);
        await disk.ReadAsync(0, got);
        Assert.True(got.AsSpan(0, Old).SequenceEqual(expected), $"{what}: the contents changed");
        Assert.False(got.AsSpan(Old).ContainsAnyExcept((byte)0), $"{what}: the new space is not zero");
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        Assert.True(report.Findings.Count == 0, $"{what}: {string.Join('\n', report.Findings.Take(3))}");
        Assert.True(disk.Length > Old
            || after.Length <= image.Length + (256 << 10), $"{what}: the file has {after.Length:#,0} bytes, {image.Length:#,0} before");
    }

    private static async Task RequirePlacesAsync(BlockNode disk, long from, long end)
    {
        for (long at = from; at < end;)
        {
            BlockExtent extent = await disk.GetExtentAsync(at, end - at);
            Assert.True(extent is { HostOffset: not null, Depth: 0 }, $"{extent}");
            at = extent.End;
        }
    }

    private static async Task<byte[]> MakeAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Old},{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            byte[] data = new byte[200_000];
            new Random(4).NextBytes(data);
            await disk.WriteAsync(1000, data);
        }
        return file.ToArray();
    }
}
