using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>
/// What a crash leaves after any number of writes opens after replay, has what was flushed, and has old or new data for the rest, by
/// our own reading and by the specification's.
/// </summary>
public sealed class VhdxCrashTests
{
    private const int MiB = 1 << 20, Sector = 4096, Size = 6 * MiB;

    [Theory]
    [InlineData("block_size=1M", false)]
    [InlineData("block_size=2M,block_state_zero=off,logical_sector_size=4096", false)]
    [InlineData("block_size=1M,subformat=fixed", false)]
    [InlineData("block_size=1M", true)]
    public async Task Every_prefix_of_the_writes_keeps_what_was_flushed(string options, bool hasParent)
    {
        int seed = Random.Shared.Next();
        byte[]? parent = hasParent
            ? await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, VhdxDisks.Noise(Size, seed)))
            : null;
        byte[] image = await CreateAsync(options, parent);
        var random = new Random(seed);
        var history = new SectorHistory(hasParent ? VhdxDisks.Noise(Size, seed) : new byte[Size]);
        await CrashAsync(image, parent, history, seed, async (node, log) =>
        {
            for (int i = 0; i < 25; i++)
            {
                int at = random.Next(Size / Sector) * Sector, length = Math.Min(random.Next(1, 20) * Sector, Size - at);
                if (random.Next(4) == 0)
                {
                    (at, length) = (at / MiB * MiB, MiB);
                    history.Write(at, new byte[length]);
                    await node.WriteZeroesAsync(at, length);
                }
                else
                {
                    byte[] data = VhdxDisks.Noise(length, random.Next());
                    history.Write(at, data);
                    await node.WriteAsync(at, data);
                }
                if (random.Next(4) == 0)
                {
                    await node.FlushAsync();
                    history.Flushed(log.Count);
                }
            }
        });
    }

    [Theory]
    [InlineData("block_size=1M", 10 * MiB, false)]
    [InlineData("block_size=1M", 2 * MiB, false)]
    [InlineData("block_size=1M,subformat=fixed", 9 * MiB, false)]
    [InlineData("block_size=1M,subformat=fixed", 2 * MiB, false)]
    [InlineData("block_size=2M", 9 * MiB, true)]
    public async Task Every_prefix_of_a_resize_has_one_of_the_two_sizes(string options, int newSize, bool hasParent)
    {
        byte[] noise = VhdxDisks.Noise(Size, 3);
        byte[]? parent = hasParent
            ? await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, noise))
            : null;
        byte[] image = await VhdxDisks.ChangeAsync(
            await CreateAsync(options, parent), async n => await n.WriteAsync(0, noise.AsMemory(0, (4 * MiB) + 512)), parent);
        byte[] old = [.. noise[..((4 * MiB) + 512)], .. hasParent ? noise[((4 * MiB) + 512)..] : new byte[Size - (4 * MiB) - 512]];
        await EachPrefixAsync(image, parent, async (node, _) => await node.ResizeAsync(newSize), (disk, _, what) =>
        {
            Assert.True(disk.Length == Size || disk.Length == newSize, what);
            int same = Math.Min(Size, disk.Length);
            Assert.True(disk.AsSpan(0, same).SequenceEqual(old.AsSpan(0, same)), what);
            Assert.True(disk.AsSpan(same).IndexOfAnyExcept((byte)0) < 0, what);
        });
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Every_prefix_of_compacting_reads_the_same(bool hasParent)
    {
        byte[] noise = VhdxDisks.Noise(Size, 5);
        byte[]? parent = hasParent
            ? await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, noise))
            : null;
        byte[] image = await VhdxDisks.ChangeAsync(await CreateAsync("block_size=1M", parent), async n =>
        {
            foreach (int block in new[] { 4, 0, 5, 2 })
            {
                await n.WriteAsync((block * MiB) + 4096, noise.AsMemory((block * MiB) + 4096, 100_000));
            }
            await n.FlushAsync();
            await n.WriteZeroesAsync(4 * MiB, MiB);
            await n.WriteAsync(0, new byte[MiB]);
        }, parent);
        byte[] expected = new VhdxSpecReader(image, parent is null ? null : new VhdxSpecReader(parent)).Contents();
        long length = image.Length;
        await EachPrefixAsync(
            image, parent, async (node, _) => Assert.True(await node.CompactAsync(null, CancellationToken.None) >= 2 * MiB),
            (disk, _, what) => Assert.True(disk.AsSpan().SequenceEqual(expected), what));
        byte[] compacted = await VhdxDisks.ChangeAsync(image, async n => await n.CompactAsync(null, CancellationToken.None), parent);
        Assert.True(compacted.Length <= length - (2 * MiB));
        Assert.Equal(
            expected, new VhdxSpecReader(compacted, parent is null ? null : new VhdxSpecReader(parent), requireClean: true).Contents());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_request_that_fails_once_can_be_made_again(bool hasParent)
    {
        byte[] noise = VhdxDisks.Noise(Size, 6);
        byte[]? parent = hasParent
            ? await VhdxDisks.ChangeAsync(
                await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, noise))
            : null;
        byte[] image = await CreateAsync("block_size=1M", parent);
        byte[] data = VhdxDisks.Noise(300_000, 7);
        (Func<VhdxNode, ValueTask> Do, Action<byte[]> Twin)[] steps =
        [
            (n => n.WriteAsync(1000, data), t => data.CopyTo(t, 1000)),
            (n => n.WriteAsync((2 * MiB) - 5000, data), t => data.CopyTo(t, (2 * MiB) - 5000)),
            (n => n.FlushAsync(), _ => { }),
            (n => n.WriteZeroesAsync(0, MiB), t => Array.Clear(t, 0, MiB)),
            (n => n.WriteAsync(4 * MiB, noise.AsMemory(0, MiB)), t => noise.AsSpan(0, MiB).CopyTo(t.AsSpan(4 * MiB))),
            (n => n.FlushAsync(), _ => { }),
            (n => n.ResizeAsync(Size - MiB), t => Array.Clear(t, Size - MiB, MiB)),
            (async n => await n.CompactAsync(null, CancellationToken.None), _ => { }),
            (n => n.ResizeAsync(Size), _ => { }),
            (n => n.WriteAsync((3 * MiB) + 1, data), t => data.CopyTo(t, (3 * MiB) + 1)),
            (n => n.FlushAsync(), _ => { }),
        ];
        byte[] twin = hasParent ? (byte[])noise.Clone() : new byte[Size];
        Array.ForEach(steps, s => s.Twin(twin));
        int requests = int.MaxValue;
        for (int failing = 0; failing <= requests; failing++)
        {
            var memory = new MemoryNode((byte[])image.Clone());
            var faults = new FaultInjectionNode(memory);
            if (failing > 0)
            {
                faults.Arm(new Fault(RequestKinds.All, failing, DiskImageErrorKind.NoSpace));
            }
            VhdxNode node = await AgainAsync(
                async () => await VhdxDisks.OpenAsync(faults, parent is null ? null : await VhdxDisks.OpenAsync(parent)));
            foreach ((Func<VhdxNode, ValueTask> step, _) in steps)
            {
                _ = await AgainAsync(async () =>
                {
                    await step(node);
                    return true;
                });
            }
            requests = failing == 0 ? (int)faults.Requests(RequestKinds.All) : requests;
            byte[] disk = await VhdxDisks.ReadAllAsync(node);
            Assert.True(disk.AsSpan().SequenceEqual(twin), $"request {failing} of {requests} failed");
            byte[] unclosed = memory.ToArray();
            Assert.True(failing % 5 != 0
                || new VhdxSpecReader(unclosed, parent is null
                    ? null
                    : new VhdxSpecReader(parent)).Contents().AsSpan().SequenceEqual(twin), $"request {failing} of {requests} failed");
            await node.DisposeAsync();
        }

        static async Task<T> AgainAsync<T>(Func<Task<T>> request)
        {
            try
            {
                return await request();
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
            {
                return await request();
            }
        }
    }

    [Fact]
    public async Task A_torn_log_entry_is_ignored_and_the_one_before_it_replayed()
    {
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},block_size=1M");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        byte[] first = VhdxDisks.Noise(Sector, 1);
        int before;
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            await node.WriteAsync(0, first);
            await node.FlushAsync();
            before = log.Count;
            await node.WriteAsync(3 * MiB, first);
            await node.FlushAsync();
        }
        IReadOnlyList<WriteLogEntry> writes = log.Entries;
        var spec = new VhdxSpecReader(image);
        int entry = Enumerable.Range(before, writes.Count - before).First(i => writes[i].Kind == WriteLogKind.Write
            && writes[i].Offset >= spec.LogOffset && writes[i].Offset < spec.LogOffset + spec.LogLength);
        for (int torn = 0; torn < writes[entry].Length; torn += 512)
        {
            var file = new MemoryNode((byte[])image.Clone());
            foreach (WriteLogEntry write in writes.Take(entry))
            {
                await WriteLogNode.ReplayAsync(write, file);
            }
            await file.WriteAsync(writes[entry].Offset, writes[entry].Data[..torn]);
            byte[] crashed = file.ToArray();
            Assert.Equal(first, new VhdxSpecReader(crashed).Contents()[..Sector]);
            await using VhdxNode node = await VhdxDisks.OpenAsync(file);
            byte[] disk = await VhdxDisks.ReadAllAsync(node);
            Assert.Equal(first, disk[..Sector]);
            Assert.All(disk[Sector..], b => Assert.Equal(0, b));
        }
    }

    [Fact]
    public async Task A_read_only_opening_replays_in_memory_and_leaves_the_file_alone()
    {
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},block_size=1M");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        byte[] data = VhdxDisks.Noise(3 * MiB, 1);
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            await node.WriteAsync(MiB / 2, data);
            await node.FlushAsync();
        }
        byte[]? crashed = null;
        var file = new MemoryNode((byte[])image.Clone());
        foreach (WriteLogEntry write in log.Entries)
        {
            await WriteLogNode.ReplayAsync(write, file);
            bool isEntry = write.Kind == WriteLogKind.Write && write.Offset is >= MiB and < 2 * MiB;
            crashed = isEntry ? file.ToArray() : crashed; // the last entry is in the log, and not yet in place
        }
        Assert.Equal(0, BitConverter.ToInt64(crashed!, (3 * MiB) + 8) >> 20); // the BAT in the file does not know yet
        var readOnly = new MemoryNode((byte[])crashed!.Clone(), readOnly: true);
        await using (VhdxNode node = await VhdxDisks.OpenAsync(readOnly))
        {
            Assert.Equal(data, (await VhdxDisks.ReadAllAsync(node))[(MiB / 2)..((MiB / 2) + data.Length)]);
            Assert.True(node.Describe().Dirty);
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            CheckFinding finding = Assert.Single(report.Findings);
            Assert.Equal(("Log", CheckSeverity.Warning), (finding.Kind, finding.Severity));
        }
        Assert.Equal(crashed, readOnly.ToArray());
        byte[] replayed = await VhdxDisks.ChangeAsync(crashed!, _ => Task.CompletedTask);
        Assert.Equal(data, new VhdxSpecReader(replayed, requireClean: true).Contents()[(MiB / 2)..((MiB / 2) + data.Length)]);
    }

    [OracleFact]
    public async Task QEMU_replays_what_a_crash_leaves()
    {
        using var folder = new TestFolder();
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},block_size=1M");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            for (int i = 0; i < 5; i++)
            {
                await node.WriteAsync((i * MiB) + 1000, VhdxDisks.Noise(300_000, i));
                await node.FlushAsync();
            }
            await node.WriteZeroesAsync(MiB, 2 * MiB);
            await node.ResizeAsync(Size + (2 * MiB));
        }
        var file = new MemoryNode((byte[])image.Clone());
        int count = 0;
        foreach (WriteLogEntry entry in log.Entries)
        {
            await WriteLogNode.ReplayAsync(entry, file);
            if (++count % 4 != 0 || entry.Kind == WriteLogKind.Flush)
            {
                continue;
            }
            byte[] crashed = file.ToArray();
            await File.WriteAllBytesAsync(folder["crashed.vhdx"], crashed);
            await File.WriteAllBytesAsync(folder["expected.raw"], new VhdxSpecReader(crashed).Contents());
            await Programs.TryAsync("qemu-img", "check", "-r", "all", "-f", "vhdx", folder["crashed.vhdx"]); // 3: it has replayed the log
            await Programs.CheckAsync(folder["crashed.vhdx"], "vhdx");
            await Programs.CompareAsync(folder["expected.raw"], "raw", folder["crashed.vhdx"], "vhdx");
        }
    }

    [Fact]
    public async Task A_log_that_is_too_small_for_all_changes_is_used_in_turns_round_the_ring()
    {
        const long Big = 100L << 30, Page = 512L * MiB; // a page of the BAT each: more pages than go into one entry
        const int Rounds = 6;
        byte[] parent = await VhdxDisks.CreateAsync($"size={Big},block_size=1M,block_state_zero=off"), image;
        await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
        {
            image = await VhdxDisks.CreateAsync("backing_file=p.vhdx,block_size=1M", open);
        }
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        var flushed = new List<int>();
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log))
        {
            for (int round = 0; round < Rounds; round++)
            {
                for (long at = 0; at < Big; at += Page)
                {
                    await node.WriteZeroesAsync(at + (round * (long)MiB), MiB);
                }
                await node.FlushAsync();
                flushed.Add(log.Count);
            }
        }
        int logged = log.Entries.Count(e => e.Kind == WriteLogKind.Write && e.Offset is >= MiB and < 2 * MiB);
        Assert.True(logged >= (2 * Rounds) + 2, $"{logged} writes to the log");
        var file = new MemoryNode((byte[])image.Clone());
        int count = 0;
        foreach (WriteLogEntry entry in log.Entries)
        {
            await WriteLogNode.ReplayAsync(entry, file);
            bool isLooked = ++count % 37 == 0 || entry.Kind == WriteLogKind.Flush || count == log.Count;
            if (!isLooked)
            {
                continue;
            }
            await using VhdxNode node = await VhdxDisks.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
            for (int round = 0; round < Rounds; round++)
            {
                for (long at = 0; at < Big && flushed[round] <= count; at += Page)
                {
                    BlockExtent extent = await node.GetExtentAsync(at + (round * (long)MiB), 1);
                    Assert.True(extent.IsZero && extent.IsAllocated, $"after {count} requests, round {round}, offset {at:#,0}");
                }
            }
        }
    }

    private static async Task<byte[]> CreateAsync(string options, byte[]? parent)
    {
        if (parent is null)
        {
            return await VhdxDisks.CreateAsync($"size={Size},{options}");
        }
        await using VhdxNode open = await VhdxDisks.OpenAsync(parent);
        return await VhdxDisks.CreateAsync($"backing_file=p.vhdx,{options}", open);
    }

    private static Task CrashAsync(byte[] image, byte[]? parent, SectorHistory history, int seed, Func<VhdxNode, WriteLogNode, Task> work)
        => EachPrefixAsync(image, parent, work, (disk, count, what) => history.Require(disk, count, $"seed {seed}: {what}"));

    /// <summary>
    /// Runs something, then looks at the disk as it would be if only the first n requests had reached the file, for every n; and, since
    /// a host may reorder what lies between two flushes, if any of those after the last flush had been lost.
    /// </summary>
    private static async Task EachPrefixAsync(
        byte[] image, byte[]? parent, Func<VhdxNode, WriteLogNode, Task> work, Action<byte[], int, string> require)
    {
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        await using (VhdxNode node = await VhdxDisks.OpenAsync(log, parent is null ? null : await VhdxDisks.OpenAsync(parent)))
        {
            await work(node, log);
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        VhdxSpecReader? specParent = parent is null ? null : new VhdxSpecReader(parent);
        var file = new MemoryNode((byte[])image.Clone());
        byte[] flushed = image;
        int flushedCount = 0, seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int count = 0; count <= entries.Count; count++)
        {
            if (count > 0)
            {
                await WriteLogNode.ReplayAsync(entries[count - 1], file);
                if (entries[count - 1].Kind == WriteLogKind.Flush)
                {
                    (flushed, flushedCount) = (file.ToArray(), count);
                    continue;
                }
            }
            await RequireAsync(file.ToArray(), count, $"after {count} of {entries.Count} requests");
            if (count % 3 == 0)
            {
                var some = new MemoryNode((byte[])flushed.Clone());
                foreach (WriteLogEntry entry in entries.Skip(flushedCount).Take(count - flushedCount).Where(_ => random.Next(2) == 0))
                {
                    await WriteLogNode.ReplayAsync(entry, some);
                }
                await RequireAsync(
                    some.ToArray(),
                    count,
                    $"after {count} of {entries.Count} requests, some of those after {flushedCount} lost (seed {seed})");
            }
        }

        async Task RequireAsync(byte[] crashed, int count, string what)
        {
            byte[] disk;
            await using (VhdxNode node = await VhdxDisks.OpenAsync(
                new MemoryNode((byte[])crashed.Clone()), parent is null ? null : await VhdxDisks.OpenAsync(parent)))
            {
                disk = await VhdxDisks.ReadAllAsync(node);
                CheckReport report = await node.CheckAsync(null, CancellationToken.None);
                Assert.True(report.Corruptions == 0, $"{what}: {string.Join("; ", report.Findings)}");
            }
            require(disk, count, what);
            if (count % 7 == 0)
            {
                Assert.True(new VhdxSpecReader(crashed, specParent).Contents().AsSpan().SequenceEqual(disk), what);
            }
        }
    }

    /// <summary>Everything each sector has held, and what of it a flush has made certain.</summary>
    private sealed class SectorHistory(byte[] start)
    {
        private readonly List<byte[]>[] _versions = [.. Enumerable.Range(
            0, start.Length / 512).Select(i => new List<byte[]> { start[(i * 512)..((i + 1) * 512)] })];
        private readonly List<(int Count, int[] Versions)> _flushes = [];

        public void Write(int at, byte[] data)
        {
            for (int i = 0; i < data.Length / 512; i++)
            {
                _versions[(at / 512) + i].Add(data[(i * 512)..((i + 1) * 512)]);
            }
        }

        /// <summary>A flush was over when so many requests had been made.</summary>
        public void Flushed(int count) => _flushes.Add((count, [.. _versions.Select(v => v.Count - 1)]));

        public void Require(byte[] disk, int count, string what)
        {
            int[]? certain = _flushes.LastOrDefault(f => f.Count <= count).Versions;
            for (int i = 0; i < _versions.Length; i++)
            {
                bool isKnown = false;
                for (int version = certain?[i] ?? 0; version < _versions[i].Count && !isKnown; version++)
                {
                    isKnown = disk.AsSpan(i * 512, 512).SequenceEqual(_versions[i][version]);
                }
                Assert.True(isKnown, $"{what}: sector {i} holds neither what was flushed last nor anything newer");
            }
        }
    }
}
