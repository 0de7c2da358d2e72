using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Jobs;

public sealed class JobTests
{
    private const int Size = (9 << 20) + 777;

    [Theory]
    [InlineData(1, 4096)]
    [InlineData(2, 65536)]
    [InlineData(5, 512)]
    [InlineData(3, 0)]
    public async Task A_copy_is_the_same_with_any_number_of_workers(int workers, long sparse)
    {
        byte[] contents = Contents(1);
        var target = new MemoryNode(new byte[Size]);
        var log = new WriteLogNode(target);
        ConvertResult result = await new ConvertJob(
            new MemoryNode(contents, readOnly: true),
            log,
            new ConvertOptions { Workers = workers, SparseSize = sparse }).RunAsync(null, CancellationToken.None);
        Assert.Equal(contents, target.ToArray());
        Assert.Equal(Size, result.BytesCopied + result.BytesZero + result.BytesSkipped);
        Assert.Equal(sparse == 0, result.BytesZero == 0);
        Assert.All(log.Entries.Where(e => sparse != 0), e => Assert.True(e.Data.Span.ContainsAnyExcept((byte)0), "zeroes were written"));
    }

    [Fact]
    public async Task A_target_that_does_not_read_as_zeroes_gets_them()
    {
        byte[] contents = Contents(2);
        var target = new MemoryNode(Enumerable.Repeat((byte)0xAA, Size).ToArray());
        _ = await new ConvertJob(
            new MemoryNode(contents, readOnly: true),
            target,
            new ConvertOptions { TargetReadsZero = false }).RunAsync(null, CancellationToken.None);
        Assert.Equal(contents, target.ToArray());
    }

