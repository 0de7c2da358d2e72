using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>A data entry that points to one of the image's structures: which ones a write is kept from depends on overlap-check.</summary>
public sealed class Qcow2OverlapCheckTests
{
    private const int Cluster = 4096;
    private const ulong Copied = 1UL << 63, OffsetBits = 0x00FF_FFFF_FFFF_FE00;

    [Theory]
    [InlineData("refcount table", "none", false)]
    [InlineData("refcount table", "constant", true)]
    [InlineData("refcount block", "constant", false)]
    [InlineData("refcount block", "cached", true)]
    [InlineData("refcount block", "", true)]
    [InlineData("snapshot L1", "constant", false)]
    [InlineData("snapshot L1", "cached", true)]
    [InlineData("snapshot L2", "cached", false)]
    [InlineData("snapshot L2", "all", true)]
    [InlineData("snapshot L2", "none", false)]
    public async Task A_write_is_kept_from_what_is_looked_up(string structure, string check, bool isRefused)
    {
        byte[] image = await DamagedAsync(structure);
        var file = new MemoryNode((byte[])image.Clone());
        string options = check.Length == 0 ? "" : $"overlap-check={check}";
        DiskImageException? error = null;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file, options: options))
        {
            byte[] data = new byte[512];
            Array.Fill(data, (byte)0x5A);
            error = await Record.ExceptionAsync(async () => await disk.WriteAsync(0, data)) as DiskImageException;
        }
        Assert.Equal(isRefused, error is not null);
        if (isRefused)
        {
            Assert.Equal(DiskImageErrorKind.Corrupt, error!.Kind);
            int marked = 72; // only the mark that the image is corrupt
            byte[] now = file.ToArray();
            now[marked + 7] = image[marked + 7];
            Assert.Equal(image, now);
        }
    }

    [Fact]
    public async Task Snapshots_whose_tables_cannot_all_fit_in_the_file_are_refused()
    {
        byte[] image = await DamagedAsync("none");
        int table = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(64));
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(table + 8), 4 << 20); // entries of the snapshot's L1 table
        var error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await MemoryDisk.OpenAsync(new MemoryNode(image), options: "overlap-check=all"));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
    }

    /// <summary>An image with a snapshot, whose first data entry points to one of its structures.</summary>
    private static async Task<byte[]> DamagedAsync(string structure)
    {
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size=4M,cluster_size={Cluster}"));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[4 * Cluster]);
            _ = await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None);
            await disk.WriteAsync(0, new byte[4 * Cluster]); // the active L2 table is its own again
        }
        byte[] image = file.ToArray();
        ulong snapshotL1 = At(At(64));
        ulong target = structure switch
        {
            "refcount table" => At(48),
            "refcount block" => At(At(48)) & OffsetBits,
            "snapshot L1" => snapshotL1,
            "snapshot L2" => At(snapshotL1) & OffsetBits,
            _ => 0,
        };
        if (target != 0)
        {
            BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan((int)(At(At(40)) & OffsetBits)), target | Copied);
        }
        return image;

        ulong At(ulong offset) => BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)offset));
    }
}
