using System.IO.Compression;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Images of other makers, whose contents are known: see Data/MANIFEST.md.</summary>
public sealed class VhdxGoldenTests
{
    private const int MiB = 1 << 20;

    [Fact]
    public async Task An_image_of_QEMU()
    {
        byte[] disk = new byte[5 * MiB];
        disk.AsSpan(0, 65536).Fill(1);
        disk.AsSpan(3 * MiB, 512).Fill(2);
        await RequireAsync("qemu-dynamic", disk);
    }

    [Fact]
    public async Task Blocks_of_every_state()
    {
        byte[] disk = new byte[(6 * MiB) + 512];
        foreach (int block in new[] { 0, 5, 6 })
        {
            for (int sector = 0; sector < 2048 && (block * MiB) + (sector * 512) < disk.Length; sector++)
            {
                disk.AsSpan((block * MiB) + (sector * 512), 512).Fill(Pattern(block, sector));
            }
        }
        await RequireAsync("states", disk);
    }

    [Fact]
    public async Task A_chain_with_large_sectors()
    {
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["parent.vhdx"], Load("parent"));
        await File.WriteAllBytesAsync(folder["child.vhdx"], Load("child"));
        byte[] disk = new byte[5 * MiB];
        for (int at = 0; at < disk.Length; at += 4096)
        {
            int block = at / MiB, sector = at % MiB / 4096;
            bool isHere = block == 2 || (block is 0 or 4 && ((sector * sector) + block) % 5 < 2);
            byte value = isHere ? Pattern(block, sector) : block is 3 or 4 ? (byte)0 : Pattern(50 + (at / MiB), sector);
            disk.AsSpan(at, 4096).Fill(value);
        }
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.Equal(disk, await VhdxDisks.ReadAllAsync(child));
            Assert.Empty((await ((ICheckable)child).CheckAsync(null, CancellationToken.None)).Findings);
        }
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"], writable: true))
        {
            await child.WriteAsync(100, new byte[] { 9 });
            await child.WriteAsync((2 * MiB) - 1, new byte[] { 8, 7 });
        }
        (disk[100], disk[(2 * MiB) - 1], disk[2 * MiB]) = (9, 8, 7);
        byte[] written = await File.ReadAllBytesAsync(folder["child.vhdx"]);
        await using BlockNode again = await Images.OpenAsync(folder["child.vhdx"]);
        Assert.Equal(disk, await VhdxDisks.ReadAllAsync(again));
        Assert.True(written.AsSpan(0, 64 << 10).SequenceEqual(Load("child").AsSpan(0, 64 << 10))); // spec 2.2.1: never overwritten
    }

    [Fact]
    public async Task A_log_that_runs_round_the_end_of_its_ring()
    {
        byte[] disk = new byte[4 * MiB];
        disk.AsSpan(0, 4096).Fill(Pattern(3, 3));
        for (int sector = 0; sector < 8; sector++)
        {
            disk.AsSpan((2 * MiB) + (sector * 512), 512).Fill(Pattern(9, sector));
        }
        disk.AsSpan(3 * MiB, MiB).Fill(Pattern(7, 7));
        byte[] image = Load("dirty-log");
        await using (VhdxNode node = await VhdxDisks.OpenAsync(image))
        {
            Assert.Equal(disk, await VhdxDisks.ReadAllAsync(node));
            Assert.Equal(9 * MiB, node.Child("file")!.Length);
        }
        byte[] replayed = await VhdxDisks.ChangeAsync(image, async node => Assert.Equal(disk, await VhdxDisks.ReadAllAsync(node)));
        Assert.Equal(9 * MiB, replayed.Length);
        var spec = new VhdxSpecReader(replayed, requireClean: true);
        Assert.Equal(disk, spec.Contents());
        Assert.Equal(3, new VhdxSpecReader(image).ReplayedEntries);
    }

    private static byte Pattern(int block, int sector) => (byte)((((block * 7) + sector) % 251) + 1);

    private static async Task RequireAsync(string name, byte[] disk)
    {
        byte[] image = Load(name);
        await using (VhdxNode node = await VhdxDisks.OpenAsync(image))
        {
            Assert.Equal(disk, await VhdxDisks.ReadAllAsync(node));
            Assert.DoesNotContain((await node.CheckAsync(null, CancellationToken.None)).Findings, f => f.Severity != CheckSeverity.Warning);
        }
        byte[] data = VhdxDisks.Noise(2 * MiB, 1);
        byte[] written = await VhdxDisks.ChangeAsync(image, async node => await node.WriteAsync(MiB / 2, data));
        data.CopyTo(disk, MiB / 2);
        await using VhdxNode again = await VhdxDisks.OpenAsync(written);
        Assert.Equal(disk, await VhdxDisks.ReadAllAsync(again));
    }

    private static byte[] Load(string name)
    {
        using var packed = new GZipStream(
            File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "vhdx", name + ".vhdx.gz")), CompressionMode.Decompress);
        using var bytes = new MemoryStream();
        packed.CopyTo(bytes);
        return bytes.ToArray();
    }
}
