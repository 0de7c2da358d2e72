using DiskImage.Block;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Platform;

/// <summary>What bears a name.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Identity">Which one it is.</param>
/// <param name="Names">How many names (hard links) it has.</param>
/// <param name="IsProtected">It is marked as not to be changed: read-only for everybody, immutable, append-only.</param>
internal sealed record HostEntry(HostFileKind Kind, NodeIdentity Identity, int Names, bool IsProtected);

/// <summary>
/// What the host can do with the names of files, and with what belongs to a file besides its bytes. One implementation per operating
/// system. Errors are the runtime's own: IOException and UnauthorizedAccessException.
/// </summary>
internal abstract class HostNames
{
    /// <summary>The implementation for this machine.</summary>
    public static HostNames Current { get; } =
        OperatingSystem.IsWindows() ? new WindowsNames()
        : OperatingSystem.IsMacOS() ? new MacNames()
        : new LinuxNames();

    /// <summary>What a path leads to, symbolic links followed; null for nothing.</summary>
    public abstract HostEntry? Find(string path);

    /// <summary>Which file is open.</summary>
    public abstract NodeIdentity? IdentityOf(SafeFileHandle handle);

    /// <summary>A full path with its symbolic links resolved, the last one too, whether or not it leads to something.</summary>
    /// <exception cref="IOException">A folder is missing; the links go round in circles.</exception>
    public abstract string Resolve(string path);

    /// <summary>
    /// Makes a new file, open for itself alone, that is owned, protected and marked as another one is: never more readable than that.
    /// </summary>
    /// <exception cref="UnauthorizedAccessException">The folder may not be written to, or the attributes may not be given.</exception>
    public abstract SafeFileHandle CreateLike(string path, string model);

    /// <summary>Renames, unless the new name is taken: then false.</summary>
    public abstract bool TryRename(string path, string newPath);

    /// <summary>
    /// Gives a file another name, by which it is there when the first one is given to another: as well as the first one, or instead of it
    /// where a file has one name only.
    /// </summary>
    public void Keep(string path, string otherName)
    {
        if (!TryLink(path, otherName))
        {
            File.Move(path, otherName, overwrite: false);
        }
    }

    /// <summary>Renames, replacing the file that bears the new name in one step.</summary>
    public static void Replace(string path, string newPath) => File.Move(path, newPath, overwrite: true);

    /// <summary>Gives a file a second name (a hard link); false where that cannot be.</summary>
    public abstract bool TryLink(string path, string otherName);

    /// <summary>
    /// When this returns, what was renamed in a folder stays so after a power cut. Does nothing where the host sees to it by itself.
    /// </summary>
    public virtual void FlushFolder(string folder)
    {
    }
}
