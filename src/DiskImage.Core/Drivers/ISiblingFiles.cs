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

    /// <summary>
    /// Gives a file that is closed other contents in one step: they are written whole under a temporary name, flushed, and renamed,
    /// durably, with the file's owner, access rights and links. A crash at any point leaves the old contents or the new ones.
    /// </summary>
    /// <param name="name">Its name, as it stands in the image, or its full path.</param>
    /// <param name="identity">Which file it is; null where that is not known.</param>
    /// <param name="contents">What it is to hold.</param>
    /// <exception cref="DiskImageException">
    /// Refused by the gate; Locked: somebody has it open; AlreadyExists: another file has its name by now; what the host says.
    /// </exception>
    ValueTask ReplaceAsync(string name, NodeIdentity? identity, ReadOnlyMemory<byte> contents);

    /// <summary>Removes a file that is closed. Nothing happens if the name leads to another one by now, or to none.</summary>
    /// <param name="name">Its name, as it stood in the image.</param>
    /// <param name="identity">Which file it was.</param>
    /// <exception cref="DiskImageException">Refused by the gate; what the host says.</exception>
    ValueTask RemoveAsync(string name, NodeIdentity identity);
}
