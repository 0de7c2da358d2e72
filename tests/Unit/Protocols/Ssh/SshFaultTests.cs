using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>What goes wrong at OpenSSH's server, or is not there.</summary>
[System.Runtime.Versioning.SupportedOSPlatform("linux")] // or they are skipped
public sealed class SshFaultTests : IDisposable
{
    private readonly TestFolder _folder = new();
    private readonly List<string> _warnings = [];

    public void Dispose() => _folder.Dispose();

    private string Make(string name = "disk.raw")
    {
        byte[] contents = new byte[1 << 20];
        new Random(3).NextBytes(contents);
        File.WriteAllBytes(_folder[name], contents);
        return _folder[name];
    }

    private async Task<OpenedImage> OpenAsync(SshDaemon server, string locator, bool writable = false, OpenPolicy? policy = null)
        => await server.Opener(w => _warnings.Add(w.ToString()), policy: policy).OpenAsync(
            new OpenRequest(locator) { Format = "raw", Writable = writable }, CancellationToken.None);

    private async Task<NewImage> BeginAsync(SshDaemon server, string locator, TargetMode mode = TargetMode.New, string format = "raw")
    {
        ImageOpener opener = server.Opener(w => _warnings.Add(w.ToString()));
        object options = ((ICreatable)opener.Registry.Format(format)).CreateOptions.Bind([new("size", 1L << 20)]);
        return await new ImageCreator(opener).CreateAsync(
            locator, opener.Registry.Format(format), options, mode, null, CancellationToken.None);
    }

    private static async Task<DiskImageException> FailsAsync(Func<Task> work) => await Assert.ThrowsAsync<DiskImageException>(work);

