using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>
/// Logs every change below a disk, and lets the machine die after each of them; and, since hosts reorder, with some of what was not
/// flushed lost. What is left must open, read in each sector as what was flushed or as something newer, and need no
/// more than its footer mended.
/// </summary>
public sealed class VpcCrashTests
{
    private const int Size = 256 << 10;
    private const string Unmarked = "BitmapHidesData"; // a sector that was written to, but not yet marked, when the machine died

    private const string Behind = "Behind"; // the disk is shorter already, and its table is not

    public static TheoryData<int, string, bool> Runs()
    {
        var data = new TheoryData<int, string, bool>();
        for (int seed = 0; seed < 3; seed++)
        {
            data.Add(seed, "block_size=4k,force_size", false);
            data.Add(seed, "block_size=32k", false);
            data.Add(seed, "block_size=64k,force_size", true);
            data.Add(seed, "subformat=fixed,force_size", false);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Runs))]
    public async Task Nothing_that_was_flushed_is_lost(int seed, string options, bool hasParent)
    {
        var random = new Random(seed);
        byte[]? below = hasParent ? new byte[Size] : null;
        MemoryNode? parent = null;
        BlockNode OpenParent() => VpcDisks.OpenAsync(new MemoryNode(parent!.ToArray(), readOnly: true)).GetAwaiter().GetResult();
        var memory = new MemoryNode();
        if (hasParent)
        {
            random.NextBytes(below!);
            parent = new MemoryNode();
            await VpcDisks.CreateAsync(parent, $"size={Size},force_size");
            await using (BlockNode disk = await VpcDisks.OpenAsync(parent))
            {
                await disk.WriteAsync(0, below);
            }
            await VpcDisks.CreateAsync(memory, $"{options},backing_file=parent.vhd", OpenParent());
        }
        else
        {
            await VpcDisks.CreateAsync(memory, $"size={Size},{options}");
        }
        byte[] before = memory.ToArray();
        var log = new WriteLogNode(memory);
        var states = new List<State>();
        await using (BlockNode disk = await VpcDisks.OpenAsync(log, hasParent ? OpenParent : null))
        {
            byte[] model = new byte[disk.Length];
            below?.CopyTo(model, 0);
            states.Add(new State(0, 0, model, IsDurable: true));
            for (int i = 0; i < 30; i++)
            {
                int start = log.Count;
                (model, bool isDurable) = await StepAsync(disk, model, random, below);
                states.Add(new State(start, log.Count, model, isDurable));
            }
        }
        // closing a fixed disk does not flush it
        states.Add(
            states[^1] with { Start = states[^1].End, End = log.Count, IsDurable = !options.Contains("fixed", StringComparison.Ordinal) });

        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        for (int end = 0; end <= entries.Count; end++)
        {
            await VerifyAsync(before, entries.Take(end), end, 512, $"seed {seed}, {end} of {entries.Count}");
            int flushed = end;
            while (flushed > 0 && entries[flushed - 1].Kind != WriteLogKind.Flush)
            {
                flushed--;
            }
            if (end - flushed > 1 && end % 3 == 0)
            {
                WriteLogEntry[] kept = [.. entries.Take(flushed), .. entries.Skip(flushed).Take(end - flushed).Where(
                    _ => random.Next(2) == 0)];
                // two writes into one sector may be half lost
                await VerifyAsync(before, kept, end, 1, $"seed {seed}, {end} of {entries.Count}, some lost");
            }
        }

        async Task VerifyAsync(byte[] image, IEnumerable<WriteLogEntry> replay, int end, int unit, string what)
        {
            var crashed = new MemoryNode([.. image]);
            foreach (WriteLogEntry entry in replay)
            {
                await WriteLogNode.ReplayAsync(entry, crashed);
            }
            int oldest = states.FindLastIndex(s => s.IsDurable && s.End <= end);
            List<State> possible = [.. states.Skip(oldest).Where(s => s.Start < end || s == states[oldest])];
            await using BlockNode disk = await VpcDisks.OpenAsync(crashed, hasParent ? OpenParent : null);
            byte[] now = await VpcDisks.ReadAsync(disk);
            Assert.True(possible.Exists(s => s.Contents.Length == now.Length), $"{what}: a length of {now.Length}");
            for (int at = 0; at < now.Length; at += 512)
            {
                Assert.True(
                    IsOneOf(at, 512) || (unit == 1 && Enumerable.Range(at, 512).All(b => IsOneOf(b, 1))),
                    $"{what}: sector at {at} is neither old nor new");
            }

            bool IsOneOf(int at, int length)
                => possible.Exists(s => at >= s.Contents.Length || now.AsSpan(at, length).SequenceEqual(s.Contents.AsSpan(at, length)));
            CheckReport report = await VpcDisks.CheckAsync(disk);
            Assert.All(
                report.Findings,
                f => Assert.True(f.Severity is CheckSeverity.Leak || f.Kind.StartsWith("Footer", StringComparison.Ordinal)
                    || f.Kind.Equals(Unmarked, StringComparison.Ordinal)
                    || f.Kind.Equals(Behind, StringComparison.Ordinal), $"{what}: {f}"));
            report = await VpcDisks.RepairAsync(disk, RepairMode.All);
            Assert.True(
                report.Findings.All(f => f.Kind.Equals(Unmarked, StringComparison.Ordinal)
                    || f.Kind.Equals(Behind, StringComparison.Ordinal)),
                $"{what}: after repair {string.Join(", ", report.Findings)}");
            byte[] after = await VpcDisks.ReadAsync(disk);
            Assert.True(now.AsSpan().SequenceEqual(after), $"{what}: the repair changed the contents");
        }
    }

    private static async Task<(byte[] Model, bool IsDurable)> StepAsync(BlockNode disk, byte[] model, Random random, byte[]? below)
    {
        byte[] next = (byte[])model.Clone();
        int length = random.Next(1, Math.Max(2, Math.Min(next.Length, 40_000))), at = random.Next(next.Length - length + 1);
        switch (random.Next(14))
        {
            case <= 5:
                random.NextBytes(next.AsSpan(at, length));
                await disk.WriteAsync(at, next.AsMemory(at, length));
                return (next, false);
            case <= 7:
                next.AsSpan(at, length).Clear();
                await disk.WriteZeroesAsync(at, length);
                return (next, false);
            case 8:
                Array.Clear(next);
                await disk.WriteZeroesAsync(0, next.Length);
                return (next, false);
            case 9 when disk is ICompactable compactable:
                await compactable.CompactAsync(null, CancellationToken.None);
                return (next, true);
            case 10:
                int size = (Size / 2) + (random.Next(Size / 512) * 512);
                await disk.ResizeAsync(size);
                byte[] resized = new byte[size];
                next.AsSpan(0, Math.Min(size, next.Length)).CopyTo(resized);
                return (resized, true);
            default:
                await disk.FlushAsync();
                return (next, true);
        }
    }

    /// <summary>What the disk reads as after a step, and which log entries the step made.</summary>
    private sealed record State(int Start, int End, byte[] Contents, bool IsDurable);
}
