using System.ComponentModel;
using System.Diagnostics;
using System.IO.Pipes;
using System.Runtime.InteropServices;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>The system's ssh, running: what it reads and writes is what goes to the server and comes from it.</summary>
internal sealed partial class SshProcess : SftpTransport
{
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(2); // to end by itself. Ours

    private const int SetPipeSize = 1031, PipeSize = 1 << 20; // F_SETPIPE_SZ of Linux; bytes, ours

    // An interruption from the terminal is for this process, which may have something left to do on the server: removing what is
    // unfinished. The number lets the answer to a question be given to this ssh alone, and not to one that it starts on its way.
    private const string Shelter = "trap '' INT QUIT; DISKIMAGE_SSH_PID=$$; export DISKIMAGE_SSH_PID; exec \"$@\"";

    private readonly Process _process;
    private readonly Task<string> _errors;
    private int _isAborted;

    private SshProcess(Process process)
        : base(process.StandardOutput.BaseStream, process.StandardInput.BaseStream)
    {
        _process = process;
        _errors = KeepAsync(process.StandardError);
        Widen(process.StandardInput.BaseStream);
        Widen(process.StandardOutput.BaseStream);
    }

    /// <summary>Starts it.</summary>
    /// <param name="program">Its path.</param>
    /// <param name="arguments">What it is told.</param>
    /// <param name="environment">What is added to its environment.</param>
    /// <exception cref="DiskImageException">Unsupported: it cannot be started.</exception>
    public static SshProcess Start(
        string program, IEnumerable<string> arguments, IEnumerable<KeyValuePair<string, string>> environment)
        => new(Run(program, arguments, environment));

    /// <summary>Runs one of its companions to its end.</summary>
    /// <returns>What it wrote, cut off where that is too much, and what it says if it failed.</returns>
    /// <exception cref="DiskImageException">Unsupported: it cannot be started.</exception>
    public static async ValueTask<(string Output, SshWords? Words)> AskAsync(
        string program, IEnumerable<string> arguments, CancellationToken cancellationToken)
    {
        using Process process = Run(program, arguments, []);
        process.StandardInput.Close();
        Task<string> output = KeepAsync(process.StandardOutput), errors = KeepAsync(process.StandardError);
        try
        {
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Kill(process);
            throw;
        }
        string said = await errors.ConfigureAwait(false);
        return (
            await output.ConfigureAwait(false),
            process.ExitCode == 0 ? null : SshWords.Of(Path.GetFileNameWithoutExtension(program), said, process.ExitCode));
    }

    /// <inheritdoc/>
    public override async ValueTask<SshWords?> LastWordsAsync()
    {
        try
        {
            await _process.WaitForExitAsync().WaitAsync(s_grace).ConfigureAwait(false);
            return SshWords.Of("ssh", await _errors.WaitAsync(s_grace).ConfigureAwait(false), _process.ExitCode);
        }
        catch (TimeoutException)
        {
            return _errors.IsCompleted ? SshWords.Of("ssh", await _errors.ConfigureAwait(false), exitCode: null) : null;
        }
    }

    /// <inheritdoc/>
    public override void Abort()
    {
        if (Interlocked.Exchange(ref _isAborted, 1) == 0)
        {
            Kill(_process);
        }
    }

    /// <summary>Lets it end: it does when nothing comes any more. If it does not, it is ended.</summary>
    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync().ConfigureAwait(false);
        try
        {
            await _process.WaitForExitAsync().WaitAsync(s_grace).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            Kill(_process);
        }
        _process.Dispose();
    }

    private static Process Run(
        string program, IEnumerable<string> arguments, IEnumerable<KeyValuePair<string, string>> environment)
    {
        var start = new ProcessStartInfo
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardErrorEncoding = Encoding.UTF8,
            CreateNoWindow = true,
        };
        if (OperatingSystem.IsWindows())
        {
            (start.FileName, start.CreateNewProcessGroup) = (program, true);
        }
        else
        {
            start.FileName = "/bin/sh";
            foreach (string part in (string[])["-c", Shelter, "sh", program])
            {
                start.ArgumentList.Add(part);
            }
        }
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }
        try
        {
            return Process.Start(start)!;
        }
        catch (Exception e) when (e is Win32Exception or IOException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{program}: cannot be started: {e.Message}", program, cause: e);
        }
    }

    /// <summary>The last of what a program says. The rest is read and dropped: it must never wait for us.</summary>
    private static async Task<string> KeepAsync(StreamReader from)
    {
        var kept = new StringBuilder();
        char[] some = new char[1024];
        try
        {
            for (int count; (count = await from.ReadAsync(some).ConfigureAwait(false)) > 0;)
            {
                _ = kept.Append(some, 0, count);
                if (kept.Length > 2 * SshWords.MostKept)
                {
                    _ = kept.Remove(0, kept.Length - SshWords.MostKept);
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or InvalidOperationException)
        {
            // It was ended.
        }
        return kept.ToString();
    }

    /// <summary>Room for several requests between this process and ssh, so that neither wakes the other for every few kilobytes.</summary>
    private static void Widen(Stream stream)
    {
        if (OperatingSystem.IsLinux() && stream is PipeStream pipe)
        {
            _ = Control(pipe.SafePipeHandle, SetPipeSize, PipeSize); // the system may not allow it; then it is slower
        }
    }

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int Control(SafeHandle descriptor, int command, int argument);

    private static void Kill(Process process)
    {
        try
        {
            process.Kill();
        }
        catch (Exception e) when (e is InvalidOperationException or Win32Exception or NotSupportedException)
        {
            // It has ended, or is gone.
        }
    }
}
