using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Locking;

/// <summary>The claim of a reader on a file, held by an opening of its own.</summary>
internal sealed class FileLock : IKeptLock
{
    private readonly SafeFileHandle _handle;

    private FileLock(SafeFileHandle handle, NodeIdentity identity) => (_handle, Identity) = (handle, identity);

    public NodeIdentity Identity { get; }

    /// <summary>
    /// Claims a file that this process has claimed already, at least for reading: nobody is asked. Null if it is another file by now, or
    /// cannot be opened: then the next opening finds out.
    /// </summary>
    public static FileLock? Of(string path, NodeIdentity identity)
    {
        SafeFileHandle handle;
        try
        {
            handle = HostFile.Current.Open(path, writable: false, HostSharing.Everybody);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
        if (HostNames.Current.IdentityOf(handle) == identity && ImageLock.Say(handle, path, Access.Reading))
        {
            return new FileLock(handle, identity);
        }
        HostFile.Current.Close(handle);
        return null;
    }

    public void Dispose() => HostFile.Current.Close(_handle);
}
