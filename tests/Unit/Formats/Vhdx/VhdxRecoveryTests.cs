using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Crashes while the log is in use: with one of the headers damaged besides, and while the BAT moves.</summary>
public sealed class VhdxRecoveryTests
{
    private const int MiB = 1 << 20, Size = 6 * MiB;
    private const int Header1 = 64 << 10, Header2 = 128 << 10;

    [Theory]
    [InlineData(Header1)]
    [InlineData(Header2)]
    public async Task Either_header_leads_to_the_log(int damaged)
    {
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},block_size=1M");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        byte[] data = VhdxDisks.Noise(2 * MiB, 1);
        int begun, flushed;
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            await node.WriteAsync(0, new byte[] { 1 }); // from here on both headers name the log
            await node.FlushAsync();
            begun = log.Count;
            await node.WriteAsync(MiB / 2, data);
            await node.FlushAsync();
            flushed = log.Count;
        }
        int replayed = 0;
        for (int count = begun; count <= flushed; count++)
        {
            var file = new MemoryNode((byte[])image.Clone());
            foreach (WriteLogEntry entry in log.Entries.Take(count))
            {
                await WriteLogNode.ReplayAsync(entry, file);
            }
            byte[] crashed = file.ToArray();
            byte[] expected = new VhdxSpecReader(crashed).Contents();
            crashed.AsSpan(damaged, 4096).Fill(0xAB);
            var spec = new VhdxSpecReader(crashed);
            replayed += spec.ReplayedEntries;
            Assert.True(spec.Contents().AsSpan().SequenceEqual(expected), $"after {count}, by the specification");
            byte[] closed = await VhdxDisks.ChangeAsync(crashed, async n =>
                Assert.True((await VhdxDisks.ReadAllAsync(n)).AsSpan().SequenceEqual(expected), $"after {count}"));
            closed.AsSpan(damaged == Header1 ? Header2 : Header1, 4096).Clear(); // replaying has made both good again
            Assert.True(
                new VhdxSpecReader(closed, requireClean: true).Contents().AsSpan().SequenceEqual(expected), $"after {count}, closed");
            if (count == flushed)
            {
                Assert.Equal(data, expected[(MiB / 2)..((MiB / 2) + data.Length)]);
            }
        }
        Assert.True(replayed > 0);
    }

    [Fact]
    public async Task Every_prefix_of_growing_until_the_BAT_must_move_and_of_shrinking_again_keeps_the_contents()
    {
        const long Large = 200L << 30; // more entries than fit into the region of 1 MiB
        byte[] noise = VhdxDisks.Noise(4 * MiB, 2);
        byte[] image = await VhdxDisks.ChangeAsync(
            await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, noise));
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        long before, after;
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            before = node.Regions.Bat.Offset;
            await node.ResizeAsync(Large);
            after = node.Regions.Bat.Offset;
            await node.WriteAsync(Large - 512, noise.AsMemory(0, 512));
            await node.FlushAsync();
            await node.ResizeAsync(Size);
        }
        Assert.NotEqual(before, after);
        var file = new MemoryNode((byte[])image.Clone());
        var sizes = new HashSet<long>();
        for (int count = 0; count <= log.Count; count++)
        {
            if (count > 0)
            {
                await WriteLogNode.ReplayAsync(log.Entries[count - 1], file);
                if (log.Entries[count - 1].Kind == WriteLogKind.Flush)
                {
                    continue;
                }
            }
            await using VhdxNode node = await VhdxDisks.OpenAsync(new MemoryNode(file.ToArray()));
            string what = $"after {count} of {log.Count} requests";
            Assert.True(node.Length is Size or Large, what);
            _ = sizes.Add(node.Length);
            byte[] start = new byte[Size];
            await node.ReadAsync(0, start);
            Assert.True(start.AsSpan(0, noise.Length).SequenceEqual(noise), what);
            Assert.True(start.AsSpan(noise.Length).IndexOfAnyExcept((byte)0) < 0, what);
            if (node.Length == Large)
            {
                Assert.True((await node.GetExtentAsync(Size, Large - Size - MiB)) is { IsZero: true, Length: Large - Size - MiB }, what);
            }
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            Assert.True(report.Corruptions == 0, $"{what}: {string.Join("; ", report.Findings)}");
        }
        Assert.Equal(2, sizes.Count);
    }

    [Fact]
    public async Task Every_prefix_of_a_change_of_identity_and_parent_path_has_all_of_it_or_nothing()
    {
        byte[] parent = await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), child;
        await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
        {
            child = await VhdxDisks.CreateAsync("backing_file=old.vhdx,block_size=1M", open);
        }
        var id = Guid.NewGuid();
        var log = new WriteLogNode(new MemoryNode((byte[])child.Clone()));
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log, await VhdxDisks.OpenAsync(parent)))
        {
            await node.AmendAsync(
                new VhdxAmendOptions { VirtualDiskId = id.ToString(), PhysicalSectorSize = 4096, ParentPath = "deep/down/new.vhdx" });
        }
        Guid old = new VhdxSpecReader(child).DiskId;
        var seen = new List<(Guid, int, string)>();
        var file = new MemoryNode((byte[])child.Clone());
        foreach (WriteLogEntry? entry in log.Entries.Prepend(null))
        {
            if (entry is not null)
            {
                await WriteLogNode.ReplayAsync(entry, file);
            }
            var spec = new VhdxSpecReader(file.ToArray());
            seen.Add((spec.DiskId, spec.PhysicalSectorSize, spec.Locator["relative_path"]));
            await using VhdxNode node = await VhdxDisks.OpenAsync(file.ToArray(), await VhdxDisks.OpenAsync(parent));
            Assert.Equal((spec.DiskId, spec.PhysicalSectorSize), (node.Metadata.VirtualDiskId, node.Metadata.PhysicalSectorSize));
            Assert.DoesNotContain(
                (await node.CheckAsync(null, CancellationToken.None)).Findings, f => f.Severity == CheckSeverity.Corruption);
        }
        Assert.Equal([(old, 512, @".\old.vhdx"), (id, 4096, @".\deep\down\new.vhdx")], seen.Distinct());
    }
}
