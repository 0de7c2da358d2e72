using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>
/// The power goes, or requests fail, while a disk with bitmaps is written to and its bitmaps are changed. Whatever is left: a bitmap
/// that claims to be good covers everything that is not as it was when the bitmap was added.
/// </summary>
public sealed class BitmapFaultTests
{
    private const int Length = 512 << 10, Steps = 60;

    public static TheoryData<string, int> Shapes() => new()
    {
        { "cluster_size=512", 1 }, { "cluster_size=512,refcount_bits=64", 2 }, { "cluster_size=4k", 3 }, { "cluster_size=64k", 4 },
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Any_part_of_the_writes_leaves_true_bitmaps_or_none(string options, int seed)
    {
        byte[] image = await MemoryDisk.NewAsync($"size={Length},{options}");
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        var model = new Model();
        await using (BlockNode disk = await MemoryDisk.OpenAsync(log))
        {
            await RunAsync(disk, model, seed, mayFail: false);
        }
        var random = new Random(seed);
        var file = new MemoryNode(image);
        int good = 0, inUse = 0;
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        for (int start = 0; start < entries.Count;)
        {
            int end = start;
            while (end < entries.Count && entries[end].Kind != WriteLogKind.Flush)
            {
                end++;
            }
            for (int attempt = 0; attempt < 5; attempt++) // a prefix, then parts of what was not flushed
            {
                var crashed = new MemoryNode(file.ToArray());
                int prefix = random.Next(start, end + 1);
                foreach (WriteLogEntry entry in entries.Take(start..end).Where(
                    (_, i) => attempt == 0 ? start + i < prefix : random.Next(attempt) == 0))
                {
                    if (entry.Kind != WriteLogKind.Discard || entry.Offset + entry.Length <= crashed.Length)
                    {
                        await WriteLogNode.ReplayAsync(entry, crashed);
                    }
                }
                (int truthful, int unsaved) = await SoundAsync(
                    crashed.ToArray(), model, $"{options}, requests {start} to {end}, attempt {attempt}");
                (good, inUse) = (good + truthful, inUse + unsaved);
            }
            for (; start <= end && start < entries.Count; start++)
            {
                await WriteLogNode.ReplayAsync(entries[start], file);
            }
        }
        Assert.True(good > 50 && inUse > 50, $"{good} good, {inUse} in use");
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Any_failed_request_leaves_true_bitmaps_or_none(string options, int seed)
    {
        byte[] image = await MemoryDisk.NewAsync($"size={Length},{options}");
        var counter = new FaultInjectionNode(new MemoryNode((byte[])image.Clone()));
        await using (BlockNode disk = await MemoryDisk.OpenAsync(counter))
        {
            await RunAsync(disk, new Model(), seed, mayFail: false);
        }
        long requests = counter.Requests(RequestKinds.All);
        for (long number = 1; number <= requests; number += 1 + (requests / 100))
        {
            foreach (long count in new[] { 1, long.MaxValue })
            {
                var memory = new MemoryNode((byte[])image.Clone());
                var file = new FaultInjectionNode(memory);
                var model = new Model();
                BlockNode disk = await MemoryDisk.OpenAsync(file);
                file.Arm(new Fault(count == 1 ? RequestKinds.All : RequestKinds.Changes, number) { Count = count });
                await RunAsync(disk, model, seed, mayFail: true);
                try
                {
                    await disk.DisposeAsync();
                }
                catch (DiskImageException)
                {
                    // the bitmaps stay in use
                }
                _ = await SoundAsync(memory.ToArray(), model, $"{options}, request {number} fails {(count == 1 ? "once" : "for good")}");
            }
        }
    }

    private static async Task RunAsync(BlockNode disk, Model model, int seed, bool mayFail)
    {
        var random = new Random(seed);
        var bitmaps = (IBitmaps)disk;
        for (int step = 0; step < Steps; step++)
        {
            int offset = random.Next(Length / 512 * 3 / 4) * 512, count = random.Next(1, 40) * 512, granularity = 512 << random.Next(6);
            string name = $"b{step}";
            Func<ValueTask> action;
            switch (random.Next(14))
            {
                case 0 or 1:
                    action = async () => _ = await bitmaps.AddBitmapAsync(name, granularity, enabled: true, CancellationToken.None);
                    model.Add(name);
                    break;
                case 2 when model.Names.Count > 3:
                    string oldest = model.Names.Dequeue();
                    action = () => bitmaps.RemoveBitmapAsync(oldest, CancellationToken.None);
                    break;
                case 3 when model.Names.Count > 0:
                    action = () => bitmaps.MergeBitmapAsync(
                        model.Names.Peek(), [(offset, Math.Min(count, disk.Length - offset))], CancellationToken.None);
                    break;
                case 4:
                    action = async () => _ = await ((ISnapshots)disk).CreateSnapshotAsync(
                        name, DateTimeOffset.UnixEpoch, CancellationToken.None);
                    break;
                case 5:
                    long length = Length - (random.Next(200) * 512);
                    action = () => disk.ResizeAsync(length);
                    break;
                case 6:
                    action = () => disk.FlushAsync();
                    break;
                case 7:
                    action = () => disk.WriteZeroesAsync(offset, Math.Min(count, disk.Length - offset));
                    break;
                default:
                    byte[] data = new byte[count];
                    random.NextBytes(data);
                    long inside = Math.Clamp(disk.Length - offset, 0, count);
                    model.Written(data, (int)inside);
                    action = () => disk.WriteAsync(offset, data.AsMemory(0, (int)inside));
                    break;
            }
            try
            {
                await action();
            }
            catch (DiskImageException) when (mayFail)
            {
                // what it did before it failed is what is looked at
            }
        }
    }

    /// <summary>
    /// The image opens and is sound, and each bitmap that is not in use tells the truth. How many of each kind there are.
    /// </summary>
    private static async Task<(int Good, int InUse)> SoundAsync(byte[] image, Model model, string what)
    {
        var file = new MemoryNode(image);
        await using (BlockNode repaired = await MemoryDisk.OpenAsync(file)) // repairs an image that is marked dirty
        {
            await MemoryDisk.LeaksAtMostAsync(file.ToArray(), what);
        }
        await using BlockNode disk = await MemoryDisk.OpenAsync(new MemoryNode(file.ToArray(), readOnly: true));
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        int good = 0, inUse = 0;
        foreach (DiskBitmap bitmap in await ((IBitmaps)disk).GetBitmapsAsync(CancellationToken.None))
        {
            if (bitmap.IsInUse)
            {
                inUse++;
                continue;
            }
            good++;
            bool[] dirty = new bool[contents.Length];
            foreach ((long offset, long length) in await ((IBitmaps)disk).GetDirtyRangesAsync(bitmap.Name, CancellationToken.None))
            {
                dirty.AsSpan((int)offset, (int)length).Fill(true);
            }
            HashSet<long> written = model.Since[bitmap.Name];
            for (int at = 0; at < contents.Length; at += 512)
            {
                bool isLater = contents.AsSpan(at, 512).ContainsAnyExcept((byte)0)
                    && written.Contains(Model.Mark(contents.AsSpan(at, 512)));
                Assert.True(dirty[at] || !isLater, $"{what}: bitmap {bitmap.Name} does not know that {at} was written after it was added");
            }
        }
        return (good, inUse);
    }

    /// <summary>
    /// For each bitmap, what was written since it was added, sector by sector: sectors are noise, so eight bytes tell them apart.
    /// </summary>
    private sealed class Model
    {
        public Dictionary<string, HashSet<long>> Since { get; } = new(StringComparer.Ordinal);

        /// <summary>Those that were not removed, the oldest first.</summary>
        public Queue<string> Names { get; } = [];

        public static long Mark(ReadOnlySpan<byte> sector) => BitConverter.ToInt64(sector);

        public void Add(string name)
        {
            Since[name] = [];
            Names.Enqueue(name);
        }

        public void Written(byte[] data, int length)
        {
            for (int at = 0; at < length; at += 512)
            {
                foreach (HashSet<long> marks in Since.Values)
                {
                    _ = marks.Add(Mark(data.AsSpan(at)));
                }
            }
        }
    }
}
