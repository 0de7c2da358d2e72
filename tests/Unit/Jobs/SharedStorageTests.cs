using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Jobs;

/// <summary>Conversions whose data the host takes over: the same disk as by reading and writing, whatever it refuses.</summary>
public sealed class SharedStorageTests
{
    private const int Size = 8 << 20;

    private static readonly Dictionary<string, System.Security.SecureString> s_noSecrets = new(StringComparer.Ordinal);

    public static TheoryData<string, string> Targets => new()
    {
        { "raw", "" }, { "qcow2", "" }, { "qcow2", "cluster_size=4k" }, { "qcow2", "cluster_size=512" }, { "qcow2", "extended_l2=on" },
        { "qcow2", "preallocation=metadata" }, { "qed", "" }, { "vhdx", "" }, { "vhdx", "subformat=fixed" }, { "vpc", "" },
        { "vpc", "subformat=fixed" }, { "vdi", "" }, { "vmdk", "" }, { "parallels", "" }, { "qcow2", "encrypt.format=luks" },
    };

    [Theory]
    [MemberData(nameof(Targets))]
    public async Task The_disk_is_the_same_whichever_requests_are_refused(string format, string options)
    {
        bool isEncrypted = options.Contains("encrypt", StringComparison.Ordinal);
        byte[] contents = Mixed(13);
        foreach ((string name, Func<int, bool> allows, long most) in new (string, Func<int, bool>, long)[]
        {
            ("all", _ => true, long.MaxValue), ("none", _ => false, long.MaxValue), ("first only", i => i == 0, long.MaxValue),
            ("every other", i => i % 2 == 1, long.MaxValue), ("in part", _ => true, 12_288),
        })
        {
            var source = new SharingNode(contents, isReadOnly: true);
            (byte[] image, byte[] disk, ConvertResult result) = await ConvertAsync(
                source, new SharingNode([]) { Allows = allows, Most = most }, format, options);
            Assert.True(contents.AsSpan().SequenceEqual(disk), name);
            Assert.True(result.BytesShared <= result.BytesCopied, name);
            Assert.Equal(Size, result.BytesCopied + result.BytesZero);
            if (isEncrypted || name == "none")
            {
                Assert.Equal(0, result.BytesShared);
            }
            if (name == "all" && !isEncrypted && !options.Contains("512", StringComparison.Ordinal))
            {
                Assert.True(result.BytesShared > Size / 3, $"only {result.BytesShared:#,0} bytes shared");
            }
            await SoundAsync(format, image);
        }
    }

    [Fact]
    public async Task Sharing_reads_and_writes_none_of_the_data()
    {
        byte[] contents = new byte[Size];
        new Random(1).NextBytes(contents);
        var source = new SharingNode(contents, isReadOnly: true);
        var target = new SharingNode([]);
        (_, _, ConvertResult result) = await ConvertAsync(source, target, "qcow2", "");
        Assert.Equal(Size, result.BytesShared);
        Assert.Equal(0, source.Read);
        Assert.True(target.Written < Size / 8, $"{target.Written:#,0} bytes written");
    }

    [Fact]
    public async Task What_is_not_allowed_is_not_asked_for()
    {
        byte[] contents = Mixed(2);
        foreach (ConvertOptions how in new ConvertOptions[] { new() { Shares = false }, new() { InOrder = true }, new() { Compress = true } })
        {
            var target = new SharingNode([]);
            (_, byte[] disk, ConvertResult result) = await ConvertAsync(
                new SharingNode(contents, isReadOnly: true), target, "qcow2", "", how);
            Assert.Equal((0, 0L), (target.Asked, result.BytesShared));
            Assert.Equal(contents, disk);
        }
        var other = new SharingNode([]);
        _ = await ConvertAsync(new SharingNode(contents), other, "raw", ""); // somebody could write to the source meanwhile
        Assert.Equal(0, other.Asked);
    }

    [Fact]
    public async Task Zeroes_that_are_to_be_stored_are_moved_by_the_host()
    {
        byte[] contents = Mixed(3);
        var target = new SharingNode([]);
        (byte[] image, _, ConvertResult result) = await ConvertAsync(
            new SharingNode(contents, isReadOnly: true), target, "raw", "", new ConvertOptions { SparseSize = 0 });
        Assert.Equal(contents, image);
        Assert.Equal(Size, result.BytesCopied);
        Assert.Equal(Size, result.BytesShared + result.BytesMoved);
    }

