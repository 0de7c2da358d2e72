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
        Process process = await StartAsync(info);
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        _ = process.StandardOutput.ReadToEndAsync();
        for (int i = 0; i < 1000; i++)
        {
            if (process.HasExited)
            {
                Assert.Fail($"{program} {string.Join(' ', arguments)} ended with exit code {process.ExitCode}: {await errors}");
            }
            if (listens is string path ? Listens(path) : IsTaken((int)listens))
            {
                return new NbdProcess(process);
            }
            await Task.Delay(10);
        }
        process.Kill();
        throw new TimeoutException($"{program} does not listen: {await errors}");
    }

    /// <summary>
    /// Starts it from a thread that lives as long as it does: nbdkit has the kernel end it with the thread that started it, and those of the
    /// pool come and go.
    /// </summary>
    private static Task<Process> StartAsync(ProcessStartInfo info)
    {
        var started = new TaskCompletionSource<Process>(TaskCreationOptions.RunContinuationsAsynchronously);
        new Thread(() =>
        {
            try
            {
                Process process = Process.Start(info)!;
                using var waited = Process.GetProcessById(process.Id); // whoever gets the other one may dispose it
                started.SetResult(process);
                waited.WaitForExit();
            }
            catch (Exception e)
            {
                _ = started.TrySetException(e);
            }
        }) { IsBackground = true }.Start();
        return started.Task;
    }

    /// <summary>A socket's file is there a moment before anybody listens at it; Linux tells, without a connection that would count.</summary>
    private static bool Listens(string path)
    {
        const string Listening = "00010000"; // __SO_ACCEPTCON
        return !File.Exists("/proc/net/unix") ? File.Exists(path) : File.ReadLines("/proc/net/unix").Any(
            l => l.EndsWith($" {path}", StringComparison.Ordinal)
                && l.Split(' ', StringSplitOptions.RemoveEmptyEntries) is [_, _, _, Listening, ..]);
    }

    /// <summary>A TCP port that nobody listens at.</summary>
    public static int FreePort()
    {
        using var probe = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        probe.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)probe.LocalEndPoint!).Port;
    }

    /// <summary>Waits until it has ended by itself; its exit code.</summary>
    public async Task<int> EndAsync()
    {
        await _process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(60));
        return _process.ExitCode;
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
