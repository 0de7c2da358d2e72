using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>
/// Makes and removes files that an open image names, for disks that get or lose some as they change. Names pass the gate as recorded names
/// do.
/// </summary>
public interface ISiblingFiles
{
    /// <summary>Begins a new file; nobody sees it under its name before it is published. It is as readable as the image is.</summary>
    /// <param name="name">Its name, as it is to stand in the image.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>Null if the name is taken.</returns>
    /// <exception cref="DiskImageException">Refused by the gate; what the host says.</exception>
    ValueTask<PendingNode?> TryBeginAsync(string name, CancellationToken cancellationToken);

    /// <summary>Removes a file that is closed. Nothing happens if the name leads to another one by now, or to none.</summary>
    /// <param name="name">Its name, as it stood in the image.</param>
    /// <param name="identity">Which file it was.</param>
    /// <exception cref="DiskImageException">Refused by the gate; what the host says.</exception>
    ValueTask RemoveAsync(string name, NodeIdentity identity);
}
