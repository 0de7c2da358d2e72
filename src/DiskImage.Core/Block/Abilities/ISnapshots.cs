namespace DiskImage.Block;

/// <summary>A disk that keeps snapshots inside its image.</summary>
public interface ISnapshots
{
    /// <summary>The snapshots, oldest first.</summary>
    ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken);

    /// <summary>Keeps the present state. A name may occur more than once, as in QEMU.</summary>
    ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken);

    /// <summary>Goes back to a snapshot, found by id, else by name; what was written since is lost. The snapshot stays.</summary>
    ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken);

    /// <summary>Removes a snapshot, found by name, else by id; the first of several with that name.</summary>
    ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken);

    /// <summary>Removes the snapshot that has this id and this name.</summary>
    ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken);

    /// <summary>
    /// A read-only disk that shows a snapshot, found by id, else by name. It borrows this disk, which must stay open and must not be
    /// written to.
    /// </summary>
    ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken);
}

/// <summary>A state of a disk that was kept.</summary>
public sealed record DiskSnapshot
{
    /// <summary>The identifier, unique in the image.</summary>
    public required string Id { get; init; }

    /// <summary>The name, which need not be unique.</summary>
    public required string Name { get; init; }

    /// <summary>Bytes of virtual machine state kept with it.</summary>
    public long VmStateSize { get; init; }

    /// <summary>When it was taken.</summary>
    public DateTimeOffset Date { get; init; }

    /// <summary>How long the virtual machine had run.</summary>
    public TimeSpan VmClock { get; init; }

    /// <summary>Instructions the virtual machine had executed; null if not recorded.</summary>
    public long? ICount { get; init; }

    /// <summary>The virtual size when it was taken.</summary>
    public long VirtualSize { get; init; }
}
