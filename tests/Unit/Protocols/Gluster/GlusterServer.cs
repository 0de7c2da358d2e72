using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Gluster;

/// <summary>
/// A glusterd of its own with a distributed and a replicated volume, in a folder of its own, listening on 127.0.0.1 only: one for all
/// tests of a run. Its port is the usual one, for bricks know no other.
/// </summary>
public sealed class GlusterServer : IAsyncDisposable, IDisposable
{
    public const string Distributed = "dist", Replicated = "repl";

    private const int Port = 24007;

    private readonly string _folder = Directory.CreateTempSubdirectory("gluster-").FullName;
    private readonly FileStream _turn = TakeTurn();
    private readonly Process _daemon;

    public GlusterServer()
    {
        foreach (string part in (string[])["work", "run", "d1", "d2", "r1", "r2"])
        {
            _ = Directory.CreateDirectory(Path.Combine(_folder, part));
        }
        string description = Path.Combine(_folder, "glusterd.vol");
        File.WriteAllText(description, $"""
            volume management
                type mgmt/glusterd
                option working-directory {_folder}/work
                option run-directory {_folder}/run
                option transport-type socket
                option transport.socket.listen-port {Port}
                option transport.socket.bind-address 127.0.0.1
                option transport.address-family inet
                option glusterd-sockfile {Socket}
                option ping-timeout 0
                option event-threads 1
                option max-port 60999
            end-volume
            """);
        _daemon = Process.Start(new ProcessStartInfo(
            "glusterd", ["-N", "-f", description, "-l", Path.Combine(_folder, "log"), "-p", Path.Combine(_folder, "pid")]))!;
    }

    /// <summary>Why it cannot run here; null if it can.</summary>
    public static string? WhyNot { get; } = FindWhyNot();

    private string Socket => Path.Combine(_folder, "run", "socket");

    public static string Url(string volume, string file) => $"gluster://127.0.0.1/{volume}/{file}";

    /// <summary>Makes the volumes.</summary>
    public async Task StartAsync()
    {
        string host = Dns.GetHostName();
        for (int i = 0; i < 300 && !(File.Exists(Socket) && (await TellAsync("pool", "list")).Code == 0); i++)
        {
            await Task.Delay(100);
        }
        await RequireAsync("volume", "create", Distributed, $"{host}:{_folder}/d1", $"{host}:{_folder}/d2", "force");
        await RequireAsync("volume", "create", Replicated, "replica", "2", $"{host}:{_folder}/r1", $"{host}:{_folder}/r2", "force");
        await RequireAsync("volume", "set", Replicated, "cluster.quorum-type", "none");
        await RequireAsync("volume", "start", Distributed);
        await RequireAsync("volume", "start", Replicated);
    }

    /// <summary>Kills one brick of the replicated volume.</summary>
    public void KillBrick()
    {
        string file = Directory.GetFiles(Path.Combine(_folder, "run", "vols", Replicated), "*r1.pid").Single();
        using Process brick = Process.GetProcessById(int.Parse(File.ReadAllText(file)));
        brick.Kill();
    }

    /// <summary>Starts again what was killed.</summary>
    public Task ReviveAsync() => RequireAsync("volume", "start", Replicated, "force");

    public async ValueTask DisposeAsync()
    {
        foreach (string volume in (string[])[Distributed, Replicated])
        {
            _ = await TellAsync("volume", "stop", volume, "force");
        }
        _daemon.Kill();
        await _daemon.WaitForExitAsync();
        foreach (string pid in Directory.GetFiles(Path.Combine(_folder, "run"), "*.pid", SearchOption.AllDirectories))
        {
            if (int.TryParse(File.ReadAllText(pid), out int id) && File.Exists($"/proc/{id}/cmdline")
                && File.ReadAllText($"/proc/{id}/cmdline").Contains(_folder, StringComparison.Ordinal))
            {
                Process.GetProcessById(id).Kill();
            }
        }
        _daemon.Dispose();
        Directory.Delete(_folder, recursive: true);
        await _turn.DisposeAsync();
    }

    public void Dispose() => DisposeAsync().AsTask().GetAwaiter().GetResult();

    /// <summary>There is one usual port, and Pester's tests may be at it: this waits until they are not.</summary>
    private static FileStream TakeTurn()
    {
        for (var stop = Stopwatch.StartNew(); ; Thread.Sleep(100))
        {
            try
            {
                return new FileStream(
                    Path.Combine(Path.GetTempPath(), "diskimage-glusterd.turn"), FileMode.OpenOrCreate, FileAccess.Write, FileShare.None, 1,
                    FileOptions.DeleteOnClose);
            }
            catch (IOException) when (stop.Elapsed < TimeSpan.FromMinutes(5))
            {
            }
        }
    }

    private static string? FindWhyNot()
    {
        if (!OperatingSystem.IsLinux() || Programs.Find("glusterd") is null || Programs.Find("gluster") is null)
        {
            return "glusterd is not installed";
        }
        if (Environment.UserName != "root")
        {
            return "glusterd needs root";
        }
        try
        {
            using Process asked = Process.Start(new ProcessStartInfo("getent", ["ahostsv4", Dns.GetHostName()])
            {
                UseShellExecute = false, RedirectStandardOutput = true,
            })!; // .NET names all addresses of its own machine
            string[] lines = asked.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
            if (lines.Length == 0 || !Array.TrueForAll(lines, l => l.StartsWith("127.", StringComparison.Ordinal)))
            {
                return "the machine's name does not lead to it by the loopback interface, and bricks have to be called by it";
            }
            using var probe = new TcpListener(IPAddress.Loopback, Port);
            probe.Start();
            return null;
        }
        catch (Exception e) when (e is SocketException or System.ComponentModel.Win32Exception)
        {
            return $"glusterd cannot listen on port {Port}: {e.Message}";
        }
    }

    private Task<(int Code, string Output, string Errors)> TellAsync(params string[] command)
        => Programs.TryAsync("gluster", [$"--glusterd-sock={Socket}", "--mode=script", .. command]);

    private async Task RequireAsync(params string[] command)
    {
        (int code, string output, string errors) = await TellAsync(command);
        Assert.True(code == 0, $"gluster {string.Join(' ', command)}: {output}{errors}");
    }
}

/// <summary>A fact that needs glusterd.</summary>
public sealed class GlusterFactAttribute : FactAttribute
{
    public GlusterFactAttribute() => Skip = GlusterServer.WhyNot;
}

/// <summary>The server of all tests; not started where all of them are skipped.</summary>
public sealed class GlusterFixture : IAsyncLifetime
{
    public GlusterServer? Server { get; private set; }

    public async Task InitializeAsync()
    {
        if (GlusterServer.WhyNot is null)
        {
            Server = new GlusterServer();
            await Server.StartAsync();
        }
    }

    public async Task DisposeAsync()
    {
        if (Server is not null)
        {
            await Server.DisposeAsync();
        }
    }
}
