using System.Buffers.Binary;
using DiskImage.Compression;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>
/// Clusters that QEMU compressed, found in the image by a reader of its own; and an image in which ours have taken their place,
/// read by QEMU.
/// </summary>
public sealed class ZstdQcow2Tests
{
    [OracleTheory]
    [InlineData("4k")]
    [InlineData("64k")]
    [InlineData("2M")]
    public async Task What_qemu_compresses_we_read_and_what_we_compress_qemu_reads(string clusterSize)
    {
        using var folder = new TestFolder();
        byte[] data = ZstdInputs.Make("mixed", 8 << 20, seed: 21);
        await File.WriteAllBytesAsync(folder["a.raw"], data);
        await Programs.QemuImgAsync(
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            "-o",
            $"compression_type=zstd,cluster_size={clusterSize}",
            folder["a.raw"],
            folder["a.qcow2"]);
        byte[] image = await File.ReadAllBytesAsync(folder["a.qcow2"]);
        var ours = new MemoryStream();
        await ours.WriteAsync(image);
        byte[] room = new byte[data.Length];
        int found = 0;
        foreach (Cluster cluster in CompressedClusters(image))
        {
            byte[] plain = data[cluster.Guest..(cluster.Guest + cluster.Bytes)];
            byte[] output = new byte[cluster.Bytes];
            // the next cluster's bytes behind it
            byte[] packed = image[cluster.Host..Math.Min(image.Length, cluster.Host + cluster.Length)];
            Assert.True(ZstdCodec.Instance.TryDecompress(packed, output), $"guest offset {cluster.Guest}");
            Assert.Equal(plain, output);
            int length = ZstdCodec.Instance.Compress(plain, room)!.Value;
            cluster.MoveTo((int)ours.Length, length, ours.GetBuffer());
            await ours.WriteAsync(room.AsMemory(0, length));
            found++;
        }
        Assert.True(found > 0);
        ours.SetLength((ours.Length + 65535) & ~65535);
        await File.WriteAllBytesAsync(folder["b.qcow2"], ours.ToArray());
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2");
    }

    /// <summary>The compressed clusters of an image (QEMU's docs/interop/qcow2).</summary>
    private static IEnumerable<Cluster> CompressedClusters(byte[] image)
    {
        int bits = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20));
        int l1Size = BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(36));
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(40));
        int perTable = 1 << (bits - 3);
        for (int i = 0; i < l1Size; i++)
        {
            int l2 = (int)(BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(l1 + (8 * i))) & 0x00FF_FFFF_FFFF_FE00);
            for (int j = 0; l2 != 0 && j < perTable; j++)
            {
                long entry = BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(l2 + (8 * j)));
                if ((entry & Cluster.Compressed) != 0)
                {
                    yield return new(((i * perTable) + j) << bits, bits, l2 + (8 * j), entry);
                }
            }
        }
    }

    /// <summary>A compressed cluster: where it is in the disk, where its L2 entry is in the file, and that entry.</summary>
    private sealed record Cluster(int Guest, int ClusterBits, int EntryAt, long Entry)
    {
        public const long Compressed = 1L << 62;

        public int Bytes => 1 << ClusterBits;

        public int Host => (int)(Entry & ((1L << SectorsShift) - 1));

        public int Length => ((Sectors + 1) * 512) - (Host & 511);

        private int SectorsShift => 62 - (ClusterBits - 8);

        private int Sectors => (int)((Entry & ~Compressed) >> SectorsShift) & ((1 << (ClusterBits - 8)) - 1);

        /// <summary>Points the entry in an image at bytes elsewhere.</summary>
        public void MoveTo(int host, int length, byte[] image)
        {
            long sectors = ((host + length - 1) >> 9) - (host >> 9);
            BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(EntryAt), Compressed | (sectors << SectorsShift) | (uint)host);
        }
    }
}
