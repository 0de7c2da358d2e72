using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

/// <summary>How far down copy-on-read goes, with QEMU beside it.</summary>
public sealed class CopyOnReadTests : IDisposable
{
    private const int Size = 1 << 20, Part = 128 << 10;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("qemu-io")]
    [InlineData("mid", "file.backing.node-name=mid")]
    [InlineData("low", "file.backing.backing.node-name=low")]
    [InlineData("base", "file.backing.node-name=mid,file.backing.backing.backing.node-name=base")]
    [InlineData(null, "")]
    public async Task What_lies_above_the_bottom_is_kept_and_the_rest_only_read(string? bottom, string names)
    {
        byte[] all = await MakeChainAsync("ours.qcow2", "theirs.qcow2");
        string limit = bottom is null ? "" : $",bottom={bottom},{names}";
        await using (OpenedImage image = await OpenAsync($"driver=copy-on-read,file.driver=qcow2,file.file.filename={_folder["ours.qcow2"]}{limit}"))
        {
            byte[] read = new byte[Size];
            await image.Node.ReadAsync(0, read);
            Assert.Equal(all, read);
        }
        string theirChain = bottom is null ? "" : $",bottom={bottom},{TheirNames}";
        _ = await Programs.RunAsync(
            "qemu-io", "--image-opts", "-c", $"read 0 {Size}",
            $"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename={_folder["theirs.qcow2"]}{theirChain}");
        string theirs = await MapAsync("theirs.qcow2");
        Assert.Equal(theirs, await MapAsync("ours.qcow2"));
        Assert.Contains("\"depth\": 0", theirs, StringComparison.Ordinal); // something was kept
        await Programs.CheckAsync(_folder["ours.qcow2"]);
        await Programs.CompareAsync(_folder["ours.qcow2"], "qcow2", _folder["theirs.qcow2"], "qcow2");
    }

    [OracleTheory("qemu-img")]
    [InlineData("nobody", "file.backing.node-name=mid", "no node 'nobody' among the layers of its disk. Its layers: mid")]
    [InlineData("nobody", "", "Its layers have no names")]
    [InlineData("bytes", "file.file.node-name=bytes", "no node 'bytes'")]
    [InlineData("slow", "file.backing.driver=throttle,file.backing.node-name=slow", "is the filter 'throttle' and no layer")]
    public async Task A_bottom_that_is_no_layer_is_refused(string bottom, string names, string message)
    {
        _ = await MakeChainAsync("ours.qcow2");
        string more = names.Length == 0 ? "" : $",{names}";
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(
            $"driver=copy-on-read,bottom={bottom},file.driver=qcow2,file.file.filename={_folder["ours.qcow2"]}{more}"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    [OracleTheory("qemu-img")]
    [InlineData(1)]
    [InlineData(2)]
    public async Task The_disk_reads_as_its_twin_whatever_is_kept(int seed)
    {
        byte[] twin = await MakeChainAsync("ours.qcow2");
        await using (OpenedImage image = await OpenAsync(
            $"driver=copy-on-read,bottom=low,file.driver=qcow2,file.file.filename={_folder["ours.qcow2"]},file.backing.backing.node-name=low"))
        {
            await RandomRequests.ExerciseAsync(image.Node, twin, seed);
        }
        await File.WriteAllBytesAsync(_folder["twin.raw"], twin);
        await Programs.CheckAsync(_folder["ours.qcow2"]);
        await Programs.CompareAsync(_folder["ours.qcow2"], "qcow2", _folder["twin.raw"], "raw");
    }

    private string TheirNames => "file.backing.driver=qcow2,file.backing.node-name=mid,file.backing.file.driver=file,"
        + $"file.backing.file.filename={_folder["mid.qcow2"]},file.backing.backing.driver=qcow2,file.backing.backing.node-name=low,"
        + $"file.backing.backing.file.driver=file,file.backing.backing.file.filename={_folder["low.qcow2"]},"
        + "file.backing.backing.backing.driver=qcow2,file.backing.backing.backing.node-name=base,"
        + $"file.backing.backing.backing.file.driver=file,file.backing.backing.backing.file.filename={_folder["base.qcow2"]}";

    /// <summary>Four layers, each with a part of its own, zeroes too; what they read as.</summary>
    private async Task<byte[]> MakeChainAsync(params string[] tops)
    {
        byte[] all = new byte[Size];
        string[] layers = ["base.qcow2", "low.qcow2", "mid.qcow2", .. tops];
        for (int i = 0; i < layers.Length; i++)
        {
            string backing = i == 0 ? "" : $",backing_file={layers[Math.Min(i, 3) - 1]},backing_fmt=qcow2";
            await Images.CreateAsync(_folder[layers[i]], "qcow2", $"size={Size}{backing}");
            int at = Math.Min(i, 3) * Part;
            await using BlockNode disk = await Images.OpenAsync(_folder[layers[i]], "qcow2", writable: true);
            new Random(i < 3 ? i : 3).NextBytes(all.AsSpan(at, Part));
            await disk.WriteAsync(at, all.AsMemory(at, Part));
            if (i == 1)
            {
                await disk.WriteZeroesAsync(5 * Part, Part);
            }
        }
        return all;
    }

    private Task<string> MapAsync(string name) => MapOfAsync(_folder[name]);

    /// <summary>Where it is kept, and not at which offset.</summary>
    private static async Task<string> MapOfAsync(string path)
        => string.Join(
            '\n',
            (await Programs.QemuImgAsync("map", "--output=json", "-f", "qcow2", path)).Split('{').Skip(1)
                .Select(l => string.Join(',', l.Split(',').Where(f => !f.Contains("offset", StringComparison.Ordinal)))));

    private static async Task<OpenedImage> OpenAsync(string text) => await Images.Opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values(text)).ToString()) { Writable = true }, CancellationToken.None);
}
