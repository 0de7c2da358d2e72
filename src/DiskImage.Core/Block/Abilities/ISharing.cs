namespace DiskImage.Block;

/// <summary>Bytes that may have their storage in common with those of another node.</summary>
public interface ISharing
{
    /// <summary>Bytes that are shared together, at least: the blocks of file systems.</summary>
    const int Unit = 4096;

    /// <summary>
    /// True if taking over bytes from another node without moving them is worth trying: both are files of one kind of file system that can.
    /// </summary>
    bool MayShareWith(ISharing other);
}
