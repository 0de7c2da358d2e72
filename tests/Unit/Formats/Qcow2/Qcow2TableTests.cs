using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// Tables at the edges: more than the cache holds, none at all, changed underneath by a repair, written by older programs.
/// </summary>
public sealed class Qcow2TableTests
{
    [Fact]
    public async Task Tables_that_are_unshared_keep_their_entries_when_the_cache_is_full()
    {
        const int Size = 16 << 20, Span = 64 * 512; // of an L2 table
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={Size},cluster_size=512"));
        byte[] expected = new byte[Size];
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file, options: "l2-cache-size=64k"))
        {
            for (int round = 1; round <= 3; round++)
            {
                for (int at = round * 512; at < Size; at += Span)
                {
                    byte[] data = SectorModel.Data(at / 512, 1, round);
                    await disk.WriteAsync(at, data);
                    data.CopyTo(expected, at);
                }
                _ = await ((ISnapshots)disk).CreateSnapshotAsync($"s{round}", DateTimeOffset.UnixEpoch, CancellationToken.None);
            }
        }
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        byte[] got = new byte[Size];
        await again.ReadAsync(0, got);
        Assert.True(got.AsSpan().SequenceEqual(expected), $"differs from byte {got.AsSpan().CommonPrefixLength(expected)} on");
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "unshared")).Leaks);
    }

    [Fact]
    public async Task Leaks_that_were_repaired_do_not_come_back()
    {
        byte[] image = await MemoryDisk.NewAsync("size=1M,cluster_size=4k");
        int clusters = image.Length / 4096;
        byte[] leaking = [.. image, .. new byte[40960]];
        long block = BinaryPrimitives.ReadInt64BigEndian(leaking.AsSpan((int)BinaryPrimitives.ReadInt64BigEndian(leaking.AsSpan(48))));
        leaking[block + ((clusters + 4) * 2) + 1] = 1;
        var file = new MemoryNode(leaking);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[512]); // brings the refcounts into memory
            CheckReport report = await ((IRepairable)disk).RepairAsync(RepairMode.Leaks, null, CancellationToken.None);
            Assert.Equal((1, 0), (report.LeaksFixed, report.Leaks));
            await disk.WriteAsync(4096, new byte[40960]);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "repaired")).Leaks);
    }

    [Theory]
    [InlineData("cluster_size=512,refcount_bits=64", 300 << 20)]
    [InlineData("cluster_size=512", 1 << 30)]
    public async Task A_table_may_be_larger_than_what_a_refcount_block_counts(string options, long size)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size=1M,{options}"));
        byte[] data = SectorModel.Data(0, 400, 6);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, data);
            await disk.ResizeAsync(size);
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
            await disk.WriteAsync(size - data.Length, data);
            _ = await ((ISnapshots)disk).RestoreSnapshotAsync("s", CancellationToken.None);
            await disk.WriteAsync(size - data.Length, data);
            long before = file.Length;
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            Assert.True(file.Length < before);
            byte[] got = new byte[data.Length];
            foreach (long at in new[] { 0, size - data.Length })
            {
                await disk.ReadAsync(at, got);
                Assert.Equal(data, got);
            }
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), options)).Leaks);
        Assert.True(file.Length < 4 << 20, $"{file.Length} bytes");
    }

    [Fact]
    public async Task A_disk_of_no_bytes_has_snapshots_and_grows()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=0"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("none", DateTimeOffset.UnixEpoch, CancellationToken.None);
            await disk.ResizeAsync(1 << 20);
            await disk.WriteAsync(0, SectorModel.Data(0, 1, 5));
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("some", DateTimeOffset.UnixEpoch, CancellationToken.None);
            _ = await ((ISnapshots)disk).RestoreSnapshotAsync("none", CancellationToken.None);
            Assert.Equal(0, disk.Length);
            _ = await ((ISnapshots)disk).RestoreSnapshotAsync("some", CancellationToken.None);
            _ = await ((ISnapshots)disk).DeleteSnapshotAsync("none", CancellationToken.None);
            byte[] got = new byte[512];
            await disk.ReadAsync(0, got);
            Assert.Equal(SectorModel.Data(0, 1, 5), got);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "size=0")).Leaks);
    }

    [Fact]
    public async Task An_open_image_is_checked_and_repaired_by_the_refcount_table_it_has_now()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=8M,cluster_size=512,refcount_bits=64"));
        long before = BinaryPrimitives.ReadInt64BigEndian(file.ToArray().AsSpan(48));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            byte[] data = new byte[6 << 20];
            Array.Fill(data, (byte)'x');
            await disk.WriteAsync(0, data);
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join("; ", report.Findings.Take(3)));
            report = await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0L, 0L), (report.CorruptionsFixed, report.LeaksFixed));
            await disk.WriteAsync(1 << 20, data.AsMemory(0, 4096));
        }
        Assert.NotEqual(before, BinaryPrimitives.ReadInt64BigEndian(file.ToArray().AsSpan(48)));
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "after")).Leaks);
    }

    [Theory]
    [InlineData(PreallocationMode.Metadata)]
    [InlineData(PreallocationMode.Falloc)]
    [InlineData(PreallocationMode.Full)]
    public async Task Growing_with_preallocation_keeps_what_the_last_cluster_holds(PreallocationMode mode)
    {
        byte[] contents = new byte[100 << 10]; // the second cluster of 64 KiB is used in part
        Array.Fill(contents, (byte)'x');
        foreach (string how in new[] { "compressed", "shared", "plain" })
        {
            var file = how == "compressed"
                ? new MemoryNode(await MemoryDisk.CompressedAsync(contents, ""))
                : new MemoryNode(await MemoryDisk.NewAsync($"size={contents.Length}"));
            await using BlockNode disk = await MemoryDisk.OpenAsync(file);
            if (how != "compressed")
            {
                await disk.WriteAsync(0, contents);
            }
            if (how == "shared")
            {
                _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
            }
            await disk.ResizeAsync(1 << 20, mode);
            byte[] expected = new byte[1 << 20], now = new byte[1 << 20];
            contents.CopyTo(expected, 0);
            await disk.ReadAsync(0, now);
            Assert.True(expected.AsSpan().SequenceEqual(now), $"{how}: reads otherwise");
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, $"{how}: {string.Join("; ", report.Findings)}");
        }
    }

    [Fact]
    public async Task A_disk_that_another_program_cut_inside_a_cluster_grows_by_zeroes()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=128K"));
        byte[] data = new byte[128 << 10];
        Array.Fill(data, (byte)'x');
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, data);
        }
        byte[] image = file.ToArray();
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(24), 100 << 10); // as QEMU 7.2 does it: what is cut off stays in its cluster
        await using BlockNode cut = await MemoryDisk.OpenAsync(new MemoryNode(image));
        await cut.ResizeAsync(1 << 20);
        byte[] expected = new byte[1 << 20], now = new byte[1 << 20];
        data.AsSpan(0, 100 << 10).CopyTo(expected);
        await cut.ReadAsync(0, now);
        Assert.True(expected.AsSpan().SequenceEqual(now));
    }

    [Fact]
    public async Task A_snapshot_without_extra_data_keeps_its_size_when_another_is_made()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M,cluster_size=4k,compat=0.10"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("old", DateTimeOffset.UnixEpoch, CancellationToken.None);
        }
        byte[] image = file.ToArray();
        int table = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(64));
        image.AsSpan(table + 64, 4).CopyTo(image.AsSpan(table + 40)); // id and name, without the 24 bytes before them
        image.AsSpan(table + 36, 4).Clear();
        var shorter = new MemoryNode(image);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(shorter))
        {
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("new", DateTimeOffset.UnixEpoch, CancellationToken.None);
            IReadOnlyList<DiskSnapshot> all = await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None);
            Assert.Equal([("1", "old", 1 << 20), ("2", "new", 1 << 20)], all.Select(s => (s.Id, s.Name, s.VirtualSize)));
            await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync("old", CancellationToken.None);
            Assert.Equal(1 << 20, view.Length);
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(shorter.ToArray(), "shorter")).Leaks);
    }
}
