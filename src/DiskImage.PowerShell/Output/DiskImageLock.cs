using DiskImage.Block;
using DiskImage.Locking;

namespace DiskImage.PowerShell;

/// <summary>One opening of an image by a process, and what it says it does with it.</summary>
public sealed class DiskImageLock
{
    /// <summary>The image's full path.</summary>
    public required string Path { get; init; }

    /// <summary>The process; null if it is not shown to this user.</summary>
    public int? ProcessId { get; init; }

    /// <summary>What the process is called; null as well.</summary>
    public string? ProcessName { get; init; }

    /// <summary>What it does: ConsistentRead, Write, WriteUnchanged, Resize. Empty if it does not say.</summary>
    public ReadableList<string> Uses { get; init; } = new([]);

    /// <summary>What it does not let others do, in the same words.</summary>
    public ReadableList<string> Refuses { get; init; } = new([]);

    /// <summary>It has locked the file as a whole too, as programs of .NET do.</summary>
    public bool IsWhole { get; init; }

    /// <inheritdoc/>
    public override string ToString()
        => Printable.Of($"{ProcessName ?? "process"} {ProcessId}: {(Uses.Count == 0 ? "has it open" : string.Join(", ", Uses))}");

    internal static DiskImageLock Of(string path, ImageHolder holder) => new()
    {
        Path = path,
        ProcessId = holder.ProcessId,
        ProcessName = holder.ProcessName,
        Uses = Names(holder.Access?.Needs ?? Permissions.None),
        Refuses = Names(holder.Access is { } access ? Permissions.All & ~access.Lets : Permissions.None),
        IsWhole = holder.IsWhole,
    };

    private static ReadableList<string> Names(Permissions permissions) => new(
    [
        .. new[] { Permissions.ConsistentRead, Permissions.Write, Permissions.WriteUnchanged, Permissions.Resize }
            .Where(p => (permissions & p) != Permissions.None).Select(p => p.ToString()),
    ]);
}
