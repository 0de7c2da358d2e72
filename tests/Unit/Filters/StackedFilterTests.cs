using DiskImage.Block;
using DiskImage.Filters.BlkVerify;
using DiskImage.Filters.CopyOnRead;
using DiskImage.Filters.Preallocate;
using DiskImage.Filters.Quorum;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class PreallocateNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await File.WriteAllBytesAsync(Folder["file"], contents);
        BlockNode file = await Images.Opener.OpenFileAsync(ImageLocator.Parse(Folder["file"]), writable, folder: null, CancellationToken.None);
        return new PreallocateNode(file, new PreallocateOptions { Align = 4096, Size = 1 << 20 });
    }
}

public sealed class CopyOnReadNodeTests : NodeConformance
{
    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new CopyOnReadNode(new FixedLengthNode(new MemoryNode((byte[])contents.Clone(), !writable))));
}

public sealed class BlkVerifyNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new BlkVerifyNode(
            new MemoryNode((byte[])contents.Clone(), !writable), new MemoryNode((byte[])contents.Clone(), !writable)));
}

public sealed class QuorumNodeTests : NodeConformance
{
    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new QuorumNode(
            [.. Enumerable.Range(0, 3).Select(_ => new MemoryNode((byte[])contents.Clone(), !writable))],
            new QuorumOptions { VoteThreshold = 2, RewriteCorrupted = true }));
}

