using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>A state of a disk, open for reading: the present one, or one that a snapshot keeps. The image stays the caller's.</summary>
public sealed class DiskState : IAsyncDisposable
{
    private readonly bool _isSnapshot; // the present state is closed by its image

    private DiskState(BlockNode disk, bool isSnapshot) => (Disk, _isSnapshot) = (disk, isSnapshot);

    /// <summary>The disk as it was then.</summary>
    public BlockNode Disk { get; }

    /// <summary>Opens the present state of an open image, or one that a snapshot in it keeps.</summary>
    /// <param name="image">The image.</param>
    /// <param name="snapshot">The snapshot's identifier or name; null for the present state.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Unsupported: the format keeps no snapshots. NotFound: there is none of that name.</exception>
    public static async Task<DiskState> OpenAsync(OpenedImage image, string? snapshot, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(image);
        return snapshot is null
            ? new DiskState(image.Node, isSnapshot: false)
            : new DiskState(
                await image.Require<ISnapshots>("keep no snapshots").OpenSnapshotAsync(snapshot, cancellationToken).ConfigureAwait(false),
                isSnapshot: true);
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => _isSnapshot ? Disk.DisposeAsync() : ValueTask.CompletedTask;
}
