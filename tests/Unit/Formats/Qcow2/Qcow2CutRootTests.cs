using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// The file was cut before its L1 table, which lay at its end: what is left may be all of the disk's data, and only the table is gone. A
/// repair that takes space at the end of the file would put something where the table belongs.
/// </summary>
public sealed class Qcow2CutRootTests
{
    private const string RootTable = "RootTable";

    public static TheoryData<string, int, RepairMode> Cases()
    {
        var data = new TheoryData<string, int, RepairMode>();
        foreach (string options in new[]
        {
            "cluster_size=512", "cluster_size=512,refcount_bits=1", "cluster_size=512,compat=0.10", "cluster_size=512,lazy_refcounts=on",
            "cluster_size=4k",
        })
        {
            foreach (int missing in new[] { 0, 1, 511, 512, 513, 5000 }) // bytes before the table that are gone with it
            {
                foreach (RepairMode mode in Enum.GetValues<RepairMode>())
                {
                    data.Add(options, missing, mode);
                }
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_file_that_ends_before_its_L1_table_stays_as_it_is(string options, int missing, RepairMode mode)
    {
        byte[] image = await CutAsync(options, missing);
        foreach (bool isDirty in new[] { false, true })
        {
            if (isDirty && image[7] == 3)
            {
                image[79] |= 1; // the refcounts are to be counted anew, which an open for writing does by itself
            }
            var file = new MemoryNode((byte[])image.Clone());
            await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true))
            {
                CheckReport left = await ((IRepairable)disk).RepairAsync(mode, null, CancellationToken.None);
                CheckFinding finding = Assert.Single(left.Findings, f => f.Kind.Equals(RootTable, StringComparison.Ordinal));
                Assert.Contains("past the end of the file", finding.Message, StringComparison.Ordinal);
                Assert.True(left.CheckErrors > 0);
                Assert.Equal((0L, 0L), (left.LeaksFixed, left.CorruptionsFixed));
            }
            Assert.True(image.AsSpan().SequenceEqual(file.ToArray()), $"dirty: {isDirty}: the repair changed the file");
        }
    }

    /// <summary>Nothing else takes it for an empty disk either, and writes where the table was.</summary>
    [Theory]
    [InlineData("cluster_size=512", false)]
    [InlineData("cluster_size=512,refcount_bits=1", false)]
    [InlineData("cluster_size=512,compat=0.10", false)]
    [InlineData("cluster_size=512", true)]
    [InlineData("cluster_size=4k", true)]
    public async Task Nothing_is_written_to_it(string options, bool isDirty)
    {
        byte[] image = await CutAsync(options, 0);
        image[79] |= (byte)(isDirty ? 1 : 0);
        Func<BlockNode, Task>[] changes =
        [
            async disk => await disk.WriteAsync(0, new byte[512]),
            async disk => await disk.WriteZeroesAsync(0, 4096),
            async disk => await disk.DiscardAsync(0, 4096),
            async disk => await disk.ResizeAsync(disk.Length + (1 << 20)),
            async disk => await ((ICompactable)disk).CompactAsync(null, CancellationToken.None),
            async disk => await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None),
        ];
        for (int i = 0; i < changes.Length; i++)
        {
            var file = new MemoryNode((byte[])image.Clone());
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
            {
                await using BlockNode disk = await MemoryDisk.OpenAsync(file);
                await changes[i](disk);
            });
            Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            Assert.True(image.AsSpan().SequenceEqual(file.ToArray()), $"change {i} reached the file");
        }
    }

    /// <summary>A filled image whose L1 table is moved to the end of the file, which is then cut before it.</summary>
    private static async Task<byte[]> CutAsync(string options, int missing)
    {
        var made = new MemoryNode(await MemoryDisk.NewAsync($"size=384k,{options}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made))
        {
            for (int at = 0; at < 380_000; at += 16_384)
            {
                byte[] bytes = new byte[9000];
                Array.Fill(bytes, (byte)(1 + (at >> 14)));
                await disk.WriteAsync(at, bytes);
            }
        }
        byte[] image = made.ToArray();
        int clusterSize = 1 << BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(20)), end = (image.Length + clusterSize - 1) & -clusterSize;
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(40), end);
        Array.Resize(ref image, end);
        return image[..(end - missing)];
    }
}
