using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Bits that contradict each other, where going by one of them would put bytes in the wrong place or make up contents.</summary>
public sealed class Qcow2ContradictionTests
{
    private const int Cluster = 64 << 10, AutoClearAt = 88;
    private const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00;

    /// <summary>
    /// Both flags of a subcluster, a stored one without a host cluster: the first with data beside it, the second in an empty cluster.
    /// </summary>
    [Theory]
    [InlineData(0, 0x0000_0002_0000_0003UL, true)]
    [InlineData(0, 0xFFFF_FFFF_8000_0000UL, true)]
    [InlineData(2, 0x0000_0000_0000_0001UL, false)]
    [InlineData(2, 0x0000_0001_8000_0000UL, false)]
    public async Task A_contradictory_subcluster_entry_is_an_error_and_a_finding(int cluster, ulong bitmap, bool isStored)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={4 * Cluster},extended_l2=on"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[4096]);
        }
        byte[] image = file.ToArray();
        int entry = (int)FirstL2(image) + (cluster * 16);
        Assert.Equal(isStored, (BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(entry)) & OffsetMask) != 0);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(entry + 8), bitmap);
        long at = cluster * Cluster;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode((byte[])image.Clone())))
        {
            await CorruptAsync(() => disk.ReadAsync(at, new byte[512]));
            await CorruptAsync(() => disk.ReadAsync(at + Cluster - 512, new byte[512]));
            await CorruptAsync(() => disk.WriteAsync(at + 8192, new byte[512]));
            await CorruptAsync(() => disk.WriteAsync(at, new byte[Cluster]));
            await CorruptAsync(() => disk.WriteZeroesAsync(at, Cluster));
            await CorruptAsync(() => disk.DiscardAsync(at + 2048, 4096));
            await CorruptAsync(async () => _ = await disk.GetExtentAsync(at, 1));
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.Contains(report.Findings, f => f is { Kind: "SubclusterBitmap", Severity: CheckSeverity.Corruption });
            await disk.WriteAsync(Cluster, new byte[Cluster]); // the others go on
        }
        if (Programs.WhyMissing("qemu-io") is null)
        {
            using var folder = new TestFolder();
            await File.WriteAllBytesAsync(folder["bad.qcow2"], image);
            (_, string output, string errors) = await Programs.TryAsync("qemu-io", "-r", "-c", $"read {at} 512", folder["bad.qcow2"]);
            Assert.Contains("failed", output + errors, StringComparison.Ordinal); // QEMU thinks so, too
        }
    }

    [Fact]
    public async Task A_raw_data_file_that_is_not_there_is_refused_and_repaired()
    {
        byte[] image = await MemoryDisk.NewAsync($"size={4 * Cluster}");
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(AutoClearAt), 2);
        foreach (bool isReadOnly in new[] { true, false })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => MemoryDisk.OpenAsync(new MemoryNode((byte[])image.Clone(), isReadOnly)).AsTask());
            Assert.Equal((DiskImageErrorKind.InvalidFormat, (long)AutoClearAt), (error.Kind, error.Offset));
            Assert.Contains("no data file", error.Message, StringComparison.Ordinal);
        }
        var file = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true))
        {
            CheckReport found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.Contains(found.Findings, f => f.Kind == "DataFileRaw");
            CheckReport left = await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 1), (left.Corruptions, left.CorruptionsFixed));
        }
        await using BlockNode mended = await MemoryDisk.OpenAsync(file);
        await mended.WriteZeroesAsync(0, Cluster); // went to the header's place
        await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "mended");
    }

    /// <summary>
    /// A raw data file and a backing file exclude each other; where both are said, the tables decide, and the bit
    /// goes with the first write.
    /// </summary>
    [Fact]
    public async Task A_raw_data_file_over_a_backing_file_is_none()
    {
        using var folder = new TestFolder();
        byte[] below = new byte[4 * Cluster];
        Array.Fill(below, (byte)0xBB);
        await File.WriteAllBytesAsync(folder["base.raw"], below);
        await Images.CreateAsync(
            folder["a.qcow2"], "qcow2", $"size={4 * Cluster},backing_file=base.raw,backing_fmt=raw,data_file={folder["a.data"]}");
        byte[] image = await File.ReadAllBytesAsync(folder["a.qcow2"]);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(AutoClearAt), 2);
        await File.WriteAllBytesAsync(folder["a.qcow2"], image);
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            await disk.WriteZeroesAsync(Cluster, Cluster);
            await disk.DiscardAsync(2 * Cluster, Cluster);
            below.AsSpan(Cluster, Cluster).Clear();
            byte[] got = new byte[4 * Cluster];
            await disk.ReadAsync(0, got);
            Assert.Equal(below, got);
        }
        Assert.Equal(0UL, BinaryPrimitives.ReadUInt64BigEndian((await File.ReadAllBytesAsync(folder["a.qcow2"])).AsSpan(AutoClearAt)));
    }

    /// <summary>QEMU takes a data cluster anywhere but at its guest offset for an error.</summary>
    [Fact]
    public async Task Data_elsewhere_in_the_data_file_is_an_error()
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={4 * Cluster},data_file={folder["a.data"]}");
        await using (BlockNode disk = await Images.OpenAsync(folder["a.qcow2"], writable: true))
        {
            await disk.WriteAsync(0, new byte[2 * Cluster]);
        }
        byte[] image = await File.ReadAllBytesAsync(folder["a.qcow2"]);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan((int)FirstL2(image)), 0x8000_0000_0000_0000UL | Cluster);
        await File.WriteAllBytesAsync(folder["a.qcow2"], image);
        await using BlockNode bad = await Images.OpenAsync(folder["a.qcow2"], writable: true);
        await CorruptAsync(() => bad.ReadAsync(0, new byte[512]));
        await CorruptAsync(() => bad.WriteAsync(0, new byte[512]));
        await bad.ReadAsync(Cluster, new byte[512]);
    }

    [Fact]
    public async Task Of_two_header_extensions_of_a_type_the_last_counts()
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["base"], "qcow2", $"size={Cluster}");
        await Images.CreateAsync(folder["a.qcow2"], "qcow2", $"size={Cluster},backing_file=base,backing_fmt=qcow2");
        byte[] image = await File.ReadAllBytesAsync(folder["a.qcow2"]);
        int at = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(100)); // the header's length: the first extension is the backing format
        Assert.Equal(0xE2792ACA, BinaryPrimitives.ReadUInt32BigEndian(image.AsSpan(at)));
        byte[] second = new byte[16];
        BinaryPrimitives.WriteUInt32BigEndian(second, 0xE2792ACA);
        BinaryPrimitives.WriteUInt32BigEndian(second.AsSpan(4), 3);
        Encoding.ASCII.GetBytes("raw", second.AsSpan(8));
        int name = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(8));
        byte[] two = [.. image[..(at + 16)], .. second, .. image[(at + 16)..(Cluster - 16)], .. image[Cluster..]];
        BinaryPrimitives.WriteInt64BigEndian(two.AsSpan(8), name + 16);
        await File.WriteAllBytesAsync(folder["a.qcow2"], two);
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(two, readOnly: true));
        Assert.Equal("raw", ((IDescribed)disk).Describe().BackingFormat);
        if (Programs.WhyMissing("qemu-img") is null)
        {
            Assert.Contains("backing file format: raw", await Programs.QemuImgAsync("info", folder["a.qcow2"]), StringComparison.Ordinal);
        }
    }

    private static async Task CorruptAsync(Func<ValueTask> request)
    {
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => request().AsTask());
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
    }

    private static long FirstL2(byte[] image)
    {
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(40));
        return (long)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(l1)) & OffsetMask);
    }
}
