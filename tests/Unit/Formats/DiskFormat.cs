using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Campaign;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>A format by its name: images of it in memory, and what is asked of every one.</summary>
internal sealed class DiskFormat(string name)
{
    private const long MostBytes = 1L << 30;

    private const long MostTransferred = 8L << 30; // what asks for nothing and does not end, the test run ends

    public FormatDriver Driver { get; } = Images.Registry.Format(name);

    /// <summary>A new image.</summary>
    public async Task<MemoryNode> CreateAsync(string options)
    {
        var file = new MemoryNode();
        var creatable = (ICreatable)Driver;
        await creatable.CreateAsync(
            new FormatCreateContext(file, creatable.CreateOptions.Bind(OptionSchema.Split(options))), CancellationToken.None);
        return file;
    }

    /// <summary>A new image with some contents.</summary>
    public async Task<byte[]> FilledAsync(string options, byte[] contents, byte[]? backing = null)
    {
        MemoryNode file = await CreateAsync(options);
        await using (BlockNode disk = await OpenAsync(file, backing))
        {
            await Images.FillAsync(disk, contents);
        }
        return file.ToArray();
    }

    /// <summary>Opens an image; a backing image, if it names one and one is given, is <paramref name="backing"/>.</summary>
    public ValueTask<BlockNode> OpenAsync(BlockNode file, byte[]? backing = null, bool forRepair = false, string options = "")
        => Driver.OpenAsync(
            new FormatOpenContext(
                file,
                Driver.OpenOptions.Bind(OptionSchema.Split(options)),
                backing is null ? null : (_, _, _) => new(new MemoryNode(backing, readOnly: true)),
                (reference, _, _) => throw new DiskImageException(DiskImageErrorKind.Refused, reference),
                forRepair),
            CancellationToken.None);

