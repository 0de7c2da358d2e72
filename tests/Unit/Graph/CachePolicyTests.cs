using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>How what is written reaches the medium, and what a description says of it.</summary>
public sealed class CachePolicyTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("cache=none", true, false, false)]
    [InlineData("cache=writeback", false, false, false)]
    [InlineData("cache=WriteThrough", false, false, true)]
    [InlineData("cache=directsync", true, false, true)]
    [InlineData("cache=unsafe", false, true, false)]
    [InlineData("cache.direct=on", true, true, false)]
    [InlineData("cache.no-flush=off,cache.writeback=off", false, false, true)]
    [InlineData("driver=raw", false, true, false)]
    public void A_description_says_it_in_one_word_or_in_parts(string text, bool direct, bool noFlush, bool writeThrough)
        => Assert.Equal(
            new CachePolicy(direct, noFlush, writeThrough), Spec(text).CacheUnder(CachePolicy.Of(CacheMode.Unsafe)));

    [Theory]
    [InlineData("cache=fast", "writeback, none, writethrough, directsync, unsafe")]
    [InlineData("cache.direct=maybe", "on, off")]
    [InlineData("cache.size=1", "cache.direct, cache.no-flush, cache.writeback")]
    public void What_is_no_cache_mode_is_told_with_those_that_are(string text, string told)
        => Assert.Contains(told, Assert.Throws<DiskImageException>(() => Spec(text).CacheUnder(default)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("raw", "")]
    [InlineData("qcow2", "")]
    [InlineData("qcow2", "cluster_size=512")] // tables and clusters smaller than a sector of the disk may be
    [InlineData("qed", "")]
    [InlineData("vpc", "")]
    [InlineData("vhdx", "")]
    [InlineData("vdi", "")]
    [InlineData("vmdk", "")]
    [InlineData("parallels", "")]
    public async Task An_image_past_the_cache_has_the_same_bytes(string format, string options)
    {
        string path = _folder["image"];
        byte[] expected = new byte[Size];
        await using (NewImage made = await Creating(CacheMode.DirectSync).CreateAsync(
            path,
            Images.Registry.Format(format),
            ((ICreatable)Images.Registry.Format(format)).CreateOptions.Bind(
                OptionSchema.Values($"size={Size},{options}".TrimEnd(','))),
            TargetMode.New,
            openOptions: null,
            CancellationToken.None))
        {
            var random = new Random(5);
            for (int round = 0; round < 50; round++)
            {
                byte[] data = new byte[random.Next(1, 40_000)];
                random.NextBytes(data);
                int offset = random.Next(Size - data.Length);
                data.CopyTo(expected, offset);
                await made.Node.WriteAsync(offset, data);
            }
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        foreach (CacheMode mode in Enum.GetValues<CacheMode>())
        {
            await using OpenedImage image = await Opening(mode).OpenAsync(
                new OpenRequest(path) { Format = format, Writable = true }, CancellationToken.None);
            byte[] read = new byte[Size];
            await image.Node.ReadAsync(0, read);
            Assert.True(expected.AsSpan().SequenceEqual(read), mode.ToString());
            int at = (int)mode * 70_001;
            expected.AsSpan(at, 3_333).Fill((byte)(mode + 1));
            await image.Node.WriteAsync(at, expected.AsMemory(at, 3_333));
        }
        await using BlockNode disk = await Images.OpenAsync(path, format);
        byte[] back = new byte[Size];
        await disk.ReadAsync(0, back);
        Assert.Equal(expected, back);
    }

    [Fact]
    public async Task A_file_keeps_its_length_to_the_byte_past_the_cache()
    {
        string path = _folder["a.raw"];
        await File.WriteAllBytesAsync(path, [1, 2, 3]);
        await using (OpenedImage image = await Opening(CacheMode.None).OpenAsync(
            new OpenRequest(path) { Format = "raw", Writable = true }, CancellationToken.None))
        {
            await image.Node.ResizeAsync(10_001, PreallocationMode.Full);
            await image.Node.WriteAsync(10_000, new byte[] { 9 });
            await image.Node.WriteZeroesAsync(1, 1);
        }
        byte[] expected = new byte[10_001];
        (expected[0], expected[2], expected[^1]) = (1, 3, 9);
        Assert.Equal(expected, await File.ReadAllBytesAsync(path));
    }

    [Theory]
    [InlineData(CacheMode.Writeback, 0)]
    [InlineData(CacheMode.None, 0)]
    [InlineData(CacheMode.Writethrough, 3)]
    [InlineData(CacheMode.DirectSync, 3)]
    [InlineData(CacheMode.Unsafe, 0)]
    public async Task Each_change_is_flushed_where_writes_go_through(CacheMode mode, int flushes)
    {
        string log = _folder["log"], path = _folder["a.raw"];
        await File.WriteAllBytesAsync(path, new byte[Size]);
        await File.WriteAllBytesAsync(log, []);
        await using (OpenedImage image = await Opening(mode).OpenAsync(
            new OpenRequest(NodeSpec.Of(
                "raw",
                ("file", NodeSpec.Of(
                    "blklogwrites",
                    ("file", NodeSpec.Of("file", ("filename", path))),
                    ("log", NodeSpec.Of("file", ("filename", log)))))).ToString()) { Writable = true },
            CancellationToken.None))
        {
            await image.Node.WriteAsync(0, new byte[512]);
            await image.Node.WriteZeroesAsync(512, 512);
            await image.Node.ResizeAsync(2 * Size);
        }
        Assert.Equal(flushes, FlushesIn(await File.ReadAllBytesAsync(log)));
    }

    [Fact]
    public async Task Nothing_is_flushed_where_the_user_wants_none()
    {
        string path = _folder["a.raw"];
        await File.WriteAllBytesAsync(path, new byte[Size]);
        await using OpenedImage image = await Opening(CacheMode.Unsafe).OpenAsync(
            new OpenRequest(path) { Format = "raw", Writable = true }, CancellationToken.None);
        Assert.IsType<DeferredFlushNode>(image.Node.Child("file"));
        await using OpenedImage reader = await Opening(CacheMode.Unsafe).OpenAsync(
            new OpenRequest(NodeSpec.Of("null-co", ("size", Size)).ToString()), CancellationToken.None);
        Assert.IsNotType<DeferredFlushNode>(reader.Node.Child("file")); // what is read needs none
    }

    [Fact]
    public async Task An_image_has_no_say_in_whether_its_data_are_flushed()
    {
        string path = _folder["a.qcow2"];
        await Images.CreateAsync(path, "qcow2", $"size={Size},data_file={_folder["data.raw"]}");
        await using (OpenedImage writing = await Opening(CacheMode.Writeback).OpenAsync(
            new OpenRequest(path) { Writable = true }, CancellationToken.None))
        {
            Assert.IsNotType<DeferredFlushNode>(writing.Node.Child("data-file"));
        }
        GraphSite named = new([], null) { NamedBy = path };
        Assert.False(named.For(Spec("cache=unsafe")).Cache.NoFlush);
        Assert.True(new GraphSite([], null).For(Spec("cache=unsafe")).Cache.NoFlush);
    }

    [Theory]
    [InlineData("detect-zeroes=off", false, true)]
    [InlineData("detect-zeroes=on", true, true)]
    [InlineData("detect-zeroes=unmap", true, true)]
    [InlineData("detect-zeroes=unmap,discard=ignore", true, false)]
    [InlineData("discard=off", false, false)]
    [InlineData("discard=unmap", false, true)]
    public async Task Zeroes_are_found_and_discards_let_through_as_a_description_says(string text, bool finds, bool discards)
    {
        string path = _folder["a.qcow2"];
        await Images.CreateAsync(path, "qcow2", $"size={Size}");
        await using OpenedImage image = await Opening(CacheMode.Writeback).OpenAsync(
            new OpenRequest(Spec($"driver=qcow2,{text}").Over(ImageLocator.Parse(path).Spec).ToString()) { Writable = true },
            CancellationToken.None);
        await image.Node.WriteAsync(0, new byte[65_536]);
        BlockExtent written = await image.Node.GetExtentAsync(0, 65_536);
        Assert.Equal(finds, written.Status.HasFlag(BlockStatus.Zero));
        byte[] data = new byte[65_536];
        data[^1] = 1;
        await image.Node.WriteAsync(65_536, data);
        await image.Node.DiscardAsync(65_536, 65_536);
        await image.Node.ReadAsync(65_536, data);
        Assert.Equal(discards ? 0 : 1, data[^1]);
    }

    [Fact]
    public void A_rule_that_is_unknown_is_told_with_those_that_are()
        => Assert.Contains(
            "off, on, unmap",
            Assert.Throws<DiskImageException>(
                () => Spec("detect-zeroes=perhaps").Choice(NodeSpec.DetectZeroesKey, ZeroWriteDetection.Off)).Message,
            StringComparison.Ordinal);

    private static NodeSpec Spec(string text) => NodeSpec.From(OptionSchema.Values(text));

    private static ImageOpener Opening(CacheMode mode)
        => new(Images.Registry, OpenPolicy.Default with { Cache = CachePolicy.Of(mode) });

    private static ImageCreator Creating(CacheMode mode) => new(Images.Opener) { Cache = CachePolicy.Of(mode) };

    /// <summary>Entries with the flag of a flush. Spec: Linux, Documentation/admin-guide/device-mapper/log-writes.rst.</summary>
    private static int FlushesIn(byte[] log)
    {
        const int Flush = 1, Discard = 4;
        int sector = BitConverter.ToInt32(log, 24), flushes = 0, at = sector;
        for (long entry = 0, count = BitConverter.ToInt64(log, 16); entry < count; entry++)
        {
            long sectors = BitConverter.ToInt64(log, at + 8), flags = BitConverter.ToInt64(log, at + 16);
            flushes += (flags & Flush) != 0 ? 1 : 0;
            at += sector + ((flags & Discard) != 0 ? 0 : (int)sectors * sector);
        }
        return flushes;
    }
}
