using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>Images on SSH servers that name others, and QEMU's ssh driver as a second judge.</summary>
public sealed class SshChainTests : IDisposable
{
    private const string NoCheck = "?host_key_check=no";

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private async Task<byte[]> MakeAsync(string name)
    {
        byte[] contents = new byte[2 << 20];
        new Random(5).NextBytes(contents.AsSpan(700_000, 600_000));
        await Images.WriteSparseAsync(_folder[name], contents);
        return contents;
    }

    [SshDaemonFact]
    public async Task A_backing_image_on_a_server_is_opened_only_if_the_user_says_so()
    {
        byte[] model = await MakeAsync("base.raw");
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", _folder["over.qcow2"]);
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string uri = server.Uri(_folder["over.qcow2"], NoCheck);
        var refused = await Assert.ThrowsAsync<DiskImageException>(
            async () => await server.Opener().OpenAsync(new OpenRequest(uri), CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Refused, refused.Kind);
        await File.WriteAllTextAsync(_folder["known"], ""); // the backing image is reached as the image is
        OpenPolicy anywhere = OpenPolicy.Default with { References = ReferenceScope.Anywhere };
        await using OpenedImage image = await server.Opener(policy: anywhere).OpenAsync(new OpenRequest(uri), CancellationToken.None);
        byte[] read = new byte[model.Length];
        await image.Node.ReadAsync(0, read);
        Assert.True(model.AsSpan().SequenceEqual(read));
        Assert.Equal(server.Uri(_folder["base.raw"], NoCheck), image.Node.Child("backing")!.Name);
    }

    [SshDaemonFact]
    public async Task An_overlay_here_over_an_image_there_is_made_as_the_user_names_it()
    {
        byte[] model = await MakeAsync("base.raw");
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string backing = server.Uri(_folder["base.raw"]), path = _folder["over.qcow2"];
        ImageOpener opener = server.Opener().NamingBacking(backing, path);
        FormatDriver format = opener.Registry.Format("qcow2");
        object options = ((ICreatable)format).CreateOptions.Bind(
            [new("size", (long)model.Length), new("backing_file", backing), new("backing_fmt", "raw")]);
        await using (NewImage made = await new ImageCreator(opener).CreateAsync(
            path, format, options, TargetMode.New, null, CancellationToken.None))
        {
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        await using (OpenedImage image = await opener.OpenAsync(new OpenRequest(path) { Writable = true }, CancellationToken.None))
        {
            byte[] read = new byte[model.Length];
            await image.Node.ReadAsync(0, read);
            Assert.True(model.AsSpan().SequenceEqual(read));
            await image.Node.WriteAsync(700_001, new byte[10]); // copies from there
        }
        var refused = await Assert.ThrowsAsync<DiskImageException>(
            async () => await server.Opener().OpenAsync(new OpenRequest(path), CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Refused, refused.Kind);
    }

    [SshDaemonFact]
    public async Task Files_of_a_split_image_lie_beside_it_on_the_server()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        Directory.CreateDirectory(_folder["far"]);
        string uri = server.Uri(_folder["far/disk.vmdk"]);
        FormatDriver format = Images.Registry.Format("vmdk");
        object options = ((ICreatable)format).CreateOptions.Bind([new("size", 3L << 30), new("subformat", "twoGbMaxExtentSparse")]);
        var refused = await Assert.ThrowsAsync<DiskImageException>(async () => await new ImageCreator(server.Opener()).CreateAsync(
            uri, format, options, TargetMode.New, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Refused, refused.Kind);
        Assert.Empty(Directory.GetFiles(_folder["far"]));
        ImageOpener opener = server.Opener(policy: OpenPolicy.Default with { References = ReferenceScope.Anywhere });
        foreach (TargetMode mode in new[] { TargetMode.New, TargetMode.Replace })
        {
            await using NewImage made = await new ImageCreator(opener).CreateAsync(uri, format, options, mode, null, CancellationToken.None);
            await made.Node.WriteAsync((2L << 30) + 5000, new byte[] { 1, 2, 3 });
            await made.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Equal(
            ["disk-s001.vmdk", "disk-s002.vmdk", "disk.vmdk"],
            Directory.GetFiles(_folder["far"]).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal),
            StringComparer.Ordinal);
        await using OpenedImage image = await opener.OpenAsync(new OpenRequest(uri), CancellationToken.None);
        byte[] read = new byte[3];
        await image.Node.ReadAsync((2L << 30) + 5000, read);
        Assert.Equal([1, 2, 3], read);
    }

    [Theory]
    [InlineData("ssh://me@h:1/a/b.img?host_key_check=no", "c d.img", "ssh://me@h:1/a/c%20d.img?host_key_check=no")]
    [InlineData("ssh://h/b.img", "../c.img", "ssh://h/../c.img")]
    [InlineData("ssh://h/b.img", "/c.img", "/c.img")]
    [InlineData("ssh://h/b.img", "ssh://g/c.img", "ssh://g/c.img")]
    [InlineData("https://h/x/b.img?x=a/b", "c.img", "https://h/x/c.img?x=a/b")]
    [InlineData("nbd://h", "c", "nbd://h/c")]
    [InlineData("/x/b.img", "c.img", "/x/c.img")]
    [InlineData("file:/x/b.img", "c.img", "file:/x/c.img")]
    public void A_name_in_an_image_is_taken_from_where_the_image_is(string image, string name, string expected)
    {
        ImageLocator locator = ImageLocator.Parse(name).Beside(image);
        Assert.Equal(expected, locator.Target);
    }

    /// <summary>libssh logs in with the agent's key, and writes nothing where the server's key is not checked.</summary>
    [QemuSshFact]
    public async Task Qemu_reads_what_we_wrote_and_we_read_what_qemu_wrote()
    {
        byte[] model = await MakeAsync("disk.raw");
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string socket = _folder["agent"], user = $"{Environment.UserName}@";
        await using var agent = await Nbd.NbdProcess.StartAsync("ssh-agent", socket, "-D", "-a", socket);
        await Programs.RunAsync("env", $"SSH_AUTH_SOCK={socket}", "ssh-add", "-q", _folder["id"]);
        Task<string> QemuAsync(params string[] arguments) => Programs.RunAsync("env", [$"SSH_AUTH_SOCK={socket}", "qemu-img", .. arguments]);

        ImageOpener opener = server.Opener();
        FormatDriver format = opener.Registry.Format("qcow2");
        object options = ((ICreatable)format).CreateOptions.Bind([new("size", (long)model.Length)]);
        await using (OpenedImage source = await opener.OpenAsync(new OpenRequest(_folder["disk.raw"]), CancellationToken.None))
        {
            await using NewImage made = await new ImageCreator(opener).CreateAsync(
                server.Uri(_folder["ours.qcow2"]), format, options, TargetMode.New, null, CancellationToken.None);
            await new ConvertJob(source.Node, made.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            await made.CompleteAsync(durable: true, CancellationToken.None);
        }
        await QemuAsync(
            "compare", "-f", "raw", "-F", "qcow2", _folder["disk.raw"], server.Uri(_folder["ours.qcow2"], NoCheck, user));
        await QemuAsync("check", "-f", "qcow2", server.Uri(_folder["ours.qcow2"], NoCheck, user));
        await QemuAsync(
            "convert", "-f", "raw", "-O", "qcow2", _folder["disk.raw"], server.Uri(_folder["theirs.qcow2"], NoCheck, user));
        string json = $$$"""
            json:{"driver":"qcow2","file":{"driver":"ssh","server":{"host":"127.0.0.1","port":"{{{server.Port}}}"},
            "path":"{{{_folder["theirs.qcow2"]}}}","host-key-check":{"mode":"none"} } }
            """;
        await using OpenedImage theirs = await opener.OpenAsync(new OpenRequest(json), CancellationToken.None);
        byte[] read = new byte[model.Length];
        await theirs.Node.ReadAsync(0, read);
        Assert.True(model.AsSpan().SequenceEqual(read));
    }
}

/// <summary>A fact that needs QEMU's own ssh driver, besides OpenSSH.</summary>
public sealed class QemuSshFactAttribute : FactAttribute
{
    private const string Driver = "/usr/lib/x86_64-linux-gnu/qemu/block-ssh.so";

    public QemuSshFactAttribute()
        => Skip = SshDaemon.WhyNot ?? Programs.WhyMissing("qemu-img") ?? (File.Exists(Driver) ? null : "qemu-block-extra is not installed");
}
