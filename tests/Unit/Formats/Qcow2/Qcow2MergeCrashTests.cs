using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// The power goes at some point while an image is merged into its backing image and then emptied. Seen through the upper image the
/// disk never changes; both images leak at most, and the merge can be begun again.
/// </summary>
public sealed class Qcow2MergeCrashTests
{
    private const int BaseSize = 160 << 10, TopSize = 300 << 10, Prefixes = 70, Resumed = 8;

    private static readonly FormatDriver s_qcow2 = Images.Registry.Format("qcow2");

    [Theory]
    [InlineData("cluster_size=4k", "cluster_size=4k", false)]
    [InlineData("cluster_size=512,refcount_bits=64", "cluster_size=4k", false)]
    [InlineData("cluster_size=4k", "cluster_size=512", true)]
    [InlineData("cluster_size=4k,compat=0.10", "cluster_size=4k,compat=0.10", false)]
    [InlineData("cluster_size=16k,extended_l2=on", "cluster_size=16k,extended_l2=on", false)]
    [InlineData("cluster_size=64k", "cluster_size=4k,compat=0.10", false)]
    public async Task The_disk_never_changes(string baseOptions, string topOptions, bool hasSnapshot)
    {
        (byte[] baseImage, byte[] topImage, byte[] contents) = await MakeAsync(baseOptions, topOptions, hasSnapshot);
        var baseLog = new WriteLogNode(new MemoryNode((byte[])baseImage.Clone()));
        await MergeAsync(baseLog, new MemoryNode(topImage, readOnly: true));
        IReadOnlyList<WriteLogEntry> merging = baseLog.Entries;
        int durable = LastFlush(merging); // emptying the upper image may reach the disk before what follows this
        var merged = new MemoryNode((byte[])baseImage.Clone());
        await ReplayAsync(merging.Take(durable), merged);

        var topLog = new WriteLogNode(new MemoryNode((byte[])topImage.Clone()));
        await EmptyAsync(merged.ToArray(), topLog);
        IReadOnlyList<WriteLogEntry> emptying = topLog.Entries;
        Assert.True(merging.Count > 15 && emptying.Count > 4, $"only {merging.Count} and {emptying.Count} requests");

        var below = new MemoryNode((byte[])baseImage.Clone());
        for (int prefix = 0; prefix <= merging.Count; prefix++)
        {
            await ReplayAsync(merging.Skip(prefix - 1).Take(Math.Min(prefix, 1)), below);
            if (IsLookedAt(prefix, merging.Count, Prefixes))
            {
                await SoundAsync(
                    below.ToArray(),
                    topImage,
                    contents,
                    $"{prefix} of {merging.Count} requests of the merge",
                    IsLookedAt(prefix, merging.Count, Resumed));
            }
        }
        var above = new MemoryNode((byte[])topImage.Clone());
        for (int prefix = 0; prefix <= emptying.Count; prefix++)
        {
            await ReplayAsync(emptying.Skip(prefix - 1).Take(Math.Min(prefix, 1)), above);
            if (IsLookedAt(prefix, emptying.Count, Prefixes))
            {
                await SoundAsync(
                    merged.ToArray(),
                    above.ToArray(),
                    contents,
                    $"{prefix} of {emptying.Count} requests of the emptying",
                    IsLookedAt(prefix, emptying.Count, Resumed));
            }
        }
        Assert.True(above.Length < topImage.Length, "the upper image was not emptied");
    }

    private static bool IsLookedAt(int prefix, int count, int wanted) => prefix % Math.Max(1, count / wanted) == 0 || prefix >= count - 6;

    private static async Task SoundAsync(byte[] baseImage, byte[] topImage, byte[] contents, string what, bool resumes)
    {
        (MemoryNode below, MemoryNode above) = (new([.. baseImage]), new([.. topImage]));
        await ViewAsync(below, above, contents, what);
        foreach ((MemoryNode file, string name) in new[] { (below, "base"), (above, "top") })
        {
            await using BlockNode disk = await OpenAsync(file, null); // for writing: what is marked dirty is repaired
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
            Assert.True(
                report is { Corruptions: 0, CheckErrors: 0 },
                $"{what}: {name}: {report.Findings.FirstOrDefault(f => f.Severity != CheckSeverity.Leak)}");
        }
        await ViewAsync(below, above, contents, $"{what}, opened again");
        if (resumes)
        {
            await MergeAsync(below, above);
            await EmptyAsync(below.ToArray(), above);
            await ViewAsync(below, above, contents, $"{what}, begun again");
            await using BlockNode merged = await OpenAsync(below, null);
            byte[] all = new byte[merged.Length];
            await merged.ReadAsync(0, all);
            Assert.True(contents.AsSpan().SequenceEqual(all), $"{what}, begun again: the base does not hold the disk");
        }
    }

