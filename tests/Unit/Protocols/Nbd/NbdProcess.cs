using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>Somebody else's NBD server, running until it is disposed.</summary>
internal sealed class NbdProcess : IAsyncDisposable
{
    private readonly Process _process;

    private NbdProcess(Process process) => _process = process;

    /// <summary>Starts a server and waits until it listens at a socket or port.</summary>
    public static async Task<NbdProcess> StartAsync(string program, object listens, params string[] arguments)
    {
        var info = new ProcessStartInfo(Programs.Find(program)!)
        {
            UseShellExecute = false, RedirectStandardError = true, RedirectStandardInput = true, RedirectStandardOutput = true,
        };
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }
        Process process = Process.Start(info)!;
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        _ = process.StandardOutput.ReadToEndAsync();
        for (int i = 0; i < 1000; i++)
        {
            if (process.HasExited)
            {
                Assert.Fail($"{program} {string.Join(' ', arguments)} ended with exit code {process.ExitCode}: {await errors}");
            }
            if (listens is string path ? File.Exists(path) : IsTaken((int)listens))
            {
                return new NbdProcess(process);
            }
            await Task.Delay(10);
        }
        process.Kill();
        throw new TimeoutException($"{program} does not listen: {await errors}");
    }

    /// <summary>A TCP port that nobody listens at.</summary>
    public static int FreePort()
    {
        using var probe = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        probe.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)probe.LocalEndPoint!).Port;
    }

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

    /// <summary>True if somebody listens: asked without connecting, since some servers serve only one client ever.</summary>
    private static bool IsTaken(int port)
        => System.Net.NetworkInformation.IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Any(l => l.Port == port);
}
