using System.Diagnostics;
using System.Runtime.InteropServices;

namespace DiskImage.Platform;

/// <summary>What a program can do to itself.</summary>
public static partial class OwnProcess
{
    /// <summary>
    /// Sends this process a signal, as raise(3) does; nothing happens for a number that is none. On Windows, which has no signals, the
    /// process ends.
    /// </summary>
    public static void Raise(int signal)
    {
        if (OperatingSystem.IsWindows())
        {
            using Process own = Process.GetCurrentProcess();
            own.Kill();
            return;
        }
        _ = Kill(Environment.ProcessId, signal);
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int Kill(int process, int signal);
}
