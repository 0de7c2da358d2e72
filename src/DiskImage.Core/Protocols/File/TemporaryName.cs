using DiskImage.Drivers;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>What earlier runs left of files that were being made, by their names (<see cref="IncompleteName"/>).</summary>
internal static class TemporaryName
{
    /// <summary>
    /// Removes what runs that were killed left of a file. What is empty may have been made this moment, and what is locked is in use: both
    /// stay. What cannot be removed stays as well.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="name">The name that the file was to have.</param>
    public static void RemoveLeftovers(string folder, string name)
    {
        string prefix = IncompleteName.PrefixOf(name);
        try
        {
            foreach (string path in Directory.EnumerateFiles(
                folder, $"{prefix}*{IncompleteName.Suffix}").Where(p => IncompleteName.IsOf(Path.GetFileName(p), prefix)).ToList())
            {
                var file = new FileInfo(path);
                if (file.LinkTarget is null && file.Length > 0)
                {
                    // Alone, or it is refused; the file is gone before the lock is.
                    HostIO.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None, FileOptions.DeleteOnClose).Dispose();
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // In use, or somebody else's.
        }
    }

    /// <summary>True if a run that was killed left something of a file.</summary>
    public static bool HasLeftovers(string path)
    {
        try
        {
            string prefix = IncompleteName.PrefixOf(Path.GetFileName(path));
            return Directory.EnumerateFiles(Path.GetDirectoryName(path)!, $"{prefix}*{IncompleteName.Suffix}")
                .Any(p => IncompleteName.IsOf(Path.GetFileName(p), prefix));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }
}
