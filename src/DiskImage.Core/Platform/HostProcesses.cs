namespace DiskImage.Platform;

/// <summary>Bytes of a file that a process has locked.</summary>
/// <param name="Start">The first of them.</param>
/// <param name="End">The last; <see cref="long.MaxValue"/> for all that follow.</param>
internal readonly record struct HostLockedRange(long Start, long End);

/// <summary>A process that has a file open, and locked where the host tells.</summary>
/// <param name="ProcessId">Its number; null if the host hides it (another user's, another container's).</param>
/// <param name="Name">What it is called; null as well.</param>
/// <param name="Ranges">The bytes that this opening has locked; null where the host does not tell.</param>
/// <param name="IsWhole">It has locked the file as a whole, as the runtime's file sharing does.</param>
internal sealed record HostHolder(int? ProcessId, string? Name, IReadOnlyList<HostLockedRange>? Ranges, bool IsWhole);

/// <summary>Who has a file open or locked. One implementation per operating system; what a host hides is left out.</summary>
internal abstract class HostProcesses
{
    /// <summary>The implementation for this machine.</summary>
    public static HostProcesses Current { get; } =
        OperatingSystem.IsWindows() ? new WindowsProcesses(new RestartManager())
        : OperatingSystem.IsMacOS() ? new MacProcesses()
        : new LinuxProcesses("/proc", HostNames.Current.Find);

    /// <summary>The holders of a file, one for each opening. Never throws: who asks is telling of a failure already.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="except">A descriptor of this process that does not count: the one by which it is asked.</param>
    public abstract IReadOnlyList<HostHolder> HoldersOf(string path, long? except = null);
}
