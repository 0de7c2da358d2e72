using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Campaign;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Hostile;

/// <summary>What a small file can buy: whatever its tables claim, the work follows the bytes that it has.</summary>
public sealed class WorkTests
{
    private const ulong Copied = 1UL << 63, OffsetBits = 0x00FF_FFFF_FFFF_FE00;

    /// <summary>A refcount table of a megabyte whose entries all name one block.</summary>
    [Fact]
    public async Task A_refcount_block_that_every_entry_names_is_read_once()
    {
        const int Table = 1 << 20;
        byte[] made = await MemoryDisk.NewAsync("size=1M,cluster_size=64k");
        ulong block = BinaryPrimitives.ReadUInt64BigEndian(made.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(made.AsSpan(48))));
        int at = (made.Length + 65535) & ~65535;
        Array.Resize(ref made, at + Table);
        for (int i = 0; i < Table; i += 8)
        {
            BinaryPrimitives.WriteUInt64BigEndian(made.AsSpan(at + i), block);
        }
        BinaryPrimitives.WriteUInt64BigEndian(made.AsSpan(48), (ulong)at);
        BinaryPrimitives.WriteInt32BigEndian(made.AsSpan(56), Table >> 16);
        await MeasureAsync(made);
    }

    /// <summary>An L1 table of four megabytes whose entries lead to places in the file, beside them, or past its end.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task L1_entries_that_lead_anywhere_cost_no_more_than_the_file(int seed)
    {
        const int Entries = 512 << 10, Cluster = 64 << 10;
        byte[] made = await MemoryDisk.NewAsync($"size={(long)Entries * 8192 * Cluster},cluster_size={Cluster}");
        Array.Resize(ref made, made.Length + (40 * Cluster));
        var random = new Random(seed);
        random.NextBytes(made.AsSpan(made.Length - (8 * Cluster)));
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(made.AsSpan(40));
        for (int i = 0; i < Entries; i++)
        {
            ulong place = seed switch
            {
                1 => (ulong)random.Next(made.Length / Cluster) * Cluster,
                2 => (ulong)random.NextInt64(1L << 40) & OffsetBits,
                _ => (ulong)random.NextInt64(1L << 20) * Cluster,
            };
            BinaryPrimitives.WriteUInt64BigEndian(made.AsSpan(l1 + (i * 8)), place | Copied);
        }
        await MeasureAsync(made);
    }

    /// <summary>Clusters of the greatest size, with a wrong flag in the last entry.</summary>
    [Fact]
    public async Task A_repair_of_large_clusters_reads_each_table_a_few_times()
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync("size=1T,cluster_size=2M"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(disk.Length - 512, new byte[512]);
        }
        byte[] made = file.ToArray();
        int l1 = (int)BinaryPrimitives.ReadUInt64BigEndian(made.AsSpan(40));
        int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(made.AsSpan(l1 + 8)) & OffsetBits);
        made[l2 + (2 << 20) - 8] ^= 0x80;
        await MeasureAsync(made);
    }

    /// <summary>Opens, maps, checks, converts and repairs, and counts.</summary>
    private static async Task MeasureAsync(byte[] image)
    {
        long most = (40L * image.Length) + (16 << 20);
        foreach (string what in new[] { "map", "check", "convert", "repair leaks", "repair all" })
        {
            bool isRepair = what.StartsWith("repair", StringComparison.Ordinal);
            var file = new CountingNode(new MemoryNode((byte[])image.Clone(), readOnly: !isRepair));
            long extents = 0;
            try
            {
                await using BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: isRepair
                    || what.Equals("check", StringComparison.Ordinal));
                switch (what)
                {
                    case "map":
                        await foreach (BlockExtent _ in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
                        {
                            extents++;
                        }
                        break;
                    case "check":
                        _ = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
                        break;
                    case "convert":
                        var target = new MemoryNode();
                        await MemoryDisk.CreateAsync(target, $"size={disk.Length},cluster_size=2M");
                        await using (BlockNode to = await MemoryDisk.OpenAsync(target))
                        {
                            _ = await new ConvertJob(disk, to, new ConvertOptions { Workers = 1 }).RunAsync(null, CancellationToken.None);
                        }
                        break;
                    default:
                        _ = await ((IRepairable)disk).RepairAsync(what.EndsWith("all", StringComparison.Ordinal)
                            ? RepairMode.All
                            : RepairMode.Leaks, null, CancellationToken.None);
                        break;
                }
            }
            catch (DiskImageException)
            {
                // An image may be refused, as long as that is cheap.
            }
            Assert.True(file.Bytes < most, $"{what}: {file.Bytes:#,0} bytes of a file of {image.Length:#,0}");
            Assert.True(file.Requests < 20_000 + (image.Length / 512), $"{what}: {file.Requests:#,0} requests");
            Assert.True(extents < image.Length, $"{what}: {extents:#,0} extents of a file of {image.Length:#,0}");
        }
    }
}
