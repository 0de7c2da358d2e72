using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>The power goes, a request fails, or the user stops it while an image is compacted: it shows what it showed before.</summary>
public sealed class CompactFaultTests
{
    public static TheoryData<string, int> Shapes()
    {
        var data = new TheoryData<string, int>();
        foreach (string options in CompactImage.Options)
        {
            data.Add(options, 1);
            data.Add(options, 2);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Any_part_of_the_writes_leaves_leaks_at_most(string options, int seed)
    {
        byte[] image = await CompactImage.MakeAsync(options, seed, operations: 30);
        CompactImage before = await CompactImage.ReadAsync(image);
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await CompactImage.OpenAsync(log))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        var file = new MemoryNode(image);
        var random = new Random(seed);
        int step = 1 + (entries.Count / 80);
        for (int start = 0, done = 0; done <= entries.Count; done++)
        {
            if (done % step == 0 || done > entries.Count - 10)
            {
                var prefix = new MemoryNode(file.ToArray());
                await ReplayAsync(entries, start, done, prefix, _ => true);
                await SoundAsync(prefix.ToArray(), before, $"{options}, seed {seed}, {done} of {entries.Count} requests");
                var part = new MemoryNode(file.ToArray());
                await ReplayAsync(entries, start, done, part, _ => random.Next(2) == 0); // what was not flushed may arrive in part
                await SoundAsync(part.ToArray(), before, $"{options}, seed {seed}, some of the requests from {start} to {done}");
            }
            if (done < entries.Count && entries[done].Kind == WriteLogKind.Flush)
            {
                await ReplayAsync(entries, start, done + 1, file, _ => true);
                start = done + 1;
            }
        }
    }

    [OracleTheory]
    [InlineData("cluster_size=4k", 3)]
    [InlineData("cluster_size=16k,extended_l2=on", 4)]
    public async Task To_qemu_img_too_any_prefix_of_the_writes_has_leaks_at_most(string options, int seed)
    {
        byte[] image = await CompactImage.MakeAsync(options, seed, operations: 8);
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await CompactImage.OpenAsync(log))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        using var folder = new TestFolder();
        var file = new MemoryNode(image);
        for (int done = 0; done < log.Entries.Count; done++)
        {
            await ReplayAsync(log.Entries, done, done + 1, file, _ => true);
            if (done % (1 + (log.Entries.Count / 25)) == 0)
            {
                await File.WriteAllBytesAsync(folder["a.qcow2"], file.ToArray());
                await MemoryDisk.QemuLeaksAtMostAsync(folder["a.qcow2"], $"{options}, {done + 1} of {log.Entries.Count} requests");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Any_failed_request_leaves_everything_as_it_was(string options, int seed)
    {
        byte[] image = await CompactImage.MakeAsync(options, seed, operations: 30);
        CompactImage before = await CompactImage.ReadAsync(image);
        var counter = new FaultInjectionNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await CompactImage.OpenAsync(counter))
        {
            _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
        }
        long requests = counter.Requests(RequestKinds.All);
        for (long number = 1; number <= requests; number += 1 + (requests / 60))
        {
            foreach (long count in new[] { 1, long.MaxValue })
            {
                var memory = new MemoryNode((byte[])image.Clone());
                var file = new FaultInjectionNode(memory);
                BlockNode disk = await CompactImage.OpenAsync(file);
                file.Arm(new Fault(count == 1 ? RequestKinds.All : RequestKinds.Changes, number) { Count = count });
                await FailsAtMostAsync(() => ((ICompactable)disk).CompactAsync(null, CancellationToken.None).AsTask());
                await FailsAtMostAsync(() => disk.DisposeAsync().AsTask());
                await SoundAsync(
                    memory.ToArray(),
                    before,
                    $"{options}, seed {seed}, request {number} of {requests} fails {(count == 1 ? "once" : "for good")}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Stopped_anywhere_it_leaves_no_leak(string options, int seed)
    {
        byte[] image = await CompactImage.MakeAsync(options, seed, operations: 30);
        CompactImage before = await CompactImage.ReadAsync(image);
        int stopped = 0;
        for (int number = 1; ; number += 7)
        {
            using var stop = new CancellationTokenSource();
            var memory = new MemoryNode((byte[])image.Clone());
            bool finished = false;
            await using (BlockNode disk = await CompactImage.OpenAsync(new StoppingNode(memory, number, stop)))
            {
                try
                {
                    _ = await ((ICompactable)disk).CompactAsync(null, stop.Token);
                    finished = true;
                }
                catch (OperationCanceledException)
                {
                    stopped++;
                }
            }
            CheckReport report = await SoundAsync(memory.ToArray(), before, $"{options}, seed {seed}, stopped at request {number}");
            Assert.True(report.Leaks == 0, $"{options}, seed {seed}, stopped at request {number}: {report.Leaks} leaks");
            if (finished && !stop.IsCancellationRequested)
            {
                break;
            }
        }
        Assert.True(stopped > 5, $"stopped {stopped} times");
    }

    private static async Task FailsAtMostAsync(Func<Task> action)
    {
        try
        {
            await action();
        }
        catch (DiskImageException)
        {
            // as it was told to
        }
    }

    private static async Task ReplayAsync(
        IReadOnlyList<WriteLogEntry> entries, int start, int end, MemoryNode onto, Func<int, bool> arrives)
    {
        for (int i = start; i < end; i++)
        {
            if (arrives(i) && (entries[i].Kind != WriteLogKind.Discard || entries[i].Offset + entries[i].Length <= onto.Length))
            {
                await WriteLogNode.ReplayAsync(entries[i], onto);
            }
        }
    }

    /// <summary>
    /// It shows what it showed, and has leaks at most; or lacks a flag that says a cluster is not shared, which costs a copy.
    /// </summary>
    private static async Task<CheckReport> SoundAsync(byte[] image, CompactImage before, string what)
    {
        before.SameAs(await CompactImage.ReadAsync(image), what);
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(image, readOnly: true));
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        CheckFinding? bad = report.Findings.FirstOrDefault(
            f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error
                && !(f.Kind == "CopiedFlag" && f.Message.Contains("lacks", StringComparison.Ordinal)));
        Assert.True(bad is null, $"{what}: {bad}");
        return report;
    }

    /// <summary>Stops somebody at the N-th request.</summary>
    private sealed class StoppingNode(BlockNode child, int number, CancellationTokenSource stop) : FilterNode(child)
    {
        private int _seen;

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            Count();
            return base.ReadCoreAsync(offset, buffer, cancellationToken);
        }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            Count();
            return base.WriteCoreAsync(offset, buffer, cancellationToken);
        }

        private void Count()
        {
            if (++_seen == number)
            {
                stop.Cancel();
            }
        }
    }
}
