using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Null;

/// <summary>What is not zero lies in an image above a node without bytes, whose answers come late.</summary>
public sealed class OverNullNodeTests : NodeConformance
{
    private static readonly OpenPolicy s_anywhere = OpenPolicy.Default with { References = ReferenceScope.Anywhere };

    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(
            Folder["disk.qcow2"],
            "qcow2",
            $"size={contents.Length},backing_file=null-aio://,backing_fmt=raw,cluster_size=4k",
            s_anywhere);
        await using (BlockNode node = await OpenAsync(writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await OpenAsync(writable);
    }

    private async Task<BlockNode> OpenAsync(bool writable)
        => await Images.OpenAsync(Folder["disk.qcow2"], "qcow2", writable, policy: s_anywhere);
}

public sealed class NullNodeTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("null-co", true)]
    [InlineData("null-aio", false)]
    public async Task One_answers_before_the_call_returns_and_one_after(string driver, bool atOnce)
    {
        await using OpenedImage image = await OpenAsync($"driver={driver},size=1M");
        Assert.Equal(driver, NodeSpec.From(OptionSchema.Values($"driver={driver}")).Driver);
        byte[] buffer = [.. Enumerable.Repeat((byte)7, 4096)];
        ValueTask read = image.Node.ReadAsync((1 << 20) - 4096, buffer);
        Assert.True(!atOnce || read.IsCompletedSuccessfully);
        await read;
        Assert.Equal(new byte[4096], buffer);
        await image.Node.WriteAsync(0, new byte[] { 1, 2, 3 });
        await image.Node.ReadAsync(0, buffer);
        Assert.Equal(new byte[4096], buffer); // forgotten
        await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.WriteAsync(1 << 20, new byte[1]));
        await image.Node.ResizeAsync(2 << 20);
        Assert.Equal(2 << 20, image.Node.Length);
        await image.Node.FlushAsync();
    }

    [Theory]
    [InlineData("null-co://", 1L << 30)]
    [InlineData("null-aio://", 1L << 30)]
    public async Task A_text_stands_for_it(string text, long size)
    {
        await using OpenedImage image = await Images.Opener.OpenAsync(new OpenRequest(text), CancellationToken.None);
        Assert.Equal((text, size), (image.Path, image.Node.Length));
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.Opener.OpenAsync(new OpenRequest($"{text}x"), CancellationToken.None));
        Assert.Contains($"nothing comes after '{text}'", e.Message, StringComparison.Ordinal);
    }

    [OracleTheory("qemu-img")]
    [InlineData("null-co")]
    [InlineData("null-aio")]
    public async Task QEMU_s_reads_the_same(string driver)
    {
        await Images.CreateAsync(_folder["a.raw"], "raw", "size=3M");
        await using (OpenedImage image = await OpenAsync($"driver={driver},size=3M,read-zeroes=on,latency-ns=1000"))
        await using (FileStream file = File.OpenWrite(_folder["a.raw"]))
        {
            byte[] all = [.. Enumerable.Repeat((byte)7, 3 << 20)];
            await image.Node.ReadAsync(0, all);
            await file.WriteAsync(all);
            Assert.True((await image.Node.GetExtentAsync(0, 3 << 20)).IsZero);
        }
        _ = await Programs.QemuImgAsync(
            "compare", "--image-opts", $"driver={driver},size=3145728,read-zeroes=on,latency-ns=1000",
            $"driver=raw,file.driver=file,file.filename={_folder["a.raw"]}");
    }

    private static async Task<OpenedImage> OpenAsync(string text) => await Images.Opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values(text)).ToString()) { Writable = true }, CancellationToken.None);
}
