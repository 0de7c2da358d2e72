using System.Reflection;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Conformance;

/// <summary>
/// What every node promises, whatever it is: the contract of <see cref="BlockNode"/>. A node's own class says how to make one and
/// what of the optional things it does.
/// </summary>
public abstract class NodeConformance : IDisposable
{
    private protected const int Size = (3 << 20) + 1536; // no multiple of any larger cluster

    private protected TestFolder Folder { get; } = new();

    /// <summary>A node that is open and reads as <paramref name="contents"/>; called once per test.</summary>
    private protected abstract Task<BlockNode> MakeAsync(byte[] contents, bool writable);

    /// <summary>True if the node can be had open for writing.</summary>
    private protected virtual bool CanWrite => true;

    /// <summary>True if its length can be changed.</summary>
    private protected virtual bool CanResize => false;

    /// <summary>True if its length can be changed to less.</summary>
    private protected virtual bool CanShrink => CanResize;

    /// <summary>True if space can be claimed ahead when its length is changed.</summary>
    private protected virtual bool CanPreallocate => CanResize;

    public void Dispose()
    {
        Folder.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>All of it once more, where other nodes stand around.</summary>
    [Theory]
    [InlineData((int)Surroundings.Filter)]
    [InlineData((int)Surroundings.AlignedChild)]
    public async Task The_same_holds_between_others(int around)
    {
        int count = 0;
        foreach (MethodInfo test in GetType().GetMethods().Where(
            m => m.GetCustomAttribute<FactAttribute>() is { Skip: null } fact && fact.GetType() == typeof(FactAttribute)))
        {
            using var again = (NodeConformance)Activator.CreateInstance(GetType())!;
            Images.Around.Value = (Surroundings)around;
            try
            {
                await (Task)test.Invoke(again, null)!;
            }
            catch (Exception e)
            {
                Assert.Fail($"{test.Name}: {e}");
            }
            count++;
        }
        Assert.True(count >= 10);
    }

    [Fact]
    public async Task Reads_give_exactly_the_bytes_of_the_range()
    {
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: false);
        Assert.Equal(contents.Length, node.Length);
        foreach ((long offset, int length) in Ranges(seed: 1))
        {
            byte[] buffer = Dirty(length + 16);
            await node.ReadAsync(offset, buffer.AsMemory(8, length));
            Assert.True(contents.AsSpan((int)offset, length).SequenceEqual(buffer.AsSpan(8, length)), $"{length} bytes at {offset}");
            Assert.All(buffer[..8].Concat(buffer[^8..]), b => Assert.Equal(0xA5, b));
        }
    }

