using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Campaign;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Damages tables at random; a check never fails, and a repair ends in an image that qemu-img calls clean.</summary>
public sealed class Qcow2RepairTests
{
    private static readonly string[] Shapes =
    [
        "cluster_size=4k", "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=64k", "cluster_size=1k,refcount_bits=1",
        "cluster_size=2k,refcount_bits=64",
    ];

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(0, 120)];

    [OracleTheory]
    [MemberData(nameof(Seeds))]
    public async Task Repair_ends_clean_and_keeps_what_can_be_reached(int seed)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"], options = Shapes[seed % Shapes.Length];
        await Images.MakeRawAsync(folder["a.raw"], 1 << 20, seed, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2", options, new() { Compress = seed % 2 == 0, Workers = 1 });
        byte[] image = await File.ReadAllBytesAsync(path);
        Damage(image, new Random(seed));
        await File.WriteAllBytesAsync(path, image);
        CheckReport found;
        List<byte[]?> before;
        await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
        {
            found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            before = await ReadableAsync(disk);
        }
        (int judged, _, _) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);
        Assert.True(judged == 0 || found.Findings.Count > 0, $"seed {seed}: qemu-img finds something ({judged}), we do not");
        Assert.Equal(await File.ReadAllBytesAsync(path), image);

        CheckReport left = await RepairAsync(path, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, $"seed {seed}: {string.Join("\n", left.Findings)}");
        await Programs.CheckAsync(path);
        await using BlockNode repaired = await Images.OpenAsync(path, "qcow2", writable: true);
        List<byte[]?> after = await ReadableAsync(repaired);
        for (int i = 0; i < before.Count; i++)
        {
            Assert.True(before[i] is null || before[i]!.AsSpan().SequenceEqual(after[i]), $"seed {seed}: {i * 512} reads otherwise");
        }
    }

    [OracleTheory]
    [InlineData("cluster_size=4k", 0x70)]
    [InlineData("cluster_size=4k,compat=0.10", 0x48)]
    public async Task An_end_marker_that_claims_bytes_is_found_and_put_right(string options, int extensions)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.CreateAsync(path, "qcow2", $"size=1M,{options}");
        byte[] image = await File.ReadAllBytesAsync(path);
        int at = extensions;
        while (BinaryPrimitives.ReadUInt32BigEndian(image.AsSpan(at)) != 0)
        {
            at += 8 + ((BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(at + 4)) + 7) & ~7);
        }
        image[at + 4] = 0x80;
        await File.WriteAllBytesAsync(path, image);
        (int judged, _, _) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);
        Assert.NotEqual(0, judged);
        await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
        {
            CheckReport found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.Equal(("HeaderExtension", at), (Assert.Single(found.Findings).Kind, (int)found.Findings[0].HostOffset!));
        }
        CheckReport left = await RepairAsync(path, RepairMode.All);
        Assert.Empty(left.Findings);
        await Programs.CheckAsync(path);
    }

    /// <summary>What each sector reads as; null where it cannot be read.</summary>
    private static async Task<List<byte[]?>> ReadableAsync(BlockNode disk)
    {
        var sectors = new List<byte[]?>();
        for (long at = 0; at < disk.Length; at += 512)
        {
            byte[] sector = new byte[512];
            try
            {
                await disk.ReadAsync(at, sector);
                sectors.Add(sector);
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                sectors.Add(null);
            }
        }
        return sectors;
    }

    [OracleTheory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512,compat=0.10")]
    [InlineData("cluster_size=64k,refcount_bits=1")]
    public async Task Refcounts_are_built_anew_when_their_table_is_gone(string options)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["a.raw"], 3 << 20, 1, unit: 8192);
        foreach (int how in new[] { 0, 1, 2 })
        {
            File.Delete(path);
            await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2", options);
            byte[] image = await File.ReadAllBytesAsync(path);
            int table = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48));
            switch (how)
            {
                case 0:
                    image.AsSpan(table, 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20))).Clear();
                    break;
                case 1:
                    BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(48), 12345);
                    break;
                default:
                    BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(48), 1L << 40);
                    BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(56), int.MaxValue);
                    break;
            }
            await File.WriteAllBytesAsync(path, image);
            CheckReport left = await RepairAsync(path, RepairMode.All);
            Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join("\n", left.Findings));
            await Programs.CheckAsync(path);
            await Programs.CompareAsync(folder["a.raw"], "raw", path, "qcow2");
        }
    }

    /// <summary>New refcounts follow right behind what is in use: the file must not get a gap of hundreds of clusters.</summary>
    [Fact]
    public async Task Refcounts_that_are_built_anew_make_a_small_file_longer_by_themselves_only()
    {
        const int Cluster = 64 << 10;
        byte[] image = await MemoryDisk.NewAsync($"size=64M,cluster_size={Cluster}");
        image.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48)), Cluster).Clear();
        var file = new MemoryNode(image);
        await using BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true);
        CheckReport left = await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None);
        Assert.True(left is { Corruptions: 0, Leaks: 0 }, string.Join("\n", left.Findings));
        Assert.InRange(file.Length, image.Length, image.Length + (2 * Cluster)); // a table and a block
    }

    /// <summary>QEMU calls a descriptor broken that reaches a cluster or more past the file, even if its data ends before.</summary>
    [OracleTheory]
    [InlineData("")]
    [InlineData(",extended_l2=on")]
    public async Task A_compressed_cluster_whose_length_leaves_the_file_keeps_its_data(string options)
    {
        const int Cluster = 16 << 10, Guests = 4;
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        byte[] contents = new byte[Guests * Cluster];
        contents.AsSpan().Fill(7);
        await File.WriteAllBytesAsync(folder["a.raw"], contents);
        await Images.ConvertAsync(
            folder["a.raw"], "raw", path, "qcow2", $"cluster_size={Cluster}{options}", new() { Compress = true, Workers = 1 });
        byte[] image = await File.ReadAllBytesAsync(path);
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40));
        int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(l1)) & 0x00FF_FFFF_FFFF_FE00);
        int last = l2 + ((Guests - 1) * (options.Length == 0 ? 8 : 16)), end = image.Length;
        const ulong MostSectors = 63UL << 56, IsCompressed = 1UL << 62; // clusters of 16k: the six bits below the flags
        int data = (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(last)) & ~(MostSectors | IsCompressed));
        Array.Resize(ref image, end + 512);
        image.AsSpan(data, 512).CopyTo(image.AsSpan(end));
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(last), (uint)end | MostSectors | IsCompressed);
        await File.WriteAllBytesAsync(path, image);
        (int judged, _, _) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);
        Assert.NotEqual(0, judged);
        await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
        {
            CheckReport found = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.Contains(found.Findings, f => f is { Kind: "CompressedDescriptor", GuestOffset: (Guests - 1) * Cluster });
        }

        CheckReport left = await RepairAsync(path, RepairMode.All);
        Assert.True(left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join("\n", left.Findings));
        await Programs.CheckAsync(path);
        await Programs.CompareAsync(folder["a.raw"], "raw", path, "qcow2");
    }

    [OracleFact]
    public async Task Leaks_mode_gives_space_back_and_touches_nothing_else()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["a.raw"], 1 << 20, 1, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2");
        byte[] image = await File.ReadAllBytesAsync(path);
        int table = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48));
        int block = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(table));
        BinaryPrimitives.WriteUInt16BigEndian(image.AsSpan(block + 200), 1);
        await File.WriteAllBytesAsync(path, image);
        CheckReport left = await RepairAsync(path, RepairMode.Leaks);
        Assert.Equal((1, 0, 0), (left.LeaksFixed, left.Leaks, left.Corruptions));
        await Programs.CheckAsync(path);
    }

    [OracleFact]
    public async Task Leaks_mode_frees_nothing_while_the_snapshot_table_cannot_be_read()
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["a.raw"], 1 << 20, 1, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2");
        await Programs.QemuImgAsync("snapshot", "-c", "kept", path);
        byte[] image = await File.ReadAllBytesAsync(path);
        // its L1 table's size
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(64)) + 8), int.MaxValue);
        await File.WriteAllBytesAsync(path, image);
        CheckReport left = await RepairAsync(path, RepairMode.Leaks);
        Assert.Equal(0, left.LeaksFixed);
        Assert.Equal(image, await File.ReadAllBytesAsync(path));
    }

    /// <summary>Damage to snapshots, and the names of those that a repair can keep.</summary>
    [OracleTheory]
    [InlineData("first entry", "")]
    [InlineData("second entry", "one")]
    [InlineData("count", "one,two,three")]
    [InlineData("offset", "")]
    [InlineData("misaligned offset", "")]
    [InlineData("L1 past the end", "one,three")]
    [InlineData("L1 of another", "one,three")]
    [InlineData("L1 under data", "one,two,three")]
    [InlineData("table under data", "one,two,three")]
    public async Task Snapshots_that_can_be_read_are_kept_by_a_repair(string damage, string kept)
    {
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        await Images.MakeRawAsync(folder["a.raw"], 1 << 20, 1, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2", "cluster_size=4k");
        foreach ((string name, int at) in new[] { ("one", 0), ("two", 100_000), ("three", 200_000) })
        {
            await Programs.QemuImgAsync("snapshot", "-c", name, path);
            await Programs.RunAsync("qemu-io", "-c", $"write -P 7 {at} 4096", path);
        }
        byte[] contents = new byte[1 << 20];
        await using (BlockNode disk = await Images.OpenAsync(path, "qcow2"))
        {
            await disk.ReadAsync(0, contents);
        }
        byte[] image = await File.ReadAllBytesAsync(path);
        int table = (int)U64(64), second = EntryAfter(table);
        const ulong Copied = 1UL << 63, OffsetBits = 0x00FF_FFFF_FFFF_FE00;
        int firstL2 = (int)(U64((int)U64(40)) & OffsetBits);
        switch (damage)
        {
            case "first entry":
                BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(table + 8), int.MaxValue);
                break;
            case "second entry":
                BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(second + 36), int.MaxValue);
                break;
            case "count":
                BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(60), 4); // what follows the third has an L1 table of no entries
                image.AsSpan(EntryAfter(EntryAfter(second)), 40).Fill(0xFF);
                break;
            case "offset":
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(64), 1UL << 50);
                break;
            case "misaligned offset":
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(64), ulong.MaxValue);
                break;
            case "L1 past the end":
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(second), 1UL << 40);
                break;
            case "L1 of another":
                image.AsSpan(table, 8).CopyTo(image.AsSpan(second, 8));
                break;
            case "L1 under data":
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(firstL2 + (50 * 8)), U64(second) | Copied);
                break;
            default:
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(firstL2 + (50 * 8)), U64(64) | Copied);
                break;
        }
        await File.WriteAllBytesAsync(path, image);

        CheckReport left = await RepairAsync(path, RepairMode.All);
        bool isShared = damage.Contains("under data", StringComparison.Ordinal);
        Assert.True(isShared || left is { Corruptions: 0, Leaks: 0, CheckErrors: 0 }, string.Join("\n", left.Findings));
        Assert.True(left.CorruptionsFixed > 0);
        await Programs.CheckAsync(path);
        await using BlockNode repaired = await Images.OpenAsync(path, "qcow2", writable: true);
        Assert.Equal(kept, string.Join(',', (await ((ISnapshots)repaired).GetSnapshotsAsync(CancellationToken.None)).Select(s => s.Name)));
        byte[] now = new byte[contents.Length];
        await repaired.ReadAsync(0, now);
        if (!isShared)
        {
            Assert.Equal(contents, now);
        }
        if (kept.Contains("one", StringComparison.Ordinal))
        {
            await using BlockNode one = await ((ISnapshots)repaired).OpenSnapshotAsync("one", CancellationToken.None);
            byte[] then = new byte[contents.Length];
            await one.ReadAsync(0, then);
            byte[] raw = await File.ReadAllBytesAsync(folder["a.raw"]);
            Assert.True(isShared || raw.AsSpan().SequenceEqual(then));
        }

        ulong U64(int at) => BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(at));

        int EntryAfter(int at) => at + ((40 + BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(at + 36))
            + BinaryPrimitives.ReadUInt16BigEndian(
                image.AsSpan(at + 12)) + BinaryPrimitives.ReadUInt16BigEndian(image.AsSpan(at + 14)) + 7) & ~7);
    }

    /// <summary>A small file whose L1 table leads to the same L2 table over and over must not be read over and over.</summary>
    [Fact]
    public async Task Tables_that_many_entries_lead_to_are_read_once()
    {
        const int Entries = 32 << 10, ClusterBits = 16;
        byte[] made = await MemoryDisk.NewAsync($"size={(long)Entries << (ClusterBits + 13)},cluster_size={1 << ClusterBits}");
        var grown = new MemoryNode(made);
        await using (BlockNode disk = await MemoryDisk.OpenAsync(grown))
        {
            await disk.WriteAsync(0, new byte[1 << ClusterBits]);
        }
        byte[] image = grown.ToArray();
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40));
        for (int i = 1; i < Entries; i++)
        {
            image.AsSpan(l1, 8).CopyTo(image.AsSpan(l1 + (i * 8)));
        }
        foreach (bool repair in new[] { false, true })
        {
            var file = new CountingNode(new MemoryNode((byte[])image.Clone()));
            await using BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true);
            CheckReport report = repair
                ? await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None)
                : await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.Equal(repair, report.Corruptions == 0);
            Assert.True(file.Bytes < 20L * image.Length, $"{file.Bytes:#,0} bytes were read and written of a file of {image.Length:#,0}");
        }
    }

    private static async Task<CheckReport> RepairAsync(string path, RepairMode mode)
    {
        OpenedImage opened = await Images.Opener.OpenAsync(
            new OpenRequest(path) { Format = "qcow2", Writable = true, ForRepair = true, WithBacking = false }, CancellationToken.None);
        await using (opened)
        {
            return await ((IRepairable)opened.Node).RepairAsync(mode, null, CancellationToken.None);
        }
    }

    /// <summary>Flips, zeroes and duplicates entries of the L1, L2 and refcount tables.</summary>
    private static void Damage(byte[] image, Random random)
    {
        int cluster = 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20));
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40));
        int l1Size = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(36));
        int refcounts = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(48));
        var tables = new List<(int Offset, int Length)> { (l1, l1Size * 8), (refcounts, cluster) };
        const ulong OffsetBits = 0x00FF_FFFF_FFFF_FE00;
        for (int i = 0; i < l1Size; i++)
        {
            int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(l1 + (i * 8))) & OffsetBits);
            if (l2 != 0)
            {
                tables.Add((l2, cluster));
            }
        }
        tables.Add((
            (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(refcounts)) & OffsetBits),
            Math.Min(cluster, image.Length / cluster / 8)));
        byte[] original = [.. image];
        do
        {
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                (int offset, int length) = tables[random.Next(tables.Count)];
                (int from, int fromLength) = tables[random.Next(tables.Count)];
                int at = offset + (random.Next(Math.Max(1, length / 8)) * 8), other = from + (random.Next(Math.Max(1, fromLength / 8)) * 8);
                switch (random.Next(4))
                {
                    case 0:
                        image[at + random.Next(8)] ^= (byte)(1 << random.Next(8));
                        break;
                    case 1:
                        image.AsSpan(at, 8).Clear();
                        break;
                    case 2:
                        image.AsSpan(other, 8).CopyTo(image.AsSpan(at, 8));
                        break;
                    default:
                        random.NextBytes(image.AsSpan(at, 8));
                        break;
                }
            }
        }
        while (image.AsSpan().SequenceEqual(original));
    }
}
