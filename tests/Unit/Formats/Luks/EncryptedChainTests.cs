using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>A chain of encrypted qcow2 images, luks and aes, each with a secret of its own, through all that is done with chains.</summary>
public sealed class EncryptedChainTests : IDisposable
{
    private const int Size = 2 << 20;
    private const string Luks = "encrypt.format=luks,encrypt.iter-time=1", Aes = "encrypt.format=aes";

    private static readonly (string Name, string Secret)[] s_layers =
    [
        ("base.qcow2", "secret of the base"), ("middle.qcow2", "secret between"), ("top.qcow2", "secret on top"), ("other.qcow2", "another"),
    ];

    private readonly TestFolder _folder = new();
    private readonly byte[] _disk = new byte[Size];

    public EncryptedChainTests() => Images.Secrets.Value = s_layers.ToDictionary(
        l => l.Name, l => Images.Secret(l.Secret), StringComparer.Ordinal);

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(Luks, Aes, Luks)]
    [InlineData(Aes, Luks, Aes)]
    public async Task Each_layer_keeps_its_secret_through_everything(string below, string between, string above)
    {
        await MakeChainAsync(below, between, above);
        await ReadsAsync("top.qcow2");

        await using (BlockNode top = await OpenAsync("top.qcow2"))
        {
            _ = await top.As<ISnapshots>()!.CreateSnapshotAsync("before", DateTimeOffset.UnixEpoch, default);
            _ = await top.As<IBitmaps>()!.AddBitmapAsync("dirty", 64 << 10, enabled: true, default);
            await WriteAsync(top, 1_000_000, 123_456, 5);
        }
        await using (BlockNode top = await OpenAsync("top.qcow2"))
        {
            Assert.Equal("dirty", Assert.Single(await top.As<IBitmaps>()!.GetBitmapsAsync(default)).Name);
            await top.As<IBitmaps>()!.RemoveBitmapAsync("dirty", default);
            _ = await top.As<ISnapshots>()!.DeleteSnapshotAsync("before", default);
        }
        await ReadsAsync("top.qcow2");

        await CommitAsync();
        await using (BlockNode top = await OpenAsync("top.qcow2"))
        {
            await top.As<IEmptiable>()!.MakeEmptyAsync(default);
        }
        await ReadsAsync("middle.qcow2");
        await ReadsAsync("top.qcow2");

        // to another image, and to none
        await Images.CreateAsync(_folder["other.qcow2"], "qcow2", $"size={Size},{between}");
        await RebaseAsync("other.qcow2");
        await ReadsAsync("top.qcow2");
        await RebaseAsync(null);
        System.IO.File.Delete(_folder["middle.qcow2"]);
        System.IO.File.Delete(_folder["other.qcow2"]);
        await ReadsAsync("top.qcow2");

        await using (BlockNode top = await OpenAsync("top.qcow2"))
        {
            await top.ResizeAsync(Size + (1 << 20));
            await top.ResizeAsync(Size);
        }
        await ReadsAsync("top.qcow2");
        await SoundAsync("top.qcow2");
    }

    /// <summary>A secret that fits another layer opens nothing; a layer without one says which image it is.</summary>
    [Fact]
    public async Task A_missing_secret_names_its_layer()
    {
        await MakeChainAsync(Luks, Luks, Luks);
        Images.Secrets.Value = Images.Secrets.Value!.Where(s => s.Key != "middle.qcow2").ToDictionary(StringComparer.Ordinal);
        await using BlockNode top = await Images.OpenAsync(_folder["top.qcow2"]);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => top.ReadAsync(0, new byte[Size]).AsTask());
        Assert.Equal((DiskImageErrorKind.SecretRequired, _folder["middle.qcow2"]), (e.Kind, e.Path));
    }

    /// <summary>QEMU reads the chain, each layer with its secret, and finds nothing wrong with any.</summary>
    [OracleFact]
    public async Task QEMU_reads_the_chain()
    {
        await MakeChainAsync(Luks, Aes, Luks);
        await System.IO.File.WriteAllBytesAsync(_folder["model"], _disk);
        string[] secrets = [.. s_layers.Take(3).SelectMany((l, i) => new[] { "--object", $"secret,id=k{i},data={l.Secret}" })];
        string chain = string.Join(',', Enumerable.Range(0, 3).Select(i => Layer(i, string.Concat(Enumerable.Repeat("backing.", 2 - i)))));
        await Programs.QemuImgAsync(
            ["compare", .. secrets, "--image-opts", chain, $"driver=raw,file.filename={_folder["model"]}"]);
        await Programs.QemuImgAsync(["check", .. secrets, "--image-opts", chain]);

        string Layer(int i, string prefix)
            => $"{prefix}driver=qcow2,{prefix}encrypt.format={(i == 1 ? "aes" : "luks")},{prefix}encrypt.key-secret=k{i},"
                + $"{prefix}file.driver=file,{prefix}file.filename={_folder[s_layers[i].Name]}";
    }

    private async Task MakeChainAsync(params string[] options)
    {
        for (int i = 0; i < options.Length; i++)
        {
            string under = i == 0 ? "" : $",backing_file={s_layers[i - 1].Name},backing_fmt=qcow2";
            await Images.CreateAsync(_folder[s_layers[i].Name], "qcow2", $"size={Size},{options[i]}{under}");
            await using BlockNode disk = await OpenAsync(s_layers[i].Name);
            await WriteAsync(disk, i * 300_000, 700_000 - (i * 1111), i);
        }
    }

    /// <summary>Merges the top into the middle, which is opened once, for writing.</summary>
    private async Task CommitAsync()
    {
        var request = new OpenRequest(_folder["middle.qcow2"]) { Writable = true, Secrets = Images.Secrets.Value! };
        await using OpenedImage middle = await Images.Opener.OpenAsync(request, default);
        var opened = new Dictionary<NodeIdentity, BlockNode> { [middle.Node.HolderIdentity()!.Value] = middle.Node };
        await using OpenedImage top = await Images.Opener.OpenAsync(
            new OpenRequest(_folder["top.qcow2"]) { Opened = opened, Secrets = Images.Secrets.Value! }, default);
        await new CommitJob(top.Node, 1, middle.Node).RunAsync(null, default);
    }

    private Task<BlockNode> OpenAsync(string name) => Images.OpenAsync(_folder[name], writable: true);

    private async Task WriteAsync(BlockNode disk, int offset, int length, int seed)
    {
        new Random(seed).NextBytes(_disk.AsSpan(offset, length));
        await disk.WriteAsync(offset, _disk.AsMemory(offset, length));
    }

    private async Task ReadsAsync(string name)
    {
        await using BlockNode disk = await Images.OpenAsync(_folder[name]);
        byte[] read = new byte[Size];
        await disk.ReadAsync(0, read);
        Assert.True(_disk.AsSpan().SequenceEqual(read), $"{name} differs at {_disk.AsSpan().CommonPrefixLength(read):#,0}");
    }

    private async Task SoundAsync(string name)
    {
        await using BlockNode disk = await Images.OpenAsync(_folder[name]);
        Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, default)).Findings);
    }

    private async Task RebaseAsync(string? to)
    {
        await using BlockNode disk = await OpenAsync("top.qcow2");
        BlockNode? backing = to is null ? null : await Images.OpenAsync(_folder[to]);
        try
        {
            await new RebaseJob(disk, backing).RunAsync(null, default);
            await disk.As<IRebasable>()!.SetBackingAsync(to, to is null ? null : "qcow2", backing, default);
        }
        finally
        {
            await (backing?.DisposeAsync() ?? default);
        }
    }
}
