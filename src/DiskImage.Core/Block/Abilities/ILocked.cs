namespace DiskImage.Block;

/// <summary>
/// A claim of bytes that outlives the node it was made with, so that they are not free for a moment between two openings. It keeps others
/// from writing, as reading does. The next opening of the same bytes for writing takes it over; disposing of it gives it up.
/// </summary>
public interface IKeptLock : IDisposable
{
    /// <summary>Which bytes.</summary>
    NodeIdentity Identity { get; }
}

/// <summary>A node whose use of its bytes is told to others, who heed it.</summary>
public interface ILocked
{
    /// <summary>Claims the bytes beyond the node's own closing; null where there are no locks for that, or none was taken.</summary>
    IKeptLock? KeepLock();
}

/// <summary>Claims of whole images.</summary>
public static class KeptLocks
{
    /// <summary>Claims the file that holds a disk's own layer, beyond the disk's closing; null where that is not to be had.</summary>
    public static IKeptLock? KeepLock(this BlockNode disk)
    {
        for (BlockNode? node = disk; node is not null; node = node.Child("file"))
        {
            if (node.As<ILocked>() is { } locked)
            {
                return locked.KeepLock();
            }
        }
        return null;
    }
}