    [Fact]
    public async Task What_lies_past_the_end_is_refused_or_padded()
    {
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: false);
        foreach ((
            long offset,
            int length) in new[] { (-1L, 1),
            (Size, 1),
            (Size - 1, 2),
            (long.MaxValue, 1),
            (long.MaxValue - 3, 8),
            (long.MinValue, 4),
            (Size + 1L, 0) })
        {
            await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.ReadAsync(offset, new byte[length]));
        }
        await ExpectAsync(DiskImageErrorKind.OutOfRange, async () => _ = await node.GetExtentAsync(0, long.MaxValue));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, async () => _ = await node.GetExtentAsync(Size, 1));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, async () => _ = await node.GetExtentAsync(5, -1));
        await node.ReadAsync(Size, Memory<byte>.Empty);
        byte[] padded = Dirty(100);
        await node.ReadPaddedAsync(Size - 40, padded);
        Assert.Equal([.. contents[^40..], .. new byte[60]], padded);
        padded = Dirty(10);
        await node.ReadPaddedAsync(Size + 1000, padded);
        Assert.Equal(new byte[10], padded);
    }

    [Fact]
    public async Task Changes_past_the_end_are_refused_by_nodes_of_fixed_length()
    {
        if (!CanWrite)
        {
            return;
        }
        await using BlockNode node = await MakeAsync(Contents(), writable: true);
        await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteAsync(-1, new byte[1]));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteAsync(long.MaxValue, new byte[1]));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.DiscardAsync(Size, 1));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteZeroesAsync(0, -1));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteZeroesAsync(1, long.MaxValue));
        if (node.GrowsOnWrite)
        {
            await node.WriteAsync(Size + 1000, new byte[] { 7 });
            byte[] end = Dirty(1001);
            await node.ReadAsync(Size, end);
            Assert.Equal([.. new byte[1000], 7], end);
            await node.WriteZeroesAsync(Size + 900, 4196);
            Assert.Equal(Size + 5096, node.Length);
            end = Dirty(5096);
            await node.ReadAsync(Size, end);
            Assert.Equal(new byte[5096], end);
        }
        else
        {
            await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteAsync(Size - 1, new byte[2]));
            await ExpectAsync(DiskImageErrorKind.OutOfRange, () => node.WriteZeroesAsync(Size, 1));
            Assert.Equal(Size, node.Length);
        }
    }

    [Fact]
    public async Task A_node_opened_read_only_refuses_every_change()
    {
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: false);
        Assert.True(node.IsReadOnly);
        await ExpectAsync(DiskImageErrorKind.ReadOnly, () => node.WriteAsync(0, new byte[1]));
        await ExpectAsync(DiskImageErrorKind.ReadOnly, () => node.WriteZeroesAsync(0, 1));
        await ExpectAsync(DiskImageErrorKind.ReadOnly, () => node.DiscardAsync(0, 1));
        await ExpectAsync(DiskImageErrorKind.ReadOnly, () => node.ResizeAsync(Size * 2));
        await node.FlushAsync();
        await ReadsAsAsync(contents, node);
    }

    [Fact]
    public async Task Extents_follow_each_other_and_say_the_truth()
    {
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: false);
        var random = new Random(2);
        for (long offset = 0; offset < node.Length;)
        {
            long asked = random.Next(1, 1 << random.Next(1, 22));
            BlockExtent extent = await node.GetExtentAsync(offset, Math.Min(asked, node.Length - offset));
            Assert.Equal(offset, extent.Offset);
            Assert.InRange(extent.Length, 1, asked);
            Assert.True(extent.Depth >= 0);
            ReadOnlyMemory<byte> expected = contents.AsMemory((int)offset, (int)extent.Length);
            Assert.True(extent.IsZero || extent.IsData, $"{extent}: neither data nor zeroes");
            if (extent.IsZero)
            {
                Assert.False(expected.Span.ContainsAnyExcept((byte)0), $"{extent} reads as something");
            }
            else if (extent.HostOffset is long host)
            {
                byte[] stored = new byte[extent.Length];
                await extent.Node!.ReadPaddedAsync(host, stored);
                Assert.True(expected.Span.SequenceEqual(stored), $"{extent} is stored elsewhere");
            }
            offset = extent.End;
        }
    }

    [Fact]
    public async Task Many_extents_at_once_are_the_same_extents()
    {
        await using BlockNode node = await MakeAsync(Contents(), writable: false);
        var single = new List<BlockExtent>();
        for (long offset = 0; offset < Size;)
        {
            BlockExtent extent = await node.GetExtentAsync(offset, Size - offset);
            single.Add(extent);
            offset = extent.End;
        }
        foreach (int room in new[] { 1, 3, 4096 })
        {
            var extents = new BlockExtent[room];
            var many = new List<BlockExtent>();
            for (long offset = 0; offset < Size; offset = many[^1].End)
            {
                int count = await node.GetExtentsAsync(offset, Size - offset, extents);
                Assert.InRange(count, 1, room);
                many.AddRange(extents[..count]);
            }
            Assert.Equal(Joined(single), Joined(many));
        }
        var cut = new BlockExtent[4096];
        int found = await node.GetExtentsAsync(700, 200_001, cut);
        Assert.Equal((700L, 200_701L), (cut[0].Offset, cut[found - 1].End));
        await ExpectAsync(DiskImageErrorKind.OutOfRange, async () => _ = await node.GetExtentsAsync(Size - 5, 6, cut));

        static List<BlockExtent> Joined(List<BlockExtent> extents)
        {
            var joined = new List<BlockExtent>();
            foreach (BlockExtent extent in extents)
            {
                if (joined.Count > 0 && joined[^1].IsContinuedBy(extent))
                {
                    joined[^1] = joined[^1] with { Length = joined[^1].Length + extent.Length };
                }
                else
                {
                    joined.Add(extent);
                }
            }
            return joined;
        }
    }

    [Fact]
    public async Task Requests_in_parallel_do_not_disturb_each_other()
    {
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, CanWrite);
        const int Workers = 6, Part = Size / Workers;
        await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
        {
            var random = new Random(100 + worker);
            for (int i = 0; i < 40; i++)
            {
                int start = (worker * Part) + random.Next(Part - 1), length = random.Next(1, (worker * Part) + Part - start);
                if (CanWrite && random.Next(2) == 0)
                {
                    random.NextBytes(contents.AsSpan(start, length));
                    await node.WriteAsync(start, contents.AsMemory(start, length));
                }
                byte[] buffer = Dirty(length);
                await node.ReadAsync(start, buffer);
                Assert.True(contents.AsSpan(start, length).SequenceEqual(buffer), $"{length} bytes at {start}");
                _ = await node.GetExtentAsync(random.Next(Size), 1);
            }
        })));
        await ReadsAsAsync(contents, node);
    }

    [Fact]
    public async Task Writes_change_their_range_and_nothing_else()
    {
        if (!CanWrite)
        {
            return;
        }
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: true);
        var random = new Random(3);
        foreach ((long offset, int length) in Ranges(seed: 4))
        {
            random.NextBytes(contents.AsSpan((int)offset, length));
            await node.WriteAsync(offset, contents.AsMemory((int)offset, length));
        }
        await ReadsAsAsync(contents, node);
        await node.FlushAsync();
        await ReadsAsAsync(contents, node);
    }

    [Theory]
    [InlineData(ZeroWriteMode.MayUnmap)]
    [InlineData(ZeroWriteMode.KeepAllocated)]
    public async Task Zeroes_read_as_zeroes_and_change_nothing_else(ZeroWriteMode mode)
    {
        if (!CanWrite)
        {
            return;
        }
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: true);
        foreach ((long offset, int length) in Ranges(seed: 5).Take(12).Append((65536, 131072)).Append((Size - 1536, 1536)))
        {
            contents.AsSpan((int)offset, length).Clear();
            await node.WriteZeroesAsync(offset, length, mode);
        }
        await ReadsAsAsync(contents, node);
        await node.WriteZeroesAsync(0, Size, mode);
        await ReadsAsAsync(new byte[Size], node);
    }

    [Fact]
    public async Task Discard_leaves_everything_else_alone()
    {
        if (!CanWrite)
        {
            return;
        }
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: true);
        foreach ((long offset, int length) in Ranges(seed: 6).Take(12).Append((131072, 131072)))
        {
            await node.DiscardAsync(offset, length);
            await node.ReadAsync(offset, contents.AsMemory((int)offset, length)); // what it reads as now is the node's affair
        }
        await ReadsAsAsync(contents, node);
        await node.DiscardAsync(0, 0);
        await node.DiscardAsync(Size, 0);
    }

    [Fact]
    public async Task New_space_reads_as_zeroes_and_a_fixed_length_stays()
    {
        if (!CanWrite)
        {
            return;
        }
        byte[] contents = Contents();
        await using BlockNode node = await MakeAsync(contents, writable: true);
        if (!CanResize)
        {
            await ExpectAsync(DiskImageErrorKind.Unsupported, () => node.ResizeAsync(Size * 2));
            Assert.Equal(Size, node.Length);
            return;
        }
        await node.ResizeAsync(Size + 102_400);
        await ReadsAsAsync([.. contents, .. new byte[102_400]], node);
        if (!CanShrink)
        {
            await ExpectAsync(DiskImageErrorKind.Unsupported, () => node.ResizeAsync(1000 * 512));
            await ExpectAsync(DiskImageErrorKind.InvalidOption, () => node.ResizeAsync(Size * 2, PreallocationMode.Falloc));
            await ReadsAsAsync([.. contents, .. new byte[102_400]], node);
            return;
        }
        await node.ResizeAsync(1000 * 512);
        await ReadsAsAsync(contents[..(1000 * 512)], node);
        foreach (PreallocationMode mode in new[] { PreallocationMode.Off, PreallocationMode.Falloc, PreallocationMode.Full })
        {
            if (mode != PreallocationMode.Off && !CanPreallocate)
            {
                await ExpectAsync(DiskImageErrorKind.InvalidOption, () => node.ResizeAsync(Size, mode));
                continue;
            }
            long before = node.Length;
            await node.ResizeAsync(before + 70_144, mode);
            await ReadsAsAsync([.. contents[..(1000 * 512)], .. new byte[node.Length - (1000 * 512)]], node);
            Assert.Equal(before + 70_144, node.Length);
        }
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(async () => await node.ResizeAsync(-1));
    }

    [Fact]
    public async Task Closing_twice_is_closing_once()
    {
        BlockNode node = await MakeAsync(Contents(), CanWrite);
        await node.FlushAsync();
        await node.DisposeAsync();
        await node.DisposeAsync();
    }

    /// <summary>Holes, zeroes, noise and text in runs of no particular alignment.</summary>
    private protected static byte[] Contents()
    {
        byte[] bytes = new byte[Size];
        var random = new Random(7);
        for (int at = 0; at < Size;)
        {
            int length = Math.Min(random.Next(1, 1 << random.Next(9, 19)), Size - at);
            if (random.Next(3) != 0)
            {
                random.NextBytes(bytes.AsSpan(at, length));
            }
            at += length;
        }
        return bytes;
    }

    private protected static async Task ReadsAsAsync(byte[] expected, BlockNode node)
    {
        Assert.Equal(expected.Length, node.Length);
        byte[] all = Dirty(expected.Length);
        await node.ReadAsync(0, all);
        int same = expected.AsSpan().CommonPrefixLength(all);
        Assert.True(same == expected.Length, $"differs at {same}");
    }

    private protected static async Task ExpectAsync(DiskImageErrorKind kind, Func<ValueTask> action)
        => Assert.Equal(kind, (await Assert.ThrowsAsync<DiskImageException>(async () => await action())).Kind);

    private static byte[] Dirty(int length)
    {
        byte[] bytes = new byte[length];
        Array.Fill(bytes, (byte)0xA5);
        return bytes;
    }

    private static IEnumerable<(long Offset, int Length)> Ranges(int seed)
    {
        var random = new Random(seed);
        yield return (0, 1);
        yield return (Size - 1, 1);
        yield return (511, 2);
        yield return (65535, 65538);
        for (int i = 0; i < 40; i++)
        {
            int length = random.Next(1, 1 << random.Next(1, 20));
            yield return (random.NextInt64(Size - length + 1), length);
        }
    }
}