/// <summary>What each filter does, in a description, and QEMU's filter of the same name beside it.</summary>
public sealed class StackedFilterTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleFact("qemu-io")]
    public async Task What_was_read_through_copy_on_read_is_in_the_image_as_QEMU_has_it()
    {
        await Images.CreateAsync(_folder["base.qcow2"], "qcow2", $"size={Size}");
        await using (BlockNode disk = await Images.OpenAsync(_folder["base.qcow2"], "qcow2", writable: true))
        {
            await disk.WriteAsync(0, Noise(Size / 2, 1));
        }
        foreach (string name in new[] { "ours.qcow2", "theirs.qcow2" })
        {
            await Images.CreateAsync(_folder[name], "qcow2", $"size={Size},backing_file=base.qcow2,backing_fmt=qcow2");
        }
        await using (OpenedImage image = await OpenAsync($"driver=copy-on-read,file.driver=qcow2,file.file.filename={_folder["ours.qcow2"]}"))
        {
            byte[] read = new byte[100_000];
            await image.Node.ReadAsync(70_000, read);
            Assert.Equal(Noise(Size / 2, 1)[70_000..170_000], read);
            await image.Node.ReadAsync(Size - 65536, read.AsMemory(0, 65536)); // nowhere allocated: kept as zeroes
        }
        _ = await Programs.RunAsync(
            "qemu-io",
            "--image-opts",
            "-c",
            "read 64k 128k",
            "-c",
            $"read {Size - 65536} 64k",
            $"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename={_folder["theirs.qcow2"]}");
        await Programs.CheckAsync(_folder["ours.qcow2"]);
        await Programs.CompareAsync(_folder["ours.qcow2"], "qcow2", _folder["base.qcow2"], "qcow2");
        Assert.Equal(await DepthsAsync("theirs.qcow2"), await DepthsAsync("ours.qcow2"));
    }

    [OracleFact("qemu-img")]
    public async Task What_is_written_through_compress_is_compressed_also_in_part_and_again()
    {
        string path = _folder["disk.qcow2"];
        await Images.CreateAsync(path, "qcow2", $"size={Size + 512}");
        byte[] twin = new byte[Size + 512];
        await using (OpenedImage image = await OpenAsync($"driver=compress,file.driver=qcow2,file.file.filename={path}"))
        {
            foreach ((int offset, int length) in new[] { (0, 200_000), (65_000, 5000), (Size - 300, 812), (130_000, 70) })
            {
                byte[] text = [.. Enumerable.Range(offset, length).Select(i => (byte)(i % 13))];
                text.CopyTo(twin, offset);
                await image.Node.WriteAsync(offset, text);
            }
            byte[] read = new byte[twin.Length];
            await image.Node.ReadAsync(0, read);
            Assert.Equal(twin, read);
        }
        await File.WriteAllBytesAsync(_folder["twin.raw"], twin);
        await Programs.CheckAsync(path);
        await Programs.CompareAsync(path, "qcow2", _folder["twin.raw"], "raw");
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        BlockExtent first = await disk.GetExtentAsync(0, Size);
        Assert.True(first.IsCompressed);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync($"driver=compress,file.driver=raw,file.file.filename={_folder["twin.raw"]}"));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
    }

    [Fact]
    public async Task A_file_grows_ahead_and_is_cut_when_it_is_closed()
    {
        string path = _folder["disk.qcow2"];
        await Images.CreateAsync(path, "qcow2", $"size={64 * Size}");
        long end;
        await using (OpenedImage image = await OpenAsync(
            $"driver=qcow2,file.driver=preallocate,file.prealloc-align=1M,file.prealloc-size=4M,file.file.filename={path}"))
        {
            await image.Node.WriteAsync(0, Noise(Size, 2));
            await image.Node.FlushAsync();
            end = image.Node.Child("file")!.Length;
            Assert.InRange(new FileInfo(path).Length, end + 1, end + (6 * Size));
            Assert.Equal(0, new FileInfo(path).Length % Size);
        }
        Assert.Equal(end, new FileInfo(path).Length);
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        byte[] read = new byte[Size];
        await disk.ReadAsync(0, read);
        Assert.Equal(Noise(Size, 2), read);
    }

    [Fact]
    public async Task A_twin_that_differs_is_found_at_its_byte()
    {
        string path = _folder["disk.qcow2"], twin = _folder["twin.raw"];
        await Images.CreateAsync(path, "qcow2", $"size={Size}");
        await File.WriteAllBytesAsync(twin, new byte[Size]);
        string description = $"driver=blkverify,test.driver=qcow2,test.file.filename={path},raw.filename={twin}";
        await using (OpenedImage image = await OpenAsync(description))
        {
            await image.Node.WriteAsync(1000, Noise(5000, 3));
            await image.Node.ReadAsync(0, new byte[Size]);
        }
        byte[] bytes = await File.ReadAllBytesAsync(twin);
        Assert.Equal(Noise(5000, 3), bytes[1000..6000]);
        bytes[4321] ^= 1;
        await File.WriteAllBytesAsync(twin, bytes);
        await using OpenedImage again = await OpenAsync(description);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await again.Node.ReadAsync(0, new byte[Size]));
        Assert.Equal((DiskImageErrorKind.Corrupt, 4321L), (error.Kind, error.Offset));
    }

    [Theory]
    [InlineData("vote-threshold=2", true, false)]
    [InlineData("vote-threshold=2,rewrite-corrupted=on", true, true)]
    [InlineData("vote-threshold=3", false, false)]
    [InlineData("vote-threshold=1,read-pattern=fifo", null, false)] // the first has its way
    public async Task A_disk_that_differs_is_outvoted(string options, bool? wins, bool isPutRight)
    {
        byte[] right = Noise(Size, 4), wrong = [.. right];
        wrong[5000] ^= 0x40;
        await File.WriteAllBytesAsync(_folder["0.raw"], wrong);
        await File.WriteAllBytesAsync(_folder["1.raw"], right);
        await File.WriteAllBytesAsync(_folder["2.raw"], right);
        string children = string.Join(',', Enumerable.Range(0, 3).Select(
            i => $"children.{i}.driver=raw,children.{i}.file.filename={_folder[$"{i}.raw"]}"));
        await using (OpenedImage image = await OpenAsync($"driver=quorum,{options},{children}"))
        {
            byte[] read = new byte[Size];
            if (wins == false)
            {
                DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.ReadAsync(0, read));
                Assert.Equal((DiskImageErrorKind.Corrupt, 5000L), (error.Kind, error.Offset));
            }
            else
            {
                await image.Node.ReadAsync(0, read);
                Assert.Equal(wins is null ? wrong : right, read);
            }
            await image.Node.WriteAsync(9000, Noise(300, 5));
            await image.Node.FlushAsync();
        }
        Noise(300, 5).CopyTo(right, 9000);
        byte[] first = await File.ReadAllBytesAsync(_folder["0.raw"]);
        Assert.Equal(isPutRight, right.AsSpan().SequenceEqual(first));
        Assert.Equal(right, await File.ReadAllBytesAsync(_folder["2.raw"]));
    }

    [Theory]
    [InlineData("vote-threshold=4", "cannot agree")]
    [InlineData("blkverify=on", "two children")]
    [InlineData("read-pattern=fifo,rewrite-corrupted=on", "finds none")]
    public async Task A_quorum_that_cannot_be_is_refused(string options, string why)
    {
        string children = string.Join(',', Enumerable.Range(0, 3).Select(i => $"children.{i}.driver=null-co"));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync($"driver=quorum,{options},{children}"));
        Assert.Contains(why, error.Message, StringComparison.Ordinal);
    }

    private async Task<string> DepthsAsync(string name)
        => string.Join(' ', (await Programs.QemuImgAsync("map", "--output=json", "-f", "qcow2", _folder[name])).Split('{').Skip(1)
            .Select(l => string.Join(',', l.Split(',').Take(3))));

    private static byte[] Noise(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static async Task<OpenedImage> OpenAsync(string text) => await Images.Opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values(text)).ToString()) { Writable = true }, CancellationToken.None);
}
