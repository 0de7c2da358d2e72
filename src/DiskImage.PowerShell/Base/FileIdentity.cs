namespace DiskImage.PowerShell;

/// <summary>Whether two paths mean the same file.</summary>
internal static class FileIdentity
{
    /// <summary>Compares paths as this system's file systems usually do.</summary>
    public static StringComparer Comparer
        => OperatingSystem.IsWindows() || OperatingSystem.IsMacOS() ? StringComparer.OrdinalIgnoreCase : StringComparer.Ordinal;

    /// <summary>True if both lead to the same file, by way of symbolic links too.</summary>
    public static bool Same(string path, string other) => Comparer.Equals(FinalPath(path), FinalPath(other));

    /// <summary>The path with the links at its end followed.</summary>
    public static string FinalPath(string path)
    {
        try
        {
            return File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? Path.GetFullPath(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            return path; // nothing there, or no path: then it is nobody's file
        }
    }
}
