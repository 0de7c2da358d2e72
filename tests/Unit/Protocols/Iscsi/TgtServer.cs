using System.Diagnostics;
using System.Net.NetworkInformation;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>The Linux SCSI target, with one target, running at a port of its own until it is disposed.</summary>
internal sealed class TgtServer : IAsyncDisposable
{
    public const string Program = "tgtd", Target = "iqn.2026-11.org.example:disks";

    private readonly Process _process;
    private readonly string _control;

    private TgtServer(Process process, int port, string control) => (_process, Port, _control) = (process, port, control);

    public int Port { get; }

    public string Portal => $"127.0.0.1:{Port}";

    /// <summary>Starts it, with a target that lets everybody in.</summary>
    public static async Task<TgtServer> StartAsync(TestFolder folder, int? at = null)
    {
        int port = at ?? FreePort();
        string control = folder[$"c{port}"];
        Process process = Process.Start(Info(Program, control, "-f", "--iscsi", $"portal=127.0.0.1:{port}", "-C", Number(port)))!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        _ = process.StandardOutput.ReadToEndAsync();
        for (int i = 0; i < 1000 && !process.HasExited; i++)
        {
            if (File.Exists($"{control}.{Number(port)}") && IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Any(l => l.Port == port))
            {
                var server = new TgtServer(process, port, control);
                await server.AdminAsync("--op", "new", "--mode", "target", "--tid", "1", "-T", Target);
                await server.AdminAsync("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL");
                return server;
            }
            await Task.Delay(10);
        }
        Assert.Fail($"tgtd does not listen: {(process.HasExited ? await errors : "no port")}");
        throw new InvalidOperationException();
    }

    /// <summary>Has tgtadm change something.</summary>
    public async Task AdminAsync(params string[] arguments)
    {
        using Process process = Process.Start(Info("tgtadm", _control, ["-C", Number(Port), "--lld", "iscsi", .. arguments]))!;
        string errors = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, $"tgtadm {string.Join(' ', arguments)}: {errors}");
    }

    /// <summary>Adds a unit that has its bytes in a file, and perhaps parameters of tgtadm.</summary>
    public async Task AddAsync(int lun, string file, string? parameters = null, string type = "disk")
    {
        await AdminAsync("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", $"{lun}", "-b", file, "--device-type", type);
        if (parameters is not null)
        {
            await AdminAsync("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", $"{lun}", "--params", parameters);
        }
    }

    public string Url(int lun = 1, string user = "") => $"iscsi://{user}{Portal}/{Target}/{lun}";

    /// <summary>Ends it at once.</summary>
    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            await _process.WaitForExitAsync();
        }
        _process.Dispose();
    }

    public static int FreePort()
    {
        using var probe = new System.Net.Sockets.Socket(
            System.Net.Sockets.AddressFamily.InterNetwork, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
        probe.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0));
        return ((System.Net.IPEndPoint)probe.LocalEndPoint!).Port;
    }

    /// <summary>Control ports are small numbers.</summary>
    private static string Number(int port) => $"{port & 0x7FFF}";

    private static ProcessStartInfo Info(string program, string control, params string[] arguments)
    {
        var info = new ProcessStartInfo(Programs.Find(program)!)
        {
            UseShellExecute = false, RedirectStandardError = true, RedirectStandardInput = true, RedirectStandardOutput = true,
        };
        info.Environment["TGT_IPC_SOCKET"] = control; // or it takes one in /var/run
        Array.ForEach(arguments, info.ArgumentList.Add);
        return info;
    }
}
