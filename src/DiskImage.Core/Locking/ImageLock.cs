using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Locking;

/// <summary>
/// Who may use an image file at the same time: told to, and heeded from, every program that keeps QEMU's convention of byte locks.
/// </summary>
/// <remarks>
/// <para>The convention. Byte 100 + n is locked by whoever makes use n of the file, byte 200 + n by whoever does not let others make it
/// (n: consistent read 0, write 1, write unchanged 2, resize 3). All locks are shared ones, so many can say the same; a look with an
/// exclusive lock, which is never taken, tells whether anybody else says it. One says first and looks then: of two that come at the same
/// time at least one sees the other.</para>
/// <para>The locks belong to the open file description: they end when it is closed, also by the death of the process, and a file that is
/// opened twice in one process meets itself. They say nothing of the bytes at these offsets. Source: the locks that QEMU 7.2 holds, as
/// /proc/locks shows them, and its documentation of locking=on.</para>
/// </remarks>
internal static class ImageLock
{
    private const long UseBase = 100, DenyBase = 200;
    private const int Count = 4;

    /// <summary>
    /// Claims an open file for as long as it is open. Where the file system has no such locks nothing is claimed: the host's own file
    /// sharing is all there is. Returns whether it has them.
    /// </summary>
    /// <exception cref="DiskImageException">Locked: what others do, or refuse, stands against the claim.</exception>
    public static bool Take(SafeFileHandle handle, string path, Access access)
    {
        HostFile host = HostFile.Current;
        for (int n = 0; n < Count; n++)
        {
            Permissions use = (Permissions)(1 << n);
            if (((access.Needs & use) != Permissions.None && !TryLock(UseBase + n))
                || ((access.Lets & use) == Permissions.None && !TryLock(DenyBase + n)))
            {
                return false;
            }
        }
        for (int n = 0; n < Count; n++)
        {
            Permissions use = (Permissions)(1 << n);
            if ((access.Needs & use) != Permissions.None && host.ProbeByte(handle, DenyBase + n) == ByteLockResult.Taken)
            {
                throw Conflict(path, access, $"does not let others {Verb(use)} it");
            }
            if ((access.Lets & use) == Permissions.None && host.ProbeByte(handle, UseBase + n) == ByteLockResult.Taken)
            {
                throw Conflict(path, access, $"may {Verb(use)} it");
            }
        }
        return true;

        bool TryLock(long offset) => host.LockByte(handle, offset) switch
        {
            ByteLockResult.Free => true,
            ByteLockResult.Unsupported => false,
            _ => throw Conflict(path, access, "has locked it as a whole"), // no program that keeps the convention does
        };
    }

    private static DiskImageException Conflict(string path, Access access, string what)
    {
        bool isWriting = access.Writes;
        string wanted = isWriting ? "changing it" : "reading it";
        Wording text = $"{path}: another program has the image open (a virtual machine or tool of QEMU, or another "
            + $"session) and {what}, which excludes {wanted}. "
            + $"Wait for it or stop it";
        return isWriting
            ? new DiskImageException(DiskImageErrorKind.Locked, $"{text}.", path)
            : new DiskImageException(
                DiskImageErrorKind.Locked,
                $"{text}, or read it all the same, as it changes, with {new Remedy(RemedyKind.ForceShare)}.",
                path);
    }

    private static string Verb(Permissions use) => use switch
    {
        Permissions.ConsistentRead => "read",
        Permissions.Resize => "resize",
        _ => "write to",
    };
}
