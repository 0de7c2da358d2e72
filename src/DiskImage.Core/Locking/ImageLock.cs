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
    internal const long UseBase = 100, DenyBase = 200;
    internal const int Count = 4;
    private const int MostNames = 5; // in a message. Ours

    /// <summary>
    /// Claims an open file for as long as it is open. What this process kept of it from an earlier opening is given up when the claim is
    /// said, and before it is looked whether anybody stands against it: so it is never free, and does not stand in its own way. Where the
    /// file system has no such locks nothing is claimed: the host's own file sharing is all there is.
    /// </summary>
    /// <exception cref="DiskImageException">Locked: what others do, or refuse, stands against the claim.</exception>
    public static LockStrength Take(SafeFileHandle handle, string path, Access access, IKeptLock? kept = null)
    {
        HostFile host = HostFile.Current;
        if (!Say(handle, path, access))
        {
            return LockStrength.None;
        }
        kept?.Dispose();
        for (int n = 0; n < Count; n++)
        {
            Permissions use = (Permissions)(1 << n);
            if ((access.Needs & use) != Permissions.None && host.ProbeByte(handle, DenyBase + n) == ByteLockResult.Taken)
            {
                throw Conflict(
                    handle, path, access, $"does not let others {Verb(use)} it", a => (a.Lets & use) == Permissions.None);
            }
            if ((access.Lets & use) == Permissions.None && host.ProbeByte(handle, UseBase + n) == ByteLockResult.Taken)
            {
                throw Conflict(handle, path, access, $"may {Verb(use)} it", a => (a.Needs & use) != Permissions.None);
            }
        }
        return host.LocksEndWithAnyClose ? LockStrength.UntilAnyClose : LockStrength.OpenFile;
    }

    /// <summary>Says what is done with an open file, and does not look who stands against it. False if there are no such locks.</summary>
    /// <exception cref="DiskImageException">Locked: by a program that does not keep the convention.</exception>
    public static bool Say(SafeFileHandle handle, string path, Access access)
    {
        for (int n = 0; n < Count; n++)
        {
            Permissions use = (Permissions)(1 << n);
            if (((access.Needs & use) != Permissions.None && !TryLock(UseBase + n))
                || ((access.Lets & use) == Permissions.None && !TryLock(DenyBase + n)))
            {
                return false;
            }
        }
        return true;

        bool TryLock(long offset) => HostFile.Current.LockByte(handle, offset) switch
        {
            ByteLockResult.Free => true,
            ByteLockResult.Unsupported => false,
            // no program that keeps the convention does
            _ => throw Conflict(handle, path, access, "has locked it as a whole", _ => true),
        };
    }

    /// <summary>
    /// Who has a file open, for a message: all of them, or those whose use of it stands in the way. Empty if nobody knows.
    /// </summary>
    public static string Names(string path, long? except, Func<Access, bool>? stands)
    {
        IReadOnlyList<ImageHolder> holders = ImageHolder.Of(path, except);
        ImageHolder[] blamed = [.. holders.Where(h => stands is null || h.Access is not { } access || stands(access))];
        return string.Join(", ", (blamed.Length > 0 ? blamed : holders).Select(h => h.ToString()).Distinct(StringComparer.Ordinal)
            .Take(MostNames));
    }

    private static DiskImageException Conflict(
        SafeFileHandle handle, string path, Access access, string what, Func<Access, bool> stands)
    {
        bool isWriting = access.Writes;
        string wanted = isWriting ? "changing it" : "reading it";
        string names = Names(path, handle.DangerousGetHandle(), stands);
        string who = names.Length > 0
            ? $"{names} has the image open"
            : "another program has the image open (a virtual machine or tool of QEMU, or another session)";
        Wording text = $"{path}: {who} and {what}, which excludes {wanted}. Wait for it or stop it";
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

/// <summary>How a claim of a file is held.</summary>
internal enum LockStrength
{
    /// <summary>Not at all: the file system or host has no such locks.</summary>
    None,

    /// <summary>By the open file, until it is closed.</summary>
    OpenFile,

    /// <summary>By the process, and lost as soon as it closes any opening of the file.</summary>
    UntilAnyClose,
}
