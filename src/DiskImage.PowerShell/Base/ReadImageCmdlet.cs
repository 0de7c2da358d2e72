using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that only reads the images it is given.</summary>
public abstract class ReadImageCmdlet : OpenImageCmdlet
{
    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

    /// <summary>The present state of an open image, or one that a snapshot in it keeps.</summary>
    /// <param name="image">The image, which stays the caller's.</param>
    /// <param name="snapshot">The snapshot's identifier or name; null for the present state.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Unsupported: the format keeps no snapshots. NotFound: there is none of that name.</exception>
    private protected static async Task<DiskState> OpenStateAsync(OpenedImage image, string? snapshot, CancellationToken cancellationToken)
        => snapshot is null
            ? new DiskState(image.Node, isSnapshot: false)
            : new DiskState(
                await image.Require<ISnapshots>("keep no snapshots").OpenSnapshotAsync(snapshot, cancellationToken).ConfigureAwait(false),
                isSnapshot: true);
}

/// <summary>A state of a disk, open for reading.</summary>
/// <param name="disk">The disk as it was then.</param>
/// <param name="isSnapshot">False for the present state, which its image closes.</param>
internal sealed class DiskState(BlockNode disk, bool isSnapshot) : IAsyncDisposable
{
    public BlockNode Disk { get; } = disk;

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => isSnapshot ? Disk.DisposeAsync() : ValueTask.CompletedTask;
}
