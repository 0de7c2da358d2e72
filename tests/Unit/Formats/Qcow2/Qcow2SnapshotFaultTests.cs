using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// A change of snapshots that fails or is cancelled leaves the image as it was: contents, snapshots, and nothing for a check to find.
/// </summary>
public sealed class Qcow2SnapshotFaultTests
{
    private const int Size = 640 << 10;
    private const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00;

    public static TheoryData<string, string> Cases()
    {
        var data = new TheoryData<string, string>();
        foreach (string options in new[]
        {
            "cluster_size=4k", "cluster_size=512,refcount_bits=64", "cluster_size=4k,compat=0.10", "cluster_size=16k,extended_l2=on",
        })
        {
            foreach (string change in new[] { "create", "restore", "delete" })
            {
                data.Add(options, change);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Every_request_fails_once(string options, string change)
    {
        byte[] image = await MakeAsync(options);
        long total = await CountAsync(image, change);
        long step = Math.Max(1, total / 150);
        for (long number = 1; number <= total; number += step)
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new FaultInjectionNode(memory);
            await FailAsync(
                image, memory, file, change,
                () => file.Arm(new Fault(RequestKinds.All, number, DiskImageErrorKind.NoSpace) { WrittenBytes = (int)(number % 2) * 512 }),
                () => file.Arm(null),
                $"{options}, {change}, request {number} of {total}");
        }
    }

    /// <summary>The disk is full: what is there can be written over, and nothing can be added from some length on.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_full_disk_leaves_no_findings(string options, string change)
    {
        byte[] image = await MakeAsync(options);
        var done = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await MemoryDisk.OpenAsync(done))
        {
            await ChangeAsync(disk, change);
        }
        for (long room = image.Length; room < done.Length; room += 512)
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var file = new FullDisk(memory);
            await FailAsync(
                image, memory, file, change, () => file.Room = room, () => { }, $"{options}, {change}, room for {room:#,0} bytes");
        }
    }

