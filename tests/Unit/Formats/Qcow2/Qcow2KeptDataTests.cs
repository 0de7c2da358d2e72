using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>What a repair must keep: all that can be read, and while the root table is in doubt every byte of the file.</summary>
public sealed class Qcow2KeptDataTests
{
    private const ulong Copied = 1UL << 63, OffsetBits = 0x00FF_FFFF_FFFF_FE00;

    public static TheoryData<string> Shapes()
        => ["cluster_size=4k", "cluster_size=512,refcount_bits=1", "cluster_size=64k,compat=0.10", "cluster_size=16k,extended_l2=on"];

    /// <summary>The table's size claims more than the file has, or than lies there: what the disk needs of it stays.</summary>
    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task An_L1_size_that_was_damaged_loses_nothing(string options)
    {
        byte[] image = await FilledAsync(options), contents = await ReadAsync(image);
        for (int bit = 0; bit < 22; bit++)
        {
            byte[] damaged = (byte[])image.Clone();
            BinaryPrimitives.WriteInt32BigEndian(damaged.AsSpan(36), BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(36)) ^ (1 << bit));
            var file = new MemoryNode(damaged);
            if (await RepairAsync(file, RepairMode.All) is not { } left)
            {
                continue; // too small for the disk: it is not opened
            }
            Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, $"bit {bit}: {string.Join('\n', left.Findings.Take(3))}");
            byte[] now = await ReadAsync(file.ToArray());
            Assert.True(contents.AsSpan().SequenceEqual(now), $"bit {bit}: reads otherwise");
        }
    }

    [Theory]
    [InlineData("past the end", RepairMode.All)]
    [InlineData("past the end", RepairMode.Leaks)]
    [InlineData("the header", RepairMode.All)]
    [InlineData("the header", RepairMode.Leaks)]
    [InlineData("a free cluster", RepairMode.All)]
    [InlineData("a free cluster", RepairMode.Leaks)]
    [InlineData("the refcount table", RepairMode.All)]
    [InlineData("the refcount table", RepairMode.Leaks)]
    [InlineData("cut off", RepairMode.All)]
    public async Task Nothing_is_given_back_while_the_L1_table_is_in_doubt(string where, RepairMode mode)
    {
        byte[] image = await FilledAsync("cluster_size=4k");
        int end = (image.Length + 4095) & ~4095;
        Array.Resize(ref image, end + 4096); // a cluster that the refcounts call free
        if (where.Equals("cut off", StringComparison.Ordinal))
        {
            BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(40), end);
            Array.Resize(ref image, end + 2);
        }
        else
        {
            BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(40), where switch
            {
                "past the end" => 1UL << 30,
                "the header" => 0,
                "a free cluster" => (ulong)end,
                _ => BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48)),
            });
        }
        var file = new MemoryNode((byte[])image.Clone());
        CheckReport? left = await RepairAsync(file, mode);
        Assert.Equal(image, file.ToArray());
        Assert.NotNull(left);
        Assert.Equal((0L, 0L), (left.LeaksFixed, left.CorruptionsFixed));
        Assert.Contains(left.Findings, f => f.Kind.Equals("RootTable", StringComparison.Ordinal));
        file = new MemoryNode((byte[])image.Clone());
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
        {
            await using BlockNode disk = await MemoryDisk.OpenAsync(file);
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        });
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Equal(image, file.ToArray());
        try
        {
            await using BlockNode disk = await MemoryDisk.OpenAsync(file);
            await disk.ResizeAsync(disk.Length / 2);
        }
        catch (DiskImageException)
        {
            // A table that is not in the file is refused.
        }
        Assert.True(
            image.AsSpan(4096 * 8, 200_000).SequenceEqual(file.ToArray().AsSpan(4096 * 8, 200_000)),
            "what may be the disk's data was given up");
    }

    /// <summary>A lost cluster reads as zeroes where it held data; what came from the backing image, or was zero, stays so.</summary>
    [Fact]
    public async Task Only_the_subclusters_that_are_lost_read_as_zeroes()
    {
        const int Cluster = 64 << 10, Sub = Cluster / 32;
        byte[] backing = Filled(1 << 20, 0xB0);
        var made = new MemoryNode(
            await MemoryDisk.NewAsync($"size=1M,cluster_size={Cluster},extended_l2=on,backing_file=b,backing_fmt=raw"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made, backing))
        {
            await disk.WriteAsync(2 * Sub, Filled(3 * Sub, 0xA0));
            await disk.WriteZeroesAsync(8 * Sub, 2 * Sub);
        }
        byte[] image = made.ToArray();
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(L2Of(image)), (1UL << 40) | Copied);
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join('\n', left!.Findings.Take(3)));
        byte[] expected = (byte[])backing.Clone();
        expected.AsSpan(2 * Sub, 3 * Sub).Clear();
        expected.AsSpan(8 * Sub, 2 * Sub).Clear();
        Assert.Equal(expected, await ReadAsync(file.ToArray(), backing));
    }

    /// <summary>Version 2 has no zeroes: an unallocated cluster would show the backing image's old data.</summary>
    [Fact]
    public async Task What_a_version_2_overlay_lost_does_not_become_old_data()
    {
        byte[] backing = Filled(1 << 20, 0xB0);
        var made = new MemoryNode(await MemoryDisk.NewAsync("size=1M,cluster_size=4k,compat=0.10,backing_file=b,backing_fmt=raw"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made, backing))
        {
            await disk.WriteAsync(0, Filled(4 * 4096, 0xA0));
        }
        byte[] image = made.ToArray();
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(L2Of(image)), (1UL << 40) | Copied);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(L2Of(image) + 16), 12345 << 9 | Copied);
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join('\n', left!.Findings.Take(3)));
        byte[] expected = (byte[])backing.Clone();
        expected.AsSpan(0, 4 * 4096).Fill(0xA0);
        expected.AsSpan(0, 4096).Clear();
        expected.AsSpan(2 * 4096, 4096).Clear();
        Assert.Equal(expected, await ReadAsync(file.ToArray(), backing));
    }

    [Theory]
    [InlineData("")]
    [InlineData(",compression_type=zstd")]
    public async Task A_file_cut_inside_a_compressed_cluster_is_not_called_sound(string options)
    {
        byte[] contents = new byte[256 << 10];
        new Random(3).NextBytes(contents.AsSpan(0, 40_000)); // in each cluster half of noise, so that it compresses, but not to nothing
        for (int at = 40_000; at + 20_000 < contents.Length; at += 65_536)
        {
            new Random(at).NextBytes(contents.AsSpan(at, 20_000));
        }
        byte[] image = await MemoryDisk.CompressedAsync(contents, options);
        long data = 0;
        int l2 = L2Of(image);
        for (int i = 0; i < 4; i++)
        {
            data = Math.Max(data, (long)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(l2 + (i * 8))) & ((1UL << 54) - 1)));
        }
        byte[] cut = image[..(int)(data + 5000)];
        await using (BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode((byte[])cut.Clone(), readOnly: true)))
        {
            CheckReport found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            CheckFinding lost = Assert.Single(found.Findings, f => f.Kind.Equals("CompressedData", StringComparison.Ordinal));
            Assert.Contains($"past the end of the file of {cut.Length:#,0} bytes", lost.Message, StringComparison.Ordinal);
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                async () => await disk.ReadAsync(lost.GuestOffset!.Value, new byte[512]));
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.Contains($"past the end of the file of {cut.Length:#,0} bytes", error.Message, StringComparison.Ordinal);
        }
        var file = new MemoryNode(cut);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        byte[] now = await ReadAsync(file.ToArray()); // all of it can be read
        Assert.True(left is { Corruptions: 0, CheckErrors: 0 } && left.CorruptionsFixed > 0);
        int differing = Enumerable.Range(0, 4).Count(i => !now.AsSpan(i << 16, 1 << 16).SequenceEqual(contents.AsSpan(i << 16, 1 << 16)));
        Assert.Equal(1, differing);
    }

    [Theory]
    [InlineData(0x0000_0000_0000_0001UL)]
    [InlineData(0x8000_0000_0000_0000UL)]
    [InlineData(ulong.MaxValue)]
    public async Task Where_there_are_no_snapshots_a_bad_place_of_their_table_is_repaired(ulong place)
    {
        byte[] image = await FilledAsync("cluster_size=4k"), contents = await ReadAsync(image);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(64), place);
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0, CorruptionsFixed: > 0 }, string.Join('\n', left!.Findings.Take(3)));
        Assert.Equal(contents, await ReadAsync(file.ToArray()));
    }

    /// <summary>The header's own bytes must not come to be a snapshot, whose tables the next writes would take along.</summary>
    [Theory]
    [InlineData(1, "cluster_size=4k")]
    [InlineData(196_608, "cluster_size=4k")]
    [InlineData(1, "cluster_size=64k,compat=0.10")]
    public async Task A_snapshot_table_on_the_header_holds_no_snapshot(int count, string options)
    {
        byte[] image = await FilledAsync(options), contents = await ReadAsync(image);
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(60), count);
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0, CorruptionsFixed: > 0 }, string.Join('\n', left!.Findings.Take(3)));
        Assert.Equal(0, BinaryPrimitives.ReadInt32BigEndian(file.ToArray().AsSpan(60)));
        Assert.Equal(contents, await ReadAsync(file.ToArray()));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.ResizeAsync(disk.Length + (1 << 20));
        }
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "grown")).Leaks);
    }

    /// <summary>A table of several clusters with one bad entry: the others stay.</summary>
    [Fact]
    public async Task A_table_of_508_snapshots_keeps_those_that_can_be_read()
    {
        const int Count = 508, Bad = 300;
        var made = new MemoryNode(await FilledAsync("cluster_size=4k"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made))
        {
            for (int i = 1; i <= Count; i++)
            {
                _ = await ((ISnapshots)disk).CreateSnapshotAsync($"snapshot {i}", DateTimeOffset.UnixEpoch, CancellationToken.None);
            }
        }
        byte[] image = made.ToArray();
        int at = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(64));
        for (int i = 1; i < Bad; i++)
        {
            int extra = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(at + 36));
            int names = BinaryPrimitives.ReadInt16BigEndian(image.AsSpan(at + 12)) + BinaryPrimitives.ReadInt16BigEndian(image.AsSpan(at + 14));
            at += (40 + extra + names + 7) & ~7;
        }
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(at), (1UL << 40) + 1); // its L1 table
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join('\n', left!.Findings.Take(3)));
        await using BlockNode repaired = await MemoryDisk.OpenAsync(file);
        string[] kept = [.. (await ((ISnapshots)repaired).GetSnapshotsAsync(CancellationToken.None)).Select(s => s.Name)];
        Assert.Equal(Enumerable.Range(1, Count).Where(i => i != Bad).Select(i => $"snapshot {i}"), kept, StringComparer.Ordinal);
    }

    /// <summary>
    /// Two entries that lead to one cluster: nobody can tell whose it is, so each gets its own, and a write to one leaves the other.
    /// </summary>
    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task What_two_entries_share_is_copied(string options)
    {
        byte[] image = await FilledAsync(options);
        int l2 = L2Of(image), entry = options.Contains("extended", StringComparison.Ordinal) ? 16 : 8;
        int cluster = 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20));
        image.AsSpan(l2 + entry, entry).CopyTo(image.AsSpan(l2));
        byte[] before = await ReadAsync(image);
        var file = new MemoryNode(image);
        CheckReport? left = await RepairAsync(file, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join('\n', left!.Findings.Take(3)));
        Assert.Equal(before, await ReadAsync(file.ToArray()));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, Filled(cluster, 0x77));
        }
        Filled(cluster, 0x77).CopyTo(before, 0);
        Assert.Equal(before, await ReadAsync(file.ToArray()));
        Assert.Equal(0, (await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "written")).Leaks);
    }

    private static async Task<byte[]> FilledAsync(string options)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size=384k,{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            for (int at = 0; at < 380_000; at += 16_384)
            {
                await disk.WriteAsync(at, Filled(9000, (byte)(1 + (at >> 14))));
            }
        }
        return file.ToArray();
    }

    private static byte[] Filled(int length, byte value)
    {
        byte[] bytes = new byte[length];
        Array.Fill(bytes, value);
        return bytes;
    }

    private static int L2Of(byte[] image)
        => (int)(
            BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40)))) & OffsetBits);

    private static async Task<byte[]> ReadAsync(byte[] image, byte[]? backing = null)
    {
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode((byte[])image.Clone(), readOnly: true), backing);
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    private static async Task<CheckReport?> RepairAsync(MemoryNode file, RepairMode mode)
    {
        try
        {
            await using BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true);
            return await ((IRepairable)disk).RepairAsync(mode, null, CancellationToken.None);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.InvalidFormat)
        {
            return null;
        }
    }
}
