using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Locking;

/// <summary>One opening of an image by some process, and what it says it does with it.</summary>
/// <param name="ProcessId">The process; null if the host hides it.</param>
/// <param name="ProcessName">What it is called; null as well.</param>
/// <param name="Access">What it says by QEMU's byte locks; null where it says nothing, or the host does not tell.</param>
/// <param name="IsWhole">It has locked the file as a whole too, as the runtime's file sharing does.</param>
public sealed record ImageHolder(int? ProcessId, string? ProcessName, Access? Access, bool IsWhole)
{
    /// <summary>It is this very process.</summary>
    public bool IsThisProcess => ProcessId == Environment.ProcessId;

    /// <summary>Who has a file open, as far as the host tells: on Linux those that have locked it, elsewhere all.</summary>
    /// <param name="path">The file's path.</param>
    public static IReadOnlyList<ImageHolder> Of(string path) => Of(path, except: null);

    /// <inheritdoc/>
    public override string ToString()
        => (ProcessId, ProcessName) switch
        {
            (null, _) => "a process that is not shown to you",
            (int own, _) when own == Environment.ProcessId => $"this process ({own})",
            (int id, null) => $"process {id}",
            (int id, string name) => $"{name} (process {id})",
        };

    internal static IReadOnlyList<ImageHolder> Of(string path, long? except)
        => [.. HostProcesses.Current.HoldersOf(path, except).Select(Of)];

    /// <summary>What the locked bytes of a file say.</summary>
    internal static ImageHolder Of(HostHolder holder)
    {
        Permissions needs = Permissions.None, refuses = Permissions.None;
        for (int n = 0; n < ImageLock.Count; n++)
        {
            needs |= IsLocked(ImageLock.UseBase + n) ? (Permissions)(1 << n) : Permissions.None;
            refuses |= IsLocked(ImageLock.DenyBase + n) ? (Permissions)(1 << n) : Permissions.None;
        }
        bool saysNothing = (needs | refuses) == Permissions.None;
        return new ImageHolder(
            holder.ProcessId, holder.Name, saysNothing ? null : new Access(needs, Permissions.All & ~refuses), holder.IsWhole);

        bool IsLocked(long offset) => holder.Ranges?.Any(r => r.Start <= offset && offset <= r.End) ?? false;
    }
}