    private static async Task ViewAsync(MemoryNode below, MemoryNode above, byte[] contents, string what)
    {
        try
        {
            await using BlockNode top = await OpenAsync(
                new MemoryNode(above.ToArray(), readOnly: true), await OpenAsync(new MemoryNode(below.ToArray(), readOnly: true), null));
            byte[] now = new byte[top.Length];
            await top.ReadAsync(0, now);
            Assert.True(contents.AsSpan().SequenceEqual(now), $"{what}: the disk differs at {contents.AsSpan().CommonPrefixLength(now)}");
        }
        catch (DiskImageException e)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
    }

    private static async Task MergeAsync(BlockNode below, MemoryNode above)
    {
        await using BlockNode target = await OpenAsync(below, null);
        await using BlockNode top = await OpenAsync(
            new MemoryNode(above.ToArray(), readOnly: true), new BorrowedNode(target, isReadOnly: true));
        await new CommitJob(top, 1, target).RunAsync(null, CancellationToken.None);
    }

    private static async Task EmptyAsync(byte[] baseImage, BlockNode above)
    {
        await using BlockNode top = await OpenAsync(above, await OpenAsync(new MemoryNode(baseImage, readOnly: true), null));
        await ((IEmptiable)top).MakeEmptyAsync(CancellationToken.None);
    }

    private static async Task<(byte[] Base, byte[] Top, byte[] Contents)> MakeAsync(string baseOptions, string topOptions, bool hasSnapshot)
    {
        var random = new Random(11);
        (MemoryNode below, MemoryNode above) = (new(), new());
        await MemoryDisk.CreateAsync(below, $"size={BaseSize},{baseOptions}");
        await MemoryDisk.CreateAsync(above, $"size={TopSize},{topOptions},backing_file=base.qcow2,backing_fmt=qcow2");
        await using (BlockNode disk = await OpenAsync(below, null))
        {
            await FillAsync(disk, random, 10);
            if (hasSnapshot)
            {
                _ = await ((ISnapshots)disk).CreateSnapshotAsync("kept", DateTimeOffset.UnixEpoch, CancellationToken.None);
                await FillAsync(disk, random, 3);
            }
        }
        byte[] contents = new byte[TopSize];
        await using (BlockNode disk = await OpenAsync(above, await OpenAsync(new MemoryNode(below.ToArray(), readOnly: true), null)))
        {
            await FillAsync(disk, random, 12);
            await disk.WriteZeroesAsync(10 << 10, 30 << 10);
            await disk.DiscardAsync(100 << 10, 20 << 10);
            await disk.ReadAsync(0, contents);
        }
        return (below.ToArray(), above.ToArray(), contents);
    }

    private static async Task FillAsync(BlockNode disk, Random random, int writes)
    {
        for (int i = 0; i < writes; i++)
        {
            byte[] data = new byte[random.Next(1, 12_000)];
            random.NextBytes(data);
            await disk.WriteAsync(random.Next((int)disk.Length - data.Length), data);
        }
    }

    private static int LastFlush(IReadOnlyList<WriteLogEntry> log)
    {
        int end = log.Count;
        while (end > 0 && log[end - 1].Kind != WriteLogKind.Flush)
        {
            end--;
        }
        return end;
    }

    private static async Task ReplayAsync(IEnumerable<WriteLogEntry> entries, MemoryNode onto)
    {
        foreach (WriteLogEntry entry in entries)
        {
            await WriteLogNode.ReplayAsync(entry, onto);
        }
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, BlockNode? backing)
        => s_qcow2.OpenAsync(
            new FormatOpenContext(
                new BorrowedNode(file, isReadOnly: false),
                s_qcow2.OpenOptions.Defaults(),
                backing is null ? null : (_, _, _) => new(backing),
                (_, _, _) => throw new InvalidOperationException()),
            CancellationToken.None);
}