    public async Task<CheckReport> CheckAsync(byte[] file, string options = "")
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(file, readOnly: true), options: options);
        return await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
    }

    public async Task<byte[]> ReadAsync(byte[] file, byte[]? backing = null)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(file, readOnly: true), backing);
        byte[] all = new byte[disk.Length];
        await disk.ReadAsync(0, all);
        return all;
    }

    /// <summary>An image with another number in its header does not open, and says so in a way of its own.</summary>
    public async Task RefusesAsync(byte[] image, int offset, uint value, DiskImageErrorKind kind, bool bigEndian = false)
    {
        byte[] bytes = [.. image];
        BinaryPrimitives.WriteUInt32LittleEndian(
            bytes.AsSpan(offset), bigEndian ? BinaryPrimitives.ReverseEndianness(value) : value);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await OpenAsync(new MemoryNode(bytes, readOnly: Driver is not ICreatable)));
        Assert.Equal(kind, error.Kind);
    }

    /// <summary>
    /// Runs requests over a log and looks at the image after every prefix of what was written, and after any part of what was written since
    /// a flush: it opens, reads as what was flushed or newer, leaks at most (but for a finding that is named), and is fit for further use.
    /// </summary>
    public async Task CrashAsync(
        byte[] image,
        byte[]? backing,
        int[] tags,
        IReadOnlyList<GuestOperation> operations,
        string what,
        Func<BlockNode, Task>? last = null,
        int most = 120,
        string? finding = null)
    {
        var log = new WriteLogNode(new MemoryNode((byte[])image.Clone()));
        var history = new List<(GuestOperation Operation, int Began, int Done)>();
        await using (BlockNode disk = await OpenAsync(log, backing))
        {
            foreach (GuestOperation operation in operations)
            {
                int began = log.Count;
                await operation.RunAsync(disk);
                history.Add((operation, began, log.Count));
            }
            if (last is not null)
            {
                await last(disk);
            }
        }
        IReadOnlyList<WriteLogEntry> entries = log.Entries;
        Assert.True(entries.Count > 40, $"only {entries.Count} requests");
        int step = Math.Max(1, entries.Count / most), flushed = 0;
        var random = new Random(1);
        var prefix = new MemoryNode((byte[])image.Clone());
        var durable = new MemoryNode((byte[])image.Clone());
        for (int count = 0; count <= entries.Count; count++)
        {
            if (count % step == 0)
            {
                await SoundAsync(
                    prefix.ToArray(),
                    backing,
                    Model(tags, history, count, count),
                    null,
                    $"{what}, {count} of {entries.Count} requests",
                    finding);
                var part = new MemoryNode(durable.ToArray());
                foreach (WriteLogEntry entry in entries.Skip(flushed).Take(count - flushed).Where(_ => random.Next(2) == 0))
                {
                    if (entry.Kind != WriteLogKind.Discard || entry.Offset + entry.Length <= part.Length)
                    {
                        await WriteLogNode.ReplayAsync(entry, part);
                    }
                }
                HashSet<int> unsure = [.. history.Where(
                    h => h.Began < count && h.Done > flushed).SelectMany(h => Enumerable.Range(h.Operation.Sector, h.Operation.Count))];
                await SoundAsync(
                    part.ToArray(),
                    backing,
                    Model(tags, history, flushed, count),
                    unsure,
                    $"{what}, a part of requests {flushed} to {count}",
                    finding);
            }
            if (count < entries.Count)
            {
                await WriteLogNode.ReplayAsync(entries[count], prefix);
                for (; entries[count].Kind == WriteLogKind.Flush && flushed <= count; flushed++)
                {
                    await WriteLogNode.ReplayAsync(entries[flushed], durable);
                }
            }
        }
    }

    /// <summary>
    /// Does everything with an image that may be damaged. Only <see cref="DiskImageException"/> may come of it, in bounded work and memory,
    /// and an image that does not open stays as it is. Returns the number of errors.
    /// </summary>
    public async Task<int> ExerciseAsync(byte[] image, string what, byte[]? backing = null)
    {
        int errors = 0;
        long transferred = 0, allocated = GC.GetAllocatedBytesForCurrentThread();
        int thread = Environment.CurrentManagedThreadId;
        try
        {
            await UseAsync(image, backing, writable: false, forRepair: false, LookAsync);
            if (Driver is ICreatable)
            {
                await UseAsync(image, backing, writable: true, forRepair: false, ChangeAsync);
                foreach (RepairMode mode in new[] { RepairMode.Leaks, RepairMode.All })
                {
                    await UseAsync(image, backing, writable: true, forRepair: true, async disk =>
                    {
                        if (disk is IRepairable repairable)
                        {
                            await TryAsync(async () => _ = await repairable.RepairAsync(mode, null, CancellationToken.None));
                        }
                    });
                }
            }
        }
        catch (Exception e) when (e is not Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e}");
        }
        // of another thread it tells nothing
        allocated = thread == Environment.CurrentManagedThreadId ? GC.GetAllocatedBytesForCurrentThread() - allocated : 0;
        Assert.True(allocated < MostBytes, $"{what}: {allocated:#,0} bytes allocated");
        Assert.True(transferred < MostTransferred, $"{what}: {transferred:#,0} bytes read and written");
        return errors;

        async Task UseAsync(byte[] bytes, byte[]? below, bool writable, bool forRepair, Func<BlockNode, Task> use)
        {
            var file = new MemoryNode((byte[])bytes.Clone(), readOnly: !writable);
            var counted = new CountingNode(file);
            try
            {
                BlockNode disk = await OpenAsync(counted, below, forRepair);
                await use(disk);
                await TryAsync(disk.DisposeAsync);
            }
            catch (DiskImageException e)
            {
                errors++;
                Assert.False(file.IsClosed, $"{what}: a failed open closed the file: {e.Message}");
            }
            transferred += counted.Bytes;
        }

        async Task LookAsync(BlockNode disk)
        {
            _ = ((IDescribed)disk).Describe();
            byte[] buffer = new byte[1 << 20];
            int part = (int)Math.Min(buffer.Length, disk.Length);
            await TryAsync(() => disk.ReadAsync(0, buffer.AsMemory(0, part)));
            await TryAsync(() => disk.ReadAsync(disk.Length - part, buffer.AsMemory(0, part)));
            await TryAsync(async () =>
            {
                int extents = 0;
                await foreach (BlockExtent extent in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
                {
                    Assert.True(extent.Length > 0);
                    if (++extents == 2000)
                    {
                        break;
                    }
                }
            });
            await TryAsync(
                async () => errors += (int)Math.Min(1, (await ((ICheckable)disk).CheckAsync(null, CancellationToken.None)).Corruptions));
        }

        async Task ChangeAsync(BlockNode disk)
        {
            byte[] data = new byte[70_000];
            Array.Fill(data, (byte)0x77);
            long end = Math.Max(0, disk.Length - data.Length);
            int part = (int)Math.Min(data.Length, disk.Length);
            foreach (long offset in new[] { 0, end / 2, end })
            {
                await TryAsync(() => disk.WriteAsync(offset, data.AsMemory(0, part)));
                await TryAsync(() => disk.WriteZeroesAsync(offset, part));
                await TryAsync(() => disk.DiscardAsync(offset, part));
                await TryAsync(() => disk.FlushAsync());
            }
        }

        async Task TryAsync(Func<ValueTask> action)
        {
            try
            {
                await action();
            }
            catch (DiskImageException)
            {
                errors++;
            }
        }
    }

    /// <summary>Cuts an image anywhere, and damages bytes of some ranges at random; the seed of a failure stands in its message.</summary>
    public async Task DamageAsync(
        byte[] image, IReadOnlyList<(long Offset, int Length)> places, int first, int rounds, byte[]? backing = null)
    {
        int noticed = 0;
        foreach (int length in Enumerable.Range(0, 40).Select(
            i => (int)((long)image.Length * i / 40)).Concat([1, 3, 4, 63, 64, 511, 512, 513]).Where(l => l <= image.Length))
        {
            noticed += await ExerciseAsync(image[..length], $"{name}: cut to {length} bytes", backing);
        }
        Assert.True(noticed > 0);
        ulong[] values =
        [
            0, 1, 2, 511, 512, 4096, 65535, 65536, 0x7FFF_FFFF, 0xFFFF_FFFF, 1UL << 32, (ulong)image.Length, (ulong)image.Length - 512,
            1UL << 62, 1UL << 63, ulong.MaxValue, ulong.MaxValue - 4095,
        ];
        noticed = 0;
        for (int seed = first; seed < first + rounds; seed++)
        {
            var random = new Random(seed);
            byte[] damaged = (byte[])image.Clone();
            for (int i = random.Next(1, 5); i > 0; i--)
            {
                (long offset, int length) = places[random.Next(places.Count)];
                int width = 1 << random.Next(4), at = (int)offset + (random.Next(Math.Max(1, length / width)) * width);
                byte[] value = BitConverter.GetBytes(random.Next(3) == 0 ? (ulong)random.NextInt64() : values[random.Next(values.Length)]);
                if (random.Next(2) == 0)
                {
                    Array.Reverse(value);
                    value = value[^width..];
                }
                value.AsSpan(0, Math.Min(width, damaged.Length - at)).CopyTo(damaged.AsSpan(at));
            }
            noticed += Math.Min(1, await ExerciseAsync(damaged, $"{name}: seed {seed}", backing));
        }
        Assert.True(noticed > rounds / 10, $"only {noticed} of {rounds} noticed");
    }

    /// <summary>Two arrays are alike; says where they are not.</summary>
    public static void Same(byte[] expected, byte[] actual)
    {
        int same = expected.AsSpan().CommonPrefixLength(actual);
        Assert.True(expected.Length == actual.Length
            && same == expected.Length, $"{actual.Length} bytes instead of {expected.Length}; differs at {same}");
    }

    /// <summary>Random requests to a disk and its twin; reads are compared at once.</summary>
    public static async Task RequestsAsync(BlockNode disk, byte[] twin, Random random, int count)
    {
        for (int i = 0; i < count; i++)
        {
            int bytes = Math.Min(1 + random.Next(1 << random.Next(1, 20)), twin.Length), offset = random.Next(twin.Length - bytes + 1);
            Memory<byte> range = twin.AsMemory(offset, bytes);
            switch (random.Next(9))
            {
                case 0 or 1 or 2 or 3:
                    random.NextBytes(range.Span);
                    await disk.WriteAsync(offset, range);
                    break;
                case 4 or 5 when random.Next(2) == 0:
                    range.Span.Clear();
                    await disk.WriteZeroesAsync(offset, bytes, random.Next(2) == 0 ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated);
                    break;
                case 6:
                    await disk.DiscardAsync(offset, bytes);
                    await disk.ReadAsync(offset, range); // undefined, but from here on it stays what it is
                    break;
                case 7:
                    await disk.FlushAsync();
                    break;
                default:
                    byte[] read = new byte[bytes];
                    await disk.ReadAsync(offset, read);
                    Assert.True(range.Span.SequenceEqual(read), $"request {i}: {bytes} bytes at {offset}");
                    break;
            }
        }
    }

    private static SectorModel Model(int[] tags, List<(GuestOperation Operation, int Began, int Done)> history, int done, int began)
    {
        var model = new SectorModel(tags);
        foreach ((GuestOperation operation, int start, int end) in history.Where(h => h.Began < began || h.Done <= done))
        {
            if (end <= done)
            {
                model.Done(operation);
            }
            else
            {
                model.Began(operation);
            }
        }
        return model;
    }

    private async Task SoundAsync(byte[] image, byte[]? backing, SectorModel model, HashSet<int>? unsure, string what, string? finding)
    {
        try
        {
            await using (BlockNode disk = await OpenAsync(new MemoryNode(image, readOnly: true), backing))
            {
                await model.VerifyAsync(disk, crashed: true, unsure);
            }
            LeaksAtMost(await CheckAsync(image));
            var file = new MemoryNode(image);
            await using (BlockNode disk = await OpenAsync(file, backing)) // and life goes on
            {
                foreach (GuestOperation operation in GuestOperation.Sequence(
                    77, model.Sectors, 8, 50, GuestAction.Write, GuestAction.Discard, GuestAction.WriteZeroes))
                {
                    await operation.RunAsync(disk);
                }
            }
            LeaksAtMost(await CheckAsync(file.ToArray()));
        }
        catch (Exception e) when (e is DiskImageException or Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e.Message}");
        }

        void LeaksAtMost(CheckReport report) => Assert.All(
            report.Findings,
            f => Assert.True(
                f.Severity is CheckSeverity.Leak or CheckSeverity.Warning || f.Kind.Equals(finding, StringComparison.Ordinal),
                f.ToString()));
    }
}