    /// <summary>What a snapshot leads to is out of the file, misaligned, or contradictory: it stays, and so does everything else.</summary>
    [Theory]
    [InlineData("restore", "l1 outside")]
    [InlineData("restore", "l1 misaligned")]
    [InlineData("restore", "l1 entry misaligned")]
    [InlineData("restore", "l1 entry outside")]
    [InlineData("restore", "l2 entry outside")]
    [InlineData("delete", "l1 outside")]
    [InlineData("delete", "l1 misaligned")]
    [InlineData("delete", "l1 entry outside")]
    [InlineData("delete", "l2 entry outside")]
    public async Task A_damaged_snapshot_is_not_touched(string change, string damage)
    {
        byte[] image = await MakeAsync("cluster_size=4k");
        int table = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(64));
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(table));
        int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(l1)) & OffsetMask), outside = (image.Length + 4096) & -4096;
        (int at, long value) = damage switch
        {
            "l1 outside" => (table, outside),
            "l1 misaligned" => (table, l1 + 512L),
            "l1 entry misaligned" => (l1, l2 + 512L),
            "l1 entry outside" => (l1, outside),
            _ => (l2 + (FirstUsed(image.AsSpan(l2, 4096)) * 8), outside),
        };
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(at), value);
        var file = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ChangeAsync(disk, change).AsTask());
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.Single(await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None));
        }
        Assert.True(image.AsSpan().SequenceEqual(file.ToArray()), "the file was changed");
    }

    [Theory]
    [InlineData("create")]
    [InlineData("restore")]
    [InlineData("delete")]
    public async Task Cancelled_it_leaves_no_mark(string change)
    {
        byte[] image = await MakeAsync("cluster_size=4k");
        long total = await CountAsync(image, change);
        for (long number = 1; number <= total; number++)
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
                    await ChangeAsync(disk, change, stop.Token);
                }
                catch (OperationCanceledException)
                {
                    isCancelled = true;
                }
                file.At(0, () => { });
            }
            byte[] after = memory.ToArray();
            Assert.Equal(0UL, BinaryPrimitives.ReadUInt64BigEndian(after.AsSpan(72)));
            string what = $"{change}, cancelled at request {number} of {total}";
            Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(after, what)).Leaks);
            Assert.True(!isCancelled || image.AsSpan().SequenceEqual(after), $"{what}: cancelled, and the file was changed");
        }
    }

    /// <summary>
    /// Version 2 has no dirty bit: killed while counts go down, the image is put right on the next opening; qemu-img is the judge.
    /// </summary>
    [OracleTheory]
    [InlineData("create")]
    [InlineData("restore")]
    [InlineData("delete")]
    public async Task A_version_2_image_that_was_killed_is_put_right_on_opening(string change)
    {
        using var folder = new TestFolder();
        byte[] image = await MakeAsync("cluster_size=4k,compat=0.10");
        var time = new Timeline();
        await using (BlockNode disk = await MemoryDisk.OpenAsync(time.Add(image)))
        {
            await ChangeAsync(disk, change);
        }
        await foreach ((int done, byte[][] files) in time.PrefixesAsync())
        {
            var file = new MemoryNode((byte[])files[0].Clone());
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
            {
                Assert.Equal(Size, disk.Length);
            }
            await File.WriteAllBytesAsync(folder["a.qcow2"], file.ToArray());
            await MemoryDisk.QemuLeaksAtMostAsync(folder["a.qcow2"], $"{change}, {done} of {time.Count} requests");
        }
    }

    private static async Task FailAsync(
        byte[] image, MemoryNode memory, BlockNode file, string change, Action arm, Action disarm, string what)
    {
        byte[] old = await ReadAsync(image);
        bool isDone = true;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            arm();
            try
            {
                await ChangeAsync(disk, change);
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
            {
                isDone = false;
            }
            disarm();
            int expected = !isDone ? 1 : change switch { "create" => 2, "restore" => 1, _ => 0 };
            int count = (await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None)).Count;
            Assert.True(count == expected, $"{what}: done {isDone}, {count} snapshots");
        }
        byte[] after = memory.ToArray(), now = await ReadAsync(after);
        Assert.True(isDone || now.AsSpan().SequenceEqual(old), $"{what}: it failed, and reads otherwise");
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(after, readOnly: true));
        CheckReport report = await ((ICheckable)again).CheckAsync(null, CancellationToken.None);
        Assert.True(
            report.Findings.Count == 0,
            $"{what}, done {isDone}: {report.Findings.Count} findings, {string.Join('\n', report.Findings.Take(3))}");
    }

    private static async Task<long> CountAsync(byte[] image, string change)
    {
        var file = new FaultInjectionNode(new MemoryNode((byte[])image.Clone()));
        await using BlockNode disk = await MemoryDisk.OpenAsync(file);
        long before = file.Requests(RequestKinds.All);
        await ChangeAsync(disk, change);
        return file.Requests(RequestKinds.All) - before;
    }

    private static async ValueTask ChangeAsync(BlockNode disk, string change, CancellationToken cancellationToken = default)
    {
        var snapshots = (ISnapshots)disk;
        _ = await (change switch
        {
            "create" => snapshots.CreateSnapshotAsync("second", DateTimeOffset.UnixEpoch, cancellationToken),
            "restore" => snapshots.RestoreSnapshotAsync("kept", cancellationToken),
            _ => snapshots.DeleteSnapshotAsync("kept", cancellationToken),
        });
    }

    /// <summary>An image with a snapshot, of which the disk still shares a part.</summary>
    private static async Task<byte[]> MakeAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            var random = new Random(3);
            for (int i = 0; i < 24; i++)
            {
                byte[] data = new byte[random.Next(1, 40_000)];
                random.NextBytes(data);
                await disk.WriteAsync(random.Next(Size - data.Length), data);
                if (i == 12)
                {
                    _ = await ((ISnapshots)disk).CreateSnapshotAsync("kept", DateTimeOffset.UnixEpoch, CancellationToken.None);
                }
            }
        }
        return file.ToArray();
    }

    private static async Task<byte[]> ReadAsync(byte[] image)
    {
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    private static int FirstUsed(ReadOnlySpan<byte> table) => table.IndexOfAnyExcept((byte)0) / 8;
}
