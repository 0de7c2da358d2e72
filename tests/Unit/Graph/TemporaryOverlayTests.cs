using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>What is written over an image for a while.</summary>
public sealed class TemporaryOverlayTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("a.qcow2", "qcow2", false)]
    [InlineData("a.qcow2", "qcow2", true)]
    [InlineData("a.vhdx", "vhdx", false)]
    [InlineData("a.raw", "raw", true)]
    public async Task Writes_are_read_back_and_the_image_stays_as_it_is(string name, string format, bool described)
    {
        string path = _folder[name];
        await Images.CreateAsync(path, format, $"size={Size}");
        byte[] contents = new byte[Size];
        new Random(1).NextBytes(contents);
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true, format: format))
        {
            await disk.WriteAsync(0, contents);
        }
        byte[] before = await File.ReadAllBytesAsync(path);
        OpenRequest request = described
            ? new OpenRequest(NodeSpec.Of(format, ("snapshot", "on"), ("file", NodeSpec.Of("file", ("filename", path)))).ToString())
            : new OpenRequest(path) { TemporaryOverlay = true };
        await using (OpenedImage image = await new ImageOpener(Images.Registry, OpenPolicy.Default).OpenAsync(
            request with { Writable = true }, CancellationToken.None))
        {
            Assert.Equal(path, image.Path);
            // it is only read, so another reader may have it
            await using BlockNode other = await Images.OpenAsync(path, format: format);
            byte[] expected = (byte[])contents.Clone();
            expected.AsSpan(5000, 70_000).Fill(7);
            expected.AsSpan(200_000, 100_000).Clear();
            await image.Node.WriteAsync(5000, expected.AsMemory(5000, 70_000));
            await image.Node.WriteZeroesAsync(200_000, 100_000);
            await image.Node.FlushAsync();
            byte[] read = new byte[Size];
            await image.Node.ReadAsync(0, read);
            Assert.Equal(expected, read);
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(path));
        Assert.Equal([path], Directory.GetFileSystemEntries(_folder.Root));
    }

    [Fact]
    public async Task Nothing_is_left_among_temporary_files()
    {
        string path = _folder["a.raw"];
        await File.WriteAllBytesAsync(path, new byte[1000]); // no whole number of sectors
        var opener = new ImageOpener(Images.Registry, OpenPolicy.Default);
        await using (OpenedImage image = await opener.OpenAsync(
            new OpenRequest(path) { Format = "raw", Writable = true, TemporaryOverlay = true }, CancellationToken.None))
        {
            await image.Node.WriteAsync(0, new byte[] { 1 });
            if (!OperatingSystem.IsWindows())
            {
                await NothingIsLeftAsync();
            }
        }
        await NothingIsLeftAsync();
        Assert.Equal(new byte[1000], await File.ReadAllBytesAsync(path));
    }

    [Fact]
    public async Task To_be_read_an_image_gets_no_overlay()
    {
        string path = _folder["a.vhdx"];
        await Images.CreateAsync(path, "vhdx", $"size={Size}");
        await using OpenedImage image = await new ImageOpener(Images.Registry, OpenPolicy.Default).OpenAsync(
            new OpenRequest(path) { TemporaryOverlay = true }, CancellationToken.None);
        Assert.Equal("vhdx", image.Format.Name);
        Assert.Null(image.Node.BackingNode());
    }

    // Other tests make some too, each for a moment.
    private static async Task NothingIsLeftAsync()
    {
        for (int attempt = 1; Directory.EnumerateDirectories(Path.GetTempPath(), "diskimage-*").Any(
            d => File.Exists(Path.Combine(d, "overlay"))); attempt++)
        {
            Assert.True(attempt < 100, "a temporary overlay is left");
            await Task.Delay(20);
        }
    }
}
