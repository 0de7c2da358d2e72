using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Damages tables at random; a check never fails, and a repair ends in an image that qemu-img calls clean.</summary>
public sealed class Qcow2RepairTests
{
    private static readonly string[] Shapes =
    [
        "cluster_size=4k", "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=64k", "cluster_size=1k,refcount_bits=1", "cluster_size=2k,refcount_bits=64",
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
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(64)) + 8), int.MaxValue); // its L1 table's size
        await File.WriteAllBytesAsync(path, image);
        CheckReport left = await RepairAsync(path, RepairMode.Leaks);
        Assert.Equal(0, left.LeaksFixed);
        Assert.Equal(image, await File.ReadAllBytesAsync(path));
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
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(40)), l1Size = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(36));
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
        tables.Add(((int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(refcounts)) & OffsetBits), Math.Min(cluster, image.Length / cluster / 8)));
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