    [Fact]
    public async Task A_filter_over_the_source_is_not_passed_by()
    {
        byte[] contents = Mixed(6);
        var target = new SharingNode([]);
        await MakeAsync(target, "raw", $"size={Size}");
        var read = new Counting(new SharingNode(contents, isReadOnly: true));
        await using (BlockNode disk = await OpenAsync(target, "raw"))
        {
            ConvertResult result = await new ConvertJob(read, disk, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            Assert.Equal(0, result.BytesShared);
        }
        Assert.Equal((0, (long)Size), (target.Asked, read.Bytes));
        Assert.Equal(contents, target.ToArray());
    }

    [Fact]
    public async Task A_place_that_reaches_past_the_end_of_its_file_reads_as_it_would()
    {
        byte[] contents = new byte[Size];
        new Random(9).NextBytes(contents);
        var made = new MemoryNode();
        await MemoryDisk.CreateAsync(made, $"size={Size}");
        await using (BlockNode disk = await MemoryDisk.OpenAsync(made))
        {
            await disk.WriteAsync(0, contents);
            await disk.FlushAsync();
        }
        byte[] cut = made.ToArray()[..^10_000]; // in the middle of the last cluster
        byte[] expected = new byte[Size];
        await using (BlockNode disk = await OpenAsync(new MemoryNode((byte[])cut.Clone(), readOnly: true), "qcow2"))
        {
            await disk.ReadAsync(0, expected);
        }
        await using BlockNode source = await OpenAsync(new SharingNode(cut, isReadOnly: true), "qcow2");
        var target = new SharingNode([]);
        await MakeAsync(target, "raw", $"size={Size}");
        await using (BlockNode disk = await OpenAsync(target, "raw"))
        {
            ConvertResult result = await new ConvertJob(source, disk, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            Assert.True(result.BytesShared > Size / 2);
        }
        Assert.Equal(expected, target.ToArray());
    }

    [Theory]
    [InlineData("raw", true)]
    [InlineData("raw", false)]
    [InlineData("qcow2", true)]
    [InlineData("qcow2", false)]
    public async Task A_merge_takes_over_what_it_can_and_leaves_the_rest_of_the_base(string format, bool allows)
    {
        byte[] contents = Mixed(21), upper = Mixed(22);
        var below = new SharingNode([]) { Allows = _ => allows };
        _ = await ConvertAsync(new SharingNode(contents, isReadOnly: true), below, format, "");
        var above = new MemoryNode();
        await MemoryDisk.CreateAsync(above, $"size={Size},backing_file=below,backing_fmt=raw");
        await using (BlockNode disk = await MemoryDisk.OpenAsync(above, contents))
        {
            foreach ((int from, int length) in new[] { (0, 1 << 20), (3 << 20, 100_000), ((5 << 20) + 512, 2 << 20) })
            {
                await disk.WriteAsync(from, upper.AsMemory(from, length));
                upper.AsSpan(from, length).CopyTo(contents.AsSpan(from));
            }
            await disk.WriteZeroesAsync(2 << 20, 1 << 18);
            contents.AsSpan(2 << 20, 1 << 18).Clear();
            await disk.FlushAsync();
        }
        byte[] merged = new byte[Size];
        await using (BlockNode target = await OpenAsync(below, format))
        {
            await using BlockNode top = await OpenAsync(
                new SharingNode(above.ToArray(), isReadOnly: true), "qcow2", new BorrowedNode(target, isReadOnly: true));
            ConvertResult result = await new CommitJob(top, 1, target).RunAsync(null, CancellationToken.None);
            Assert.Equal((1 << 20) + (2 << 16) + (33 << 16), result.BytesCopied); // whole clusters of the upper image
            Assert.Equal(1 << 18, result.BytesZero);
            Assert.Equal(allows, result.BytesShared > 2 << 20);
            await target.ReadAsync(0, merged);
        }
        Assert.Equal(contents, merged);
        await SoundAsync(format, below.ToArray());
    }

    [Fact]
    public async Task A_copy_that_fails_gives_its_place_back()
    {
        byte[] contents = Mixed(4);
        var file = new SharingNode([]) { Allows = static _ => throw new DiskImageException(DiskImageErrorKind.NoSpace, "full") };
        await MakeAsync(file, "qcow2", $"size={Size}");
        await using (BlockNode disk = await OpenAsync(file, "qcow2"))
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => new ConvertJob(new SharingNode(contents, isReadOnly: true), disk, new ConvertOptions())
                    .RunAsync(null, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.NoSpace, error.Kind);
        }
        CheckReport report = await MemoryDisk.LeaksAtMostAsync(file.ToArray(), "after a failure");
        Assert.Equal(0, report.Leaks);
    }

    [Fact]
    public async Task A_part_of_a_unit_is_taken_over_only_if_the_rest_of_it_is_known()
    {
        // Over a backing image the rest of a cluster has to be read: that is not the host's to do.
        byte[] below = new byte[Size], above = new byte[65_536];
        Array.Fill(below, (byte)7);
        Array.Fill(above, (byte)9);
        var file = new MemoryNode();
        await MemoryDisk.CreateAsync(file, $"size={Size},backing_file=below,backing_fmt=raw");
        await using BlockNode disk = await MemoryDisk.OpenAsync(file, below);
        Assert.Equal(0, (await disk.CopyFromAsync(4096, new SharingNode(above, true), 0, 8192, CopyOffload.Share)).Done);
        byte[] read = new byte[65_536];
        await disk.ReadAsync(0, read);
        Assert.Equal(below[..65_536], read);
    }

    /// <summary>Counts what is read through it.</summary>
    private sealed class Counting(BlockNode below) : FilterNode(below)
    {
        private long _bytes;

        public long Bytes => _bytes;

        protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            _ = Interlocked.Add(ref _bytes, buffer.Length);
            return base.ReadCoreAsync(offset, buffer, cancellationToken);
        }
    }

