using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;
using Xunit.Abstractions;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>What neither a repair nor a resize may do: lose what was readable, free what is in use, believe what it cannot know.</summary>
public sealed class VhdxRepairTests(ITestOutputHelper output)
{
    private const int MiB = 1 << 20, Size = 4 * MiB, Metadata = 2 * MiB, Bat = 3 * MiB;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_stale_entry_that_names_a_live_block_frees_nothing_and_is_found(bool hasParent)
    {
        (byte[] image, byte[]? parent) = await ImageAsync(hasParent);
        byte[] expected = await ContentsAsync(image, parent);
        image.AsSpan(Bat + 8, 8).CopyTo(image.AsSpan(Bat + (6 * 8))); // entry 6 of a disk of four blocks names block 1
        image.AsSpan(Bat + 8, 8).CopyTo(image.AsSpan(Bat + (5000 * 8)));
        await using (VhdxNode node = await VhdxDisks.OpenAsync(image, parent is null ? null : await VhdxDisks.OpenAsync(parent)))
        {
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            Assert.Equal(2, report.Findings.Count(f => f is { Kind: "Stale", Severity: CheckSeverity.Corruption, Repair: not null }));
            Assert.Equal(2, report.Corruptions);
        }
        foreach (Func<VhdxNode, Task> change in new Func<VhdxNode, Task>[]
        {
            async n => await n.ResizeAsync(3 * MiB),
            async n => await n.ResizeAsync(12 * MiB),
            async n => await n.CompactAsync(null, CancellationToken.None),
            async n => await n.RepairAsync(RepairMode.Leaks, null, CancellationToken.None),
            async n => await n.RepairAsync(RepairMode.All, null, CancellationToken.None),
        })
        {
            byte[] after = await VhdxDisks.ChangeAsync(image, async n =>
            {
                await change(n);
                for (long at = n.Length; at > 3 * MiB; at -= MiB)
                {
                    await n.WriteAsync(at - MiB, VhdxDisks.Noise(MiB, (int)at)); // takes whatever was freed
                }
            }, parent);
            Assert.Equal(expected[..(3 * MiB)], (await ContentsAsync(after, parent))[..(3 * MiB)]);
            byte[] longer = await VhdxDisks.ChangeAsync(after, async n => await n.ResizeAsync(20 * MiB), parent);
            Assert.False((await ContentsAsync(longer, parent)).AsSpan(12 * MiB).ContainsAnyExcept((byte)0));
            await using VhdxNode node = await VhdxDisks.OpenAsync(longer, parent is null ? null : await VhdxDisks.OpenAsync(parent));
            Assert.DoesNotContain(
                (await node.CheckAsync(null, CancellationToken.None)).Findings,
                f => f.Severity == CheckSeverity.Corruption && f.HostOffset != Bat + (5000 * 8));
        }
        byte[] mended = await VhdxDisks.ChangeAsync(
            image, async n => Assert.Empty((await n.RepairAsync(RepairMode.All, null, CancellationToken.None)).Findings), parent);
        Assert.Equal(expected, await ContentsAsync(mended, parent));
    }