    [SshDaemonFact]
    public async Task Without_fsync_it_is_said_once_that_flushes_cannot_be_relied_on()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, sftp: "internal-sftp -P fsync,limits");
        await using (OpenedImage image = await OpenAsync(server, server.Uri(path)))
        {
            await image.Node.ReadAsync(0, new byte[1 << 20]); // in pieces that every server takes
        }
        Assert.Empty(_warnings);
        await using (OpenedImage image = await OpenAsync(server, server.Uri(path), writable: true))
        {
            await image.Node.WriteAsync(5, new byte[100_000]);
            await image.Node.FlushAsync();
            await image.Node.FlushAsync();
        }
        Assert.Contains("flushes cannot be relied on", Assert.Single(_warnings));
        _warnings.Clear();
        await using (NewImage made = await BeginAsync(server, server.Uri(_folder["new.raw"])))
        {
            await made.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Single(_warnings);
    }

    [SshDaemonFact]
    public async Task A_connection_that_is_cut_is_one_error_with_the_words_of_ssh()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await using OpenedImage image = await OpenAsync(server, server.Uri(path), writable: true);
        await image.Node.ReadAsync(0, new byte[512]);
        await server.CutAsync();
        DiskImageException first = await FailsAsync(async () => await image.Node.ReadAsync(0, new byte[1 << 20]));
        Assert.Equal(DiskImageErrorKind.Io, first.Kind);
        Assert.Contains("the connection to the server is lost: ssh ", first.Message);
        foreach (Func<Task> work in new Func<Task>[]
        {
            async () => await image.Node.WriteAsync(0, new byte[512]), async () => await image.Node.FlushAsync(),
            async () => await image.Node.ReadAsync(0, new byte[512]),
        })
        {
            Assert.Equal(first.Message, (await FailsAsync(work)).Message);
        }
    }

    [SshDaemonFact]
    public async Task A_connection_that_is_cut_leaves_no_image_under_its_name()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        Directory.CreateDirectory(_folder["made"]);
        await using (NewImage made = await BeginAsync(server, server.Uri(_folder["made/new.qcow2"]), format: "qcow2"))
        {
            await made.Node.WriteAsync(0, new byte[100_000]);
            await server.CutAsync();
            await FailsAsync(async () => await made.CompleteAsync(durable: true, CancellationToken.None));
        }
        Assert.EndsWith(".incomplete", Assert.Single(Directory.GetFiles(_folder["made"])));
    }

    [SshDaemonFact]
    public async Task A_server_that_hangs_keeps_nobody_who_gives_up()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await using OpenedImage image = await OpenAsync(server, server.Uri(path), writable: true);
        string[] hung = await server.BelowAsync();
        await Programs.RunAsync("kill", ["-STOP", .. hung]);
        using var stop = new CancellationTokenSource();
        byte[] buffer = new byte[1 << 20];
        Task read = image.Node.ReadAsync(0, buffer, stop.Token).AsTask();
        Task write = image.Node.WriteAsync(0, new byte[1 << 20], stop.Token).AsTask(), flush = image.Node.FlushAsync(stop.Token).AsTask();
        await stop.CancelAsync();
        foreach (Task task in new[] { read, write, flush })
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => task);
        }
        buffer.AsSpan().Fill(0xa5); // ours again
        await Programs.RunAsync("kill", ["-CONT", .. hung]);
        byte[] after = new byte[512];
        await image.Node.ReadAsync(512, after); // the answers of the others come before it, and are dropped
        Assert.DoesNotContain(buffer, b => b != 0xa5);
    }

    /// <summary>What Ctrl+C sends to all processes of a terminal: the work is stopped by us, and ssh is needed to clean up.</summary>
    [SshDaemonFact]
    public async Task An_interruption_from_the_terminal_does_not_reach_ssh()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await using OpenedImage image = await OpenAsync(server, server.Uri(path));
        string[] running = (await Programs.RunAsync("pgrep", "-P", $"{Environment.ProcessId}", "-f", $" -p {server.Port} ")).Split(
            '\n', StringSplitOptions.RemoveEmptyEntries);
        await Programs.RunAsync("kill", "-INT", Assert.Single(running));
        await image.Node.ReadAsync(0, new byte[512]);
    }

    [RootFact]
    public async Task A_full_disk_of_the_server_is_no_room()
    {
        Directory.CreateDirectory(_folder["small"]);
        await Programs.RunAsync("mount", "-t", "tmpfs", "-o", "size=2m", "none", _folder["small"]);
        try
        {
            await using SshDaemon server = await SshDaemon.StartAsync(_folder);
            await File.WriteAllBytesAsync(_folder["small/disk.raw"], new byte[1 << 20]);
            await using (OpenedImage image = await OpenAsync(server, server.Uri(_folder["small/disk.raw"]), writable: true))
            {
                await image.Node.ResizeAsync(5 << 20); // a hole
                DiskImageException e = await FailsAsync(async () => await image.Node.WriteAsync(1 << 20, new byte[4 << 20]));
                Assert.Equal(DiskImageErrorKind.NoSpace, e.Kind);
                await image.Node.ReadAsync(0, new byte[512]); // the connection is as good as before
            }
            DiskImageException full = await FailsAsync(async () =>
            {
                await using NewImage made = await BeginAsync(server, server.Uri(_folder["small/new.qcow2"]), format: "qcow2");
                byte[] noise = new byte[1 << 20];
                Random.Shared.NextBytes(noise);
                await made.Node.WriteAsync(0, noise);
                await made.CompleteAsync(durable: true, CancellationToken.None);
            });
            Assert.Equal(DiskImageErrorKind.NoSpace, full.Kind);
            Assert.Equal([_folder["small/disk.raw"]], Directory.GetFiles(_folder["small"]));
        }
        finally
        {
            await Programs.RunAsync("umount", _folder["small"]);
        }
    }

    [RootFact]
    public async Task What_the_servers_user_may_not_do_is_access_denied()
    {
        string path = Make();
        Directory.CreateDirectory(_folder["closed"]);
        File.SetUnixFileMode(_folder.Root, (UnixFileMode)0x1ED); // 0755
        await using SshDaemon server = await SshDaemon.StartAsync(
            _folder, sftp: $"/usr/sbin/runuser -u nobody -- {SshDaemon.SftpServer}");
        await using (await OpenAsync(server, server.Uri(path)))
        {
        }
        File.SetUnixFileMode(_folder["closed"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        foreach (Func<Task> work in new Func<Task>[]
        {
            async () => await OpenAsync(server, server.Uri(path), writable: true),
            async () => await OpenAsync(server, server.Uri($"{_folder["closed"]}/disk.raw")),
            async () => await BeginAsync(server, server.Uri($"{_folder["closed"]}/new.raw")),
            async () => await BeginAsync(server, server.Uri($"{_folder.Root}/new.raw")),
            async () => await BeginAsync(server, server.Uri(path), TargetMode.Replace),
            async () => await BeginAsync(server, server.Uri(path), TargetMode.InPlace),
        })
        {
            DiskImageException e = await FailsAsync(work);
            Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
        }
    }

    [SshDaemonFact]
    public async Task What_is_not_there_or_no_file_is_said_before_anything_happens()
    {
        string path = Make();
        Directory.CreateDirectory(_folder["folder"]);
        await Programs.RunAsync("mkfifo", _folder["pipe"]);
        File.CreateSymbolicLink(_folder["dangling"], "nowhere");
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        foreach ((string name, DiskImageErrorKind opening, DiskImageErrorKind making) in new[]
        {
            ("none", DiskImageErrorKind.NotFound, default), ("none/new.raw", DiskImageErrorKind.NotFound, DiskImageErrorKind.NotFound),
            ("folder", DiskImageErrorKind.InvalidOption, DiskImageErrorKind.InvalidOption),
            ("pipe", DiskImageErrorKind.InvalidOption, DiskImageErrorKind.InvalidOption),
            ("dangling", DiskImageErrorKind.NotFound, DiskImageErrorKind.AlreadyExists),
        })
        {
            Assert.Equal(opening, (await FailsAsync(() => OpenAsync(server, server.Uri(_folder[name])))).Kind);
            if (name != "none")
            {
                Assert.Equal(making, (await FailsAsync(() => BeginAsync(server, server.Uri(_folder[name])))).Kind);
            }
        }
    }

    [SshDaemonFact]
    public async Task A_symbolic_link_stays_and_what_it_leads_to_is_replaced()
    {
        string path = Make();
        File.CreateSymbolicLink(_folder["link.raw"], path);
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await using (NewImage made = await BeginAsync(server, server.Uri(_folder["link.raw"]), TargetMode.Replace))
        {
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        Assert.Equal(path, new FileInfo(_folder["link.raw"]).LinkTarget);
        Assert.DoesNotContain(await File.ReadAllBytesAsync(path), b => b != 0);
    }

    [SshDaemonTheory]
    [InlineData(TargetMode.New)]
    [InlineData(TargetMode.Replace)]
    public async Task What_took_the_place_meanwhile_is_kept(TargetMode mode)
    {
        string path = _folder["disk.raw"];
        if (mode == TargetMode.Replace)
        {
            _ = Make();
        }
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await using (NewImage made = await BeginAsync(server, server.Uri(path), mode))
        {
            await File.WriteAllTextAsync(path, "somebody's");
            DiskImageException e = await FailsAsync(async () => await made.CompleteAsync(durable: false, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.AlreadyExists, e.Kind);
        }
        Assert.Equal("somebody's", await File.ReadAllTextAsync(path));
        Assert.Empty(Directory.GetFiles(_folder.Root, "*.incomplete"));
    }

    [SshDaemonFact]
    public async Task Where_nothing_can_be_replaced_in_one_step_it_is_written_in_place_if_that_is_asked_for()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, sftp: "internal-sftp -P posix-rename");
        DiskImageException e = await FailsAsync(() => BeginAsync(server, server.Uri(path), TargetMode.Replace));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
        await using (NewImage made = await BeginAsync(server, server.Uri(path), TargetMode.InPlace))
        {
            await made.Node.WriteAsync(0, new byte[] { 1, 2, 3 });
        }
        Assert.Empty(await File.ReadAllBytesAsync(path)); // not completed: what is half made is no image
        await using (NewImage made = await BeginAsync(server, server.Uri(path), TargetMode.InPlace))
        {
            await made.Node.WriteAsync(0, new byte[] { 1, 2, 3 });
            await made.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Equal(1 << 20, new FileInfo(path).Length);
    }

    [SshDaemonFact]
    public async Task A_profile_that_prints_something_is_named_as_the_reason()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, sftp: $"echo Welcome to this server; {SshDaemon.SftpServer}");
        DiskImageException e = await FailsAsync(() => OpenAsync(server, server.Uri(path)));
        Assert.Equal(DiskImageErrorKind.Io, e.Kind);
        Assert.Contains("Welcome", e.Message);
    }

    [SshDaemonFact]
    public async Task A_server_without_sftp_is_named_so()
    {
        string path = Make();
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await File.WriteAllTextAsync(
            _folder["sshd_config"], (await File.ReadAllTextAsync(_folder["sshd_config"])).Replace("Subsystem sftp", "Subsystem other"));
        await server.ReloadAsync();
        DiskImageException e = await FailsAsync(() => OpenAsync(server, server.Uri(path)));
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
        Assert.Contains("subsystem request failed", e.Message);
    }

    [SshDaemonTheory]
    [InlineData("ssh://-oProxyCommand=touch/disk.raw")]
    [InlineData("ssh://-lroot@127.0.0.1/disk.raw")]
    [InlineData("ssh://a%24(touch)@127.0.0.1/disk.raw")]
    [InlineData("ssh://me:secret@127.0.0.1/disk.raw")]
    [InlineData("ssh://127.0.0.1/folder/")]
    [InlineData("ssh://127.0.0.1")]
    [InlineData("ssh:///disk.raw")]
    [InlineData("ssh://127.0.0.1/a%00b")]
    [InlineData("ssh://127.0.0.1/disk.raw?key=1")]
    [InlineData("ssh://127.0.0.1/disk.raw#2")]
    [InlineData("ssh://127.0.0.1/disk.raw?host_key_check=maybe")]
    [InlineData("ssh://127.0.0.1/disk.raw?host_key_check=md5:12:34")]
    [InlineData("ssh://127.0.0.1/disk.raw?host_key_check=sha512:00")]
    [InlineData("""json:{"driver":"ssh","server.host":"-oProxyCommand=touch x","path":"/disk.raw"}""")]
    [InlineData("""json:{"driver":"ssh","server.host":"a`b","path":"/disk.raw"}""")]
    [InlineData("""json:{"driver":"ssh","server.host":"h","user":"-w","path":"/disk.raw"}""")]
    [InlineData("""json:{"driver":"ssh","server.host":"h","path":"/disk.raw","host-key-check.mode":"none","host-key-check.hash":"00"}""")]
    [InlineData("""json:{"driver":"ssh","server.host":"h","path":"/d","host-key-check.mode":"hash","host-key-check.type":"md5"}""")]
    [InlineData("""json:{"driver":"ssh","server.host":"h"}""")]
    [InlineData("""json:{"driver":"ssh","path":"/d"}""")]
    public async Task What_cannot_be_is_refused_without_asking_anybody(string locator)
    {
        var opener = new ImageOpener(SshDaemon.RegistryOf(null, programs: _folder.Root), OpenPolicy.Default); // where no program is
        DiskImageException e = await FailsAsync(async () => await opener.OpenAsync(new OpenRequest(locator), CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.DoesNotContain("secret", e.Message);
    }
}

/// <summary>A fact that needs OpenSSH, and root, for mounting and for being somebody else.</summary>
public sealed class RootFactAttribute : FactAttribute
{
    public RootFactAttribute() => Skip = SshDaemon.WhyNot ?? (Environment.UserName == "root" ? null : "only root may mount");
}
