using System.Diagnostics;

namespace DiskImage.Tests.Locking;

/// <summary>A process of QEMU that has an image open, until it is disposed.</summary>
internal sealed class QemuHolder : IDisposable
{
    private readonly Process _process;
    private bool _isDisposed;

    private QemuHolder(Process process) => _process = process;

    /// <summary>Starts qemu-io and returns when it has read from, or written to, the disk.</summary>
    public static async Task<QemuHolder> StartAsync(string path, string format, bool writes, bool shares = false)
    {
        string[] arguments = writes ? ["-f", format, path] : ["-r", .. shares ? ["-U"] : Array.Empty<string>(), "-f", format, path];
        var process = new Process { StartInfo = new ProcessStartInfo(
            "qemu-io",
            arguments) { UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true } };
        process.Start();
        var holder = new QemuHolder(process);
        try
        {
            await process.StandardInput.WriteLineAsync(writes ? "write -P 5 0 64k" : "read 0 64k");
            await process.StandardInput.FlushAsync();
            string? line;
            do
            {
                line = await process.StandardOutput.ReadLineAsync();
                if (line is null)
                {
                    Assert.Fail($"qemu-io ended: {await process.StandardError.ReadToEndAsync()}");
                }
            }
            while (!line.Contains("65536/65536 bytes", StringComparison.Ordinal));
            return holder;
        }
        catch
        {
            holder.Dispose();
            throw;
        }
    }

    /// <summary>Starts qemu-nbd on a socket beside the image and returns when it serves it.</summary>
    public static async Task<QemuHolder> ExportAsync(string path, string format)
    {
        string pidFile = path + ".pid";
        _ = await Support.Programs.RunAsync(
            "qemu-nbd", "--fork", "--persistent", "--pid-file", pidFile, "-k", path + ".sock", "-f", format, path);
        return new QemuHolder(
            Process.GetProcessById(int.Parse(await File.ReadAllTextAsync(pidFile), System.Globalization.CultureInfo.InvariantCulture)));
    }

    public int ProcessId => _process.Id;

    /// <summary>Kills it.</summary>
    public void Dispose()
    {
        if (_isDisposed)
        {
            return;
        }
        _isDisposed = true;
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }
        _process.Dispose();
    }
}