    [Fact]
    public async Task Holes_are_never_read()
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["disk.qcow2"], "qcow2", "size=16T,cluster_size=2M");
        await using BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"]);
        await Images.CreateAsync(folder["copy.qcow2"], "qcow2", "size=16T,cluster_size=2M");
        await using BlockNode copy = await Images.OpenAsync(folder["copy.qcow2"], writable: true);
        ConvertResult result = await new ConvertJob(disk, copy, new ConvertOptions()).RunAsync(null, CancellationToken.None);
        Assert.Equal((0L, 16L << 40), (result.BytesCopied, result.BytesZero));
        Assert.True((await new CompareJob(disk, copy, strict: true).RunAsync(null, CancellationToken.None)).Identical);
    }

    [Theory]
    [InlineData(nameof(RequestKinds.Read), 3)]
    [InlineData(nameof(RequestKinds.Map), 1)]
    public async Task A_failing_source_is_the_jobs_failure(string kind, int number)
    {
        var source = new FaultInjectionNode(new MemoryNode(Contents(3), readOnly: true));
        source.Arm(new Fault(Enum.Parse<RequestKinds>(kind), number, DiskImageErrorKind.Corrupt));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => new ConvertJob(
                source, new MemoryNode(new byte[Size]), new ConvertOptions { Workers = 3 }).RunAsync(null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
    }

    [Fact]
    public async Task A_failing_target_is_the_jobs_failure()
    {
        var target = new FaultInjectionNode(new MemoryNode(new byte[Size]));
        target.Arm(new Fault(RequestKinds.Write, 2, DiskImageErrorKind.NoSpace) { Count = long.MaxValue });
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => new ConvertJob(
                new MemoryNode(Contents(4), readOnly: true), target, new ConvertOptions()).RunAsync(null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.NoSpace, error.Kind);
    }

    [Fact]
    public async Task Cancelled_it_has_stopped_when_it_returns()
    {
        using var stop = new CancellationTokenSource();
        var target = new FaultInjectionNode(new MemoryNode(new byte[Size]));
        var progress = new Callback(_ => stop.Cancel());
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => new ConvertJob(
                new MemoryNode(Contents(5), readOnly: true), target, new ConvertOptions { Workers = 4 }).RunAsync(progress, stop.Token));
        long after = target.Requests(RequestKinds.All);
        await Task.Delay(50);
        Assert.Equal(after, target.Requests(RequestKinds.All));
        Assert.InRange(after, 0, 30);
    }

    [Fact]
    public async Task Progress_reaches_the_end()
    {
        long last = 0;
        var progress = new Callback(p =>
        {
            Assert.Equal(Size, p.Total);
            InterlockedMax(ref last, p.Current);
        });
        _ = await new ConvertJob(
            new MemoryNode(Contents(6), readOnly: true),
            new MemoryNode(new byte[Size]),
            new ConvertOptions()).RunAsync(progress, CancellationToken.None);
        Assert.Equal(Size, last);
    }

    [Fact]
    public async Task A_target_that_is_too_short_is_refused_before_anything_is_written()
    {
        var target = new WriteLogNode(new MemoryNode(new byte[Size - 1]));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => new ConvertJob(
                new MemoryNode(new byte[Size], readOnly: true), target, new ConvertOptions()).RunAsync(null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.OutOfRange, error.Kind);
        Assert.Equal(0, target.Count);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData((1 << 20) - 1)]
    [InlineData(1 << 20)]
    [InlineData((5 << 20) + 123)]
    [InlineData(Size - 1)]
    public async Task The_first_difference_is_the_first(int at)
    {
        byte[] left = Contents(7), right = (byte[])left.Clone();
        right[at] ^= 0x40;
        right[Math.Min(at + (2 << 20), Size - 1)] ^= 0x20;
        CompareResult result = await new CompareJob(
            new MemoryNode(left, true), new MemoryNode(right, true), strict: false).RunAsync(null, CancellationToken.None);
        Assert.Equal((false, at, false), (result.Identical, result.FirstDifference, result.SizesDiffer));
    }

    [Fact]
    public async Task A_longer_disk_is_the_same_if_the_rest_is_zero()
    {
        byte[] left = Contents(8), right = [.. left, .. new byte[3 << 20]];
        CompareResult result = await CompareAsync(strict: false);
        Assert.Equal((true, null, true), (result.Identical, result.FirstDifference, result.SizesDiffer));
        CompareResult strict = await CompareAsync(strict: true);
        Assert.Equal((false, Size, DifferenceKind.Size), (strict.Identical, strict.FirstDifference, strict.Difference));
        right[Size + 5] = 1;
        result = await CompareAsync(strict: false);
        Assert.Equal(
            (false, Size + 5L, true, DifferenceKind.Content),
            (result.Identical, result.FirstDifference, result.SizesDiffer, result.Difference));

        Task<CompareResult> CompareAsync(bool strict)
            => new CompareJob(new MemoryNode(left, true), new MemoryNode(right, true), strict).RunAsync(null, CancellationToken.None);
    }

    [Fact]
    public async Task In_strict_mode_zeroes_that_are_stored_differ_from_holes()
    {
        const int Stored = 50 << 20;
        using var folder = new TestFolder();
        foreach (string name in new[] { "a.qcow2", "b.qcow2" })
        {
            await Images.CreateAsync(folder[name], "qcow2", "size=1G");
        }
        await using BlockNode left = await Images.OpenAsync(folder["a.qcow2"]), right = await Images.OpenAsync(
            folder["b.qcow2"], writable: true);
        await right.WriteAsync(Stored, new byte[1 << 16]);
        Assert.True((await new CompareJob(left, right, strict: false).RunAsync(null, CancellationToken.None)).Identical);
        CompareResult result = await new CompareJob(left, right, strict: true).RunAsync(null, CancellationToken.None);
        Assert.Equal((false, Stored, DifferenceKind.Allocation), (result.Identical, result.FirstDifference, result.Difference));
        await right.WriteAsync(Stored, new byte[] { 1 }); // now it reads differently too
        result = await new CompareJob(left, right, strict: true).RunAsync(null, CancellationToken.None);
        Assert.Equal((false, Stored, DifferenceKind.Content), (result.Identical, result.FirstDifference, result.Difference));
    }

    [Fact]
    public async Task Every_difference_is_listed_once_in_order()
    {
        byte[] left = Contents(9), right = [.. left, .. new byte[1000]];
        var expected = new List<(long, long)>();
        foreach ((int at, int length) in new[] { (0, 1), (5, 3), ((1 << 20) - 2, 4), (3 << 20, 1 << 20), (Size - 1, 1), (Size + 500, 7) })
        {
            for (int i = at; i < at + length; i++)
            {
                right[i] = (byte)((i < Size ? left[i] : 0) ^ 0xFF);
            }
            expected.Add((at, length));
        }
        var found = new List<(long, long)>();
        await foreach (DiskDifference range in new CompareJob(
            new MemoryNode(left, true), new MemoryNode(right, true), strict: false).DifferencesAsync(1, null, CancellationToken.None))
        {
            Assert.Equal(DifferenceKind.Content, range.Kind);
            found.Add((range.Offset, range.Length));
        }
        Assert.Equal(expected, found);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(512)]
    [InlineData(1000)] // no divisor of what is read at once
    [InlineData(65536)]
    [InlineData(3 << 20)] // more than what is read at once
    [InlineData(1L << 40)] // more than the disks
    public async Task Blocks_differ_as_a_whole(long granularity)
    {
        byte[] left = Contents(11), right = [.. left, .. new byte[1500]];
        foreach ((int at, int length) in new[] { (0, 1), (700, 600), ((1 << 20) - 2, 4), (Size - 70000, 1), (Size + 1400, 7) })
        {
            for (int i = at; i < at + length; i++)
            {
                right[i] = (byte)((i < Size ? left[i] : 0) ^ 0xFF);
            }
        }
        var expected = new List<(long Offset, long Length)>();
        for (long offset = 0; offset < right.Length; offset += granularity)
        {
            long end = Math.Min(offset + granularity, right.Length);
            if (Enumerable.Range((int)offset, (int)(end - offset)).Any(i => right[i] != (i < Size ? left[i] : 0)))
            {
                bool goesOn = expected.Count > 0 && expected[^1].Offset + expected[^1].Length == offset;
                long start = goesOn ? expected[^1].Offset : offset;
                if (goesOn)
                {
                    expected.RemoveAt(expected.Count - 1);
                }
                expected.Add((start, end - start));
            }
        }
        var found = new List<(long, long)>();
        var job = new CompareJob(new MemoryNode(left, true), new MemoryNode(right, true), strict: false);
        await foreach (DiskDifference range in job.DifferencesAsync(granularity, null, CancellationToken.None))
        {
            found.Add((range.Offset, range.Length));
        }
        Assert.Equal(expected, found);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(65536)]
    [InlineData(100_000)]
    public async Task Strict_differences_say_what_is_not_stored_alike_and_what_only_one_has(long granularity)
    {
        using var folder = new TestFolder();
        // clusters of 64 KiB: 0 written in both, 1 zeroes written on the left only, 2 differs, 3 in neither, 4 the tail of the right
        await Images.CreateAsync(folder["left.qcow2"], "qcow2", "size=256k");
        await using BlockNode left = await Images.OpenAsync(folder["left.qcow2"], writable: true);
        await Images.CreateAsync(folder["right.qcow2"], "qcow2", "size=320k");
        await using BlockNode right = await Images.OpenAsync(folder["right.qcow2"], writable: true);
        byte[] data = new byte[65536];
        data.AsSpan().Fill(3);
        await left.WriteAsync(0, data, CancellationToken.None);
        await right.WriteAsync(0, data, CancellationToken.None);
        await left.WriteAsync(65536, new byte[65536], CancellationToken.None);
        await left.WriteAsync(2 * 65536, data, CancellationToken.None);
        data[100] = 9;
        await right.WriteAsync(2 * 65536, data, CancellationToken.None);
        await right.WriteAsync(4 * 65536, data, CancellationToken.None);
        var found = new List<DiskDifference>();
        await foreach (DiskDifference one in new CompareJob(left, right, strict: true).DifferencesAsync(
            granularity, null, CancellationToken.None))
        {
            found.Add(one);
        }
        Assert.Equal(
            granularity switch
            {
                1 => [(65536, 65536, DifferenceKind.Allocation), ((2 * 65536) + 100, 1, DifferenceKind.Content)],
                65536 => [(65536, 65536, DifferenceKind.Allocation), (2 * 65536, 65536, DifferenceKind.Content)],
                _ => new (long, long, DifferenceKind)[]
                {
                    (0, 100_000, DifferenceKind.Allocation), (100_000, 100_000, DifferenceKind.Content),
                },
            },
            found.SkipLast(1).Select(d => (d.Offset, d.Length, d.Kind)));
        Assert.Equal(new DiskDifference(4 * 65536, 65536, DifferenceKind.Size), found[^1]);
        (bool same, long? first, _, DifferenceKind? kind) = await new CompareJob(left, right, strict: true).RunAsync(
            null, CancellationToken.None);
        Assert.Equal((false, 4 * 65536, DifferenceKind.Size), (same, first, kind));
    }

    [Fact]
    public async Task A_hash_is_that_of_the_bytes_holes_included()
    {
        using var folder = new TestFolder();
        byte[] contents = Contents(10);
        await Images.WriteSparseAsync(folder["a.raw"], contents);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["a.qcow2"], "qcow2", "cluster_size=4k");
        byte[] padded = [.. contents, .. new byte[512 - (Size % 512)]]; // qcow2 disks are whole sectors
        await using BlockNode raw = await Images.OpenAsync(folder["a.raw"], "raw"), qcow2 = await Images.OpenAsync(folder["a.qcow2"]);
        Assert.Equal(SHA256.HashData(contents), await new HashJob(raw, HashAlgorithmName.SHA256).RunAsync(null, CancellationToken.None));
        Assert.Equal(SHA256.HashData(padded), await new HashJob(qcow2, HashAlgorithmName.SHA256).RunAsync(null, CancellationToken.None));
        Assert.Equal(
            SHA512.HashData([]),
            await new HashJob(new MemoryNode([], true), HashAlgorithmName.SHA512).RunAsync(null, CancellationToken.None));
    }

    private static byte[] Contents(int seed)
    {
        var random = new Random(seed);
        byte[] bytes = new byte[Size];
        for (int at = 0; at < Size;)
        {
            int length = Math.Min(random.Next(1, 1 << random.Next(10, 20)), Size - at);
            if (random.Next(2) == 0)
            {
                random.NextBytes(bytes.AsSpan(at, length));
            }
            at += length;
        }
        return bytes;
    }

    private static void InterlockedMax(ref long target, long value)
    {
        long seen;
        while (value > (seen = Interlocked.Read(ref target)) && Interlocked.CompareExchange(ref target, value, seen) != seen)
        {
        }
    }

    /// <summary>Calls back at once, on the worker's thread.</summary>
    private sealed class Callback(Action<JobProgress> action) : IProgress<JobProgress>
    {
        public void Report(JobProgress value) => action(value);
    }
}
