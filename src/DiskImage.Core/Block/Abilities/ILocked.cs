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

/// <summary>Claims of images that are closed and opened again; given up when this is disposed of.</summary>
public sealed class KeptLocks : IDisposable
{
    private readonly List<IKeptLock> _locks = [];

    /// <summary>The claims, one for each file.</summary>
    public IReadOnlyList<IKeptLock> Locks => _locks;

    /// <summary>Claims the file that holds a disk's own layer, beyond the disk's closing, where that is to be had.</summary>
    public void Keep(BlockNode disk)
    {
        for (BlockNode? node = disk; node is not null; node = node.Child("file"))
        {
            if (node.As<ILocked>() is { } locked)
            {
                Add(locked.KeepLock());
                return;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _locks.ForEach(k => k.Dispose());

    private void Add(IKeptLock? kept)
    {
        if (kept is not null)
        {
            _locks.FindAll(k => k.Identity == kept.Identity).ForEach(k => k.Dispose()); // taken over since, or the same twice
            _ = _locks.RemoveAll(k => k.Identity == kept.Identity);
            _locks.Add(kept);
        }
    }
}
