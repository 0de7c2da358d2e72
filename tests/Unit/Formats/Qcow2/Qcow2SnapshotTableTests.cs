using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>The table of snapshots: names as long as can be, extra data of other programs, no snapshots at all.</summary>
public sealed class Qcow2SnapshotTableTests
{
    private const int SnapshotsAt = 60, OffsetAt = 64;

    [Fact]
    public async Task A_name_is_as_long_as_QEMU_can_show()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1M"));
        string longest = new string('ä', 127) + "x"; // 255 bytes
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            _ = await ((ISnapshots)disk).CreateSnapshotAsync(longest, DateTimeOffset.UnixEpoch, CancellationToken.None);
            byte[] before = file.ToArray();
            foreach (string name in new[] { longest + "x", new string('n', 3048), new string('n', 70_000) })
            {
                DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                    () => ((ISnapshots)disk).CreateSnapshotAsync(name, DateTimeOffset.UnixEpoch, CancellationToken.None).AsTask());
                Assert.Equal(DiskImageErrorKind.OutOfRange, error.Kind);
                Assert.Contains("at most 255", error.Message, StringComparison.Ordinal);
            }
            Assert.Equal(before, file.ToArray());
        }
        await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        Assert.Equal(longest, Assert.Single(await ((ISnapshots)again).GetSnapshotsAsync(CancellationToken.None)).Name);
    }

    /// <summary>Other programs know no such limit, or wrote such tables: they are read, up to 16 bits of name each.</summary>
    [Theory]
    [InlineData(3_048, 1)]
    [InlineData(65_535, 1)]
    [InlineData(40_000, 30)]
    public async Task Longer_names_are_read(int length, int count)
    {
        Qcow2Snapshot[] snapshots = [.. Enumerable.Range(1, count).Select(
            i => Empty(i) with { Name = new string((char)('a' + (i % 26)), length) })];
        byte[] image = await WithAsync(snapshots);
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image));
        string[] expected = [.. snapshots.Select(s => s.Name)], found = [.. (
            await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None)).Select(s => s.Name)];
        Assert.Equal(expected, found);
        _ = await ((ISnapshots)disk).CreateSnapshotAsync("one more", DateTimeOffset.UnixEpoch, CancellationToken.None);
        Assert.Equal(count + 1, (await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None)).Count);
    }

    /// <summary>
    /// QEMU takes 1,024 bytes of extra data: more is read, reported, and left out when the table is written; the snapshot stays.
    /// </summary>
    [Theory]
    [InlineData(1_032)]
    [InlineData(100_000)]
    public async Task More_extra_data_than_QEMU_takes_costs_no_snapshot(int length)
    {
        byte[] image = await WithAsync([Empty(1) with { Name = "first", Extra = new byte[length] }, Empty(2) with { Name = "second" }]);
        string[] names = ["first", "second"];
        foreach (bool repairs in new[] { true, false })
        {
            var file = new MemoryNode((byte[])image.Clone());
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: repairs))
            {
                string[] found = [.. (await ((ISnapshots)disk).GetSnapshotsAsync(CancellationToken.None)).Select(s => s.Name)];
                Assert.Equal(names, found);
                CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
                Assert.Contains(report.Findings, f => f.Kind == "SnapshotTable"
                    && f.Message.Contains($"{length:#,0} bytes of extra data", StringComparison.Ordinal));
                if (repairs)
                {
                    Assert.Equal(0, (await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None)).Corruptions);
                }
                else
                {
                    _ = await ((ISnapshots)disk).CreateSnapshotAsync("third", DateTimeOffset.UnixEpoch, CancellationToken.None);
                }
            }
            Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), $"{length}, {repairs}")).Leaks);
            await using BlockNode again = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
            string[] kept = [.. (await ((ISnapshots)again).GetSnapshotsAsync(CancellationToken.None)).Select(s => s.Name)];
            Assert.Equal(repairs ? names : [.. names, "third"], kept);
        }
    }

    [Fact]
    public async Task A_place_for_no_snapshots_that_cannot_be_is_repaired()
    {
        byte[] image = await MemoryDisk.NewAsync("size=1M");
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(OffsetAt), 0x12345);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true)).AsTask());
        Assert.Equal((DiskImageErrorKind.InvalidFormat, (long)OffsetAt), (error.Kind, error.Offset));
        var file = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true))
        {
            Assert.Contains((await ((ICheckable)disk).CheckAsync(null, CancellationToken.None)).Findings, f => f.Kind == "SnapshotTable");
            Assert.Equal(0, (await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None)).Corruptions);
        }
        await using BlockNode mended = await MemoryDisk.OpenAsync(file);
        Assert.Empty(await ((ISnapshots)mended).GetSnapshotsAsync(CancellationToken.None));
    }

    private static Qcow2Snapshot Empty(int id)
        => new() { Id = $"{id}", Name = $"{id}", L1Offset = 0, L1Size = 0, VirtualSize = 0 };

    /// <summary>An image of one cluster less than nothing: no disk, but snapshots of it.</summary>
    private static async Task<byte[]> WithAsync(Qcow2Snapshot[] snapshots)
    {
        const int Cluster = 64 << 10;
        byte[] image = await MemoryDisk.NewAsync("size=0");
        byte[] table = Qcow2Snapshot.ToTable(snapshots);
        int place = (image.Length + Cluster - 1) / Cluster * Cluster;
        Array.Resize(ref image, place + ((table.Length + Cluster - 1) / Cluster * Cluster));
        table.CopyTo(image, place);
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(SnapshotsAt), snapshots.Length);
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(OffsetAt), place);
        int block = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan((int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(48))));
        for (int cluster = place / Cluster; cluster < image.Length / Cluster; cluster++)
        {
            image[block + (cluster * 2) + 1] = 1;
        }
        return image;
    }
}
