using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Locking;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Locking;

/// <summary>share-rw=on: a raw disk that several write to, QEMU among them.</summary>
public sealed class ShareWritesTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("qemu-io")]
    [InlineData(true)]
    [InlineData(false)]
    public async Task QEMU_writes_beside_us_whoever_comes_first(bool oursFirst)
    {
        string path = await MakeAsync();
        BlockNode? ours = oursFirst ? await OpenAsync(path) : null;
        using (QemuHolder holder = await QemuHolder.StartAsync(path, "raw", writes: true)) // writes 5 to the first 64k
        {
            await using (BlockNode disk = ours ?? await OpenAsync(path))
            {
                ImageHolder own = ImageHolder.Of(path).Single(h => h.IsThisProcess);
                Assert.Equal(Access.WritingAlongWriters, own.Access);
                byte[] read = new byte[1];
                await disk.ReadAsync(65535, read);
                Assert.Equal(5, read[0]);
                await disk.WriteAsync(65536, new byte[] { 7 });
                _ = await Programs.RunAsync("qemu-io", "-r", "-U", "-f", "raw", "-c", "read -P 7 65536 1", path);
                _ = await Programs.RunAsync("qemu-io", "-f", "raw", "-c", "write -P 9 128k 512", path); // a third one
                await disk.ReadAsync(128 << 10, read);
                Assert.Equal(9, read[0]);
                await using BlockNode second = await OpenAsync(path); // and one more of ours
                await second.WriteAsync(0, new byte[] { 1 });
                DiskImageException alone = await Assert.ThrowsAsync<DiskImageException>(
                    () => Images.OpenAsync(path, "raw", writable: true)); // who does not share is still kept out
                Assert.Equal(DiskImageErrorKind.Locked, alone.Kind);
            }
        }
        await (await Images.OpenAsync(path, "raw", writable: true)).DisposeAsync();
    }

    [OracleTheory("qemu-nbd")]
    [InlineData("raw", true)]
    [InlineData("qcow2", false)]
    public async Task An_export_of_QEMU_is_written_to_beside_us_if_its_format_lets_it(string theirFormat, bool together)
    {
        string path = await MakeAsync(theirFormat);
        using (await QemuHolder.ExportAsync(path, theirFormat))
        {
            if (!together)
            {
                Assert.Equal(DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path))).Kind);
                return;
            }
            await using BlockNode disk = await OpenAsync(path);
            await disk.WriteAsync(0, new byte[] { 3 });
        }
        await using (await OpenAsync(path))
        {
            using QemuHolder export = await QemuHolder.ExportAsync(path, theirFormat);
            Assert.Equal(2, ImageHolder.Of(path).Count);
        }
    }

    [OracleFact("qemu-io")]
    public async Task Whoever_does_not_share_keeps_it_out_and_the_other_way_round()
    {
        string path = await MakeAsync();
        await using (await Images.OpenAsync(path, "raw", writable: true))
        {
            Assert.Equal(DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path))).Kind);
        }
        await using (await Images.OpenAsync(path, "raw"))
        {
            Assert.Equal(DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path))).Kind);
            await (await OpenAsync(path, writable: false)).DisposeAsync(); // reading goes with readers
        }
        await using (await OpenAsync(path))
        {
            await (await OpenAsync(path, writable: false)).DisposeAsync(); // and, shared, with writers
            Assert.Equal(
                DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(path, "raw"))).Kind);
        }
    }

    [Fact]
    public async Task The_length_stays_and_a_format_with_structures_is_refused()
    {
        string path = await MakeAsync();
        await using (BlockNode disk = await OpenAsync(path))
        {
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(8 << 20));
            Assert.Contains("share-rw=on", e.Message, StringComparison.Ordinal);
            await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(4 << 20, new byte[1]));
        }
        Assert.Equal(4 << 20, new FileInfo(path).Length);
        string qcow2 = await MakeAsync("qcow2");
        foreach (bool writable in new[] { true, false })
        {
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
                () => OpenAsync(qcow2, writable, "driver=qcow2,share-rw=on,file.filename="));
            Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
            Assert.Contains("is a qcow2 image", refused.Message, StringComparison.Ordinal);
        }
        await (await Images.OpenAsync(qcow2, "qcow2", writable: true)).DisposeAsync();
    }

    private async Task<string> MakeAsync(string format = "raw")
    {
        string path = _folder[$"disk.{format}"];
        await Images.CreateAsync(path, format, "size=4M");
        return path;
    }

    private static async Task<BlockNode> OpenAsync(
        string path, bool writable = true, string description = "driver=raw,share-rw=on,file.filename=")
        => (await Images.Opener.OpenAsync(
            new OpenRequest(NodeSpec.From(OptionSchema.Values(description + path)).ToString()) { Writable = writable },
            CancellationToken.None)).Node;
}