    /// <summary>Random data with runs of zeroes of all lengths, and clusters that are in part zero.</summary>
    private static byte[] Mixed(int seed)
    {
        byte[] contents = new byte[Size];
        var random = new Random(seed);
        for (int at = 0; at < Size;)
        {
            int length = Math.Min(Size - at, random.Next(4) switch { 0 => 4096, 1 => 65_536, 2 => random.Next(1, 300_000), _ => 1 << 20 });
            if (random.Next(3) != 0)
            {
                random.NextBytes(contents.AsSpan(at, length));
            }
            at += length;
        }
        return contents;
    }

    private static async Task<(byte[] Image, byte[] Disk, ConvertResult Result)> ConvertAsync(
        SharingNode source, SharingNode target, string format, string options, ConvertOptions? how = null)
    {
        if (options.Contains("encrypt", StringComparison.Ordinal))
        {
            Images.UseSecret("secret");
            options += ",encrypt.iter-time=1";
        }
        await MakeAsync(target, format, $"size={source.Length},{options}".TrimEnd(','));
        byte[] disk = new byte[source.Length];
        ConvertResult result;
        await using (BlockNode node = await OpenAsync(target, format))
        {
            result = await new ConvertJob(source, node, how ?? new ConvertOptions()).RunAsync(null, CancellationToken.None);
            await node.FlushAsync();
            await node.ReadAsync(0, disk);
        }
        return (target.ToArray(), disk, result);
    }

    private static async Task MakeAsync(BlockNode file, string format, string options)
    {
        var driver = (ICreatable)Images.Registry.Format(format);
        await driver.CreateAsync(
            new FormatCreateContext(file, driver.CreateOptions.Bind(OptionSchema.Split(options)))
            {
                Secrets = Images.Secrets.Value ?? s_noSecrets,
            },
            CancellationToken.None);
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, string format, BlockNode? backing = null)
    {
        FormatDriver driver = Images.Registry.Format(format);
        return driver.OpenAsync(
            new FormatOpenContext(
                file,
                driver.OpenOptions.Defaults(),
                backing is null ? null : (_, _, _) => new(backing),
                (name, _, _) => throw new DiskImageException(DiskImageErrorKind.Refused, name))
            {
                Access = file.IsReadOnly ? Access.Reading : Access.Writing,
                Secrets = Images.Secrets.Value ?? s_noSecrets,
            },
            CancellationToken.None);
    }

    private static async Task SoundAsync(string format, byte[] image)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(image, readOnly: true), format);
        if (disk.As<ICheckable>() is { } checkable)
        {
            CheckReport report = await checkable.CheckAsync(null, CancellationToken.None);
            Assert.True(report is { Corruptions: 0, CheckErrors: 0, Leaks: 0 }, string.Join('\n', report.Findings.Select(f => f.Message)));
        }
    }
}