    [Fact]
    public async Task Blocks_that_share_a_place_are_not_written_to_until_each_has_its_own()
    {
        (byte[] image, _) = await ImageAsync(hasParent: false);
        image.AsSpan(Bat, 8).CopyTo(image.AsSpan(Bat + 16)); // blocks 0 and 2
        byte[] before = await ContentsAsync(image, null);
        foreach (Func<VhdxNode, ValueTask> change in new Func<VhdxNode, ValueTask>[]
        {
            n => n.WriteAsync(5, new byte[] { 1 }), n => n.WriteZeroesAsync(4096, 4096), n => n.WriteZeroesAsync(0, MiB),
            n => n.DiscardAsync(0, MiB), n => n.DiscardAsync(0, 4096),
        })
        {
            var file = new MemoryNode((byte[])image.Clone());
            await using (VhdxNode node = await VhdxDisks.OpenAsync(file))
            {
                Assert.Equal(1, (await node.RepairAsync(RepairMode.Leaks, null, CancellationToken.None)).Corruptions);
                DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await change(node));
                Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
            }
            Assert.Equal(before, await ContentsAsync(file.ToArray(), null));
        }
        byte[] repaired = await VhdxDisks.ChangeAsync(image, async n => await n.RepairAsync(RepairMode.All, null, CancellationToken.None));
        Assert.Equal(before, await ContentsAsync(repaired, null));
        repaired = await VhdxDisks.ChangeAsync(repaired, async n => await n.WriteAsync(5, new byte[] { 1 }));
        Assert.Equal(before[(2 * MiB)..], (await ContentsAsync(repaired, null))[(2 * MiB)..]);
    }

    [Theory]
    [InlineData("headers")]
    [InlineData("region tables")]
    [InlineData("both")]
    public async Task Checksums_alone_are_written_anew_and_the_plan_says_so(string what)
    {
        (byte[] image, _) = await ImageAsync(hasParent: false);
        byte[] expected = await ContentsAsync(image, null);
        foreach (int at in new[] { 64 << 10, 128 << 10 }.Where(_ => !what.Equals("region tables", StringComparison.Ordinal)).Concat(
            new[] { 192 << 10, 256 << 10 }.Where(_ => !what.Equals("headers", StringComparison.Ordinal))))
        {
            image[at + 4] ^= 0x5A;
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(image));
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
        var file = new MemoryNode((byte[])image.Clone());
        await using (VhdxNode node = await VhdxDisks.OpenAsync(file, forRepair: true))
        {
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            Assert.All(report.Findings, f => Assert.StartsWith("write it anew", f.Repair, StringComparison.Ordinal));
            Assert.Equal(what.Equals("both", StringComparison.Ordinal) ? 4 : 2, report.Corruptions);
            _ = await node.RepairAsync(RepairMode.Leaks, null, CancellationToken.None);
            Assert.Equal(image, file.ToArray());
            Assert.Empty((await node.RepairAsync(RepairMode.All, null, CancellationToken.None)).Findings);
        }
        Assert.Equal(expected, new VhdxSpecReader(file.ToArray(), requireClean: true).Contents());
    }

    [Fact]
    public async Task Headers_and_tables_that_contradict_each_other_are_not_believed()
    {
        (byte[] image, _) = await ImageAsync(hasParent: false);
        foreach (int at in new[] { (64 << 10) + 40, (128 << 10) + 72, (64 << 10) + 2000, (192 << 10) + 34, (256 << 10) + 3000 })
        {
            byte[] damaged = (byte[])image.Clone();
            int start = at < 192 << 10 ? 64 << 10 : 192 << 10;
            damaged[start + 4] ^= 1;
            damaged[start + (64 << 10) + 4] ^= 1;
            damaged[at] ^= 1;
            var file = new MemoryNode((byte[])damaged.Clone());
            _ = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(file, forRepair: true));
            Assert.Equal(damaged, file.ToArray());
        }
    }

    [Theory]
    [InlineData(64 << 10, 80, 7)]
    [InlineData(128 << 10, 80, 7)]
    [InlineData(192 << 10, 80, 7)]
    [InlineData(256 << 10, 80, 7)]
    [InlineData(Metadata, 32 + (5 * 32), 11)]
    [InlineData(Metadata + (64 << 10), 48, 5)]
    [InlineData(Bat, 6 * 8, 3)]
    public async Task No_flipped_bit_makes_a_repair_lose_what_was_readable(int start, int length, int stride)
    {
        (byte[] image, _) = await ImageAsync(hasParent: false);
        int seed = Environment.TickCount & 0xFFFF;
        output.WriteLine($"seed {seed}");
        for (int bit = (start * 8) + (seed % stride); bit < (start + length) * 8; bit += stride)
        {
            byte[] damaged = (byte[])image.Clone();
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            string what = $"seed {seed}: bit {bit % 8} of byte {(bit / 8) - start} from {start}";
            byte[]?[]? before = await BlocksAsync(damaged);
            var file = new MemoryNode((byte[])damaged.Clone());
            try
            {
                await using VhdxNode node = await VhdxDisks.OpenAsync(file, forRepair: true);
                _ = await node.RepairAsync(RepairMode.All, null, CancellationToken.None);
            }
            catch (DiskImageException)
            {
                Assert.True(before is null, $"{what}: could be opened, and not for a repair");
                continue;
            }
            byte[]?[] after = await BlocksAsync(file.ToArray()) ?? throw new InvalidOperationException($"{what}: does not open any more");
            for (int i = 0; i < Math.Min(before?.Length ?? 0, after.Length); i++)
            {
                Assert.True(before![i] is null
                    || (after[i] is { } now && now.AsSpan().SequenceEqual(before[i])), $"{what}: part {i} changed");
            }
            Assert.Equal(before?.Length ?? after.Length, after.Length);
        }
    }

    /// <summary>What a disk shows, in parts of 64 KiB; null for one that cannot be read. Null if it does not open.</summary>
    private static async Task<byte[]?[]?> BlocksAsync(byte[] image)
    {
        VhdxNode disk;
        try
        {
            disk = await VhdxDisks.OpenAsync(image);
        }
        catch (DiskImageException)
        {
            return null;
        }
        await using (disk)
        {
            var parts = new byte[]?[Math.Min(disk.Length, 16 * MiB) / 65536];
            for (int i = 0; i < parts.Length; i++)
            {
                try
                {
                    byte[] part = new byte[65536];
                    await disk.ReadAsync(i * 65536L, part);
                    parts[i] = part;
                }
                catch (DiskImageException)
                {
                    // stays null
                }
            }
            return parts;
        }
    }

    private static async Task<byte[]> ContentsAsync(byte[] image, byte[]? parent)
    {
        await using VhdxNode node = await VhdxDisks.OpenAsync(image, parent is null ? null : await VhdxDisks.OpenAsync(parent));
        return await VhdxDisks.ReadAllAsync(node);
    }

    /// <summary>Four blocks of 1 MiB, of which 0 to 2 are stored.</summary>
    private static async Task<(byte[] Image, byte[]? Parent)> ImageAsync(bool hasParent)
    {
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},block_size=1M");
        image = await VhdxDisks.ChangeAsync(image, async n => await n.WriteAsync(0, VhdxDisks.Noise(3 * MiB, 1)));
        if (!hasParent)
        {
            return (image, null);
        }
        await using VhdxNode open = await VhdxDisks.OpenAsync(image);
        byte[] child = await VhdxDisks.CreateAsync("backing_file=p.vhdx,block_size=1M", open);
        return (await VhdxDisks.ChangeAsync(child, async n => await n.WriteAsync(0, VhdxDisks.Noise(3 * MiB, 2)), image), image);
    }
}
