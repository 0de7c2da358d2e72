namespace DiskImage.Formats;

/// <summary>
/// Paths as Windows writes them, which VHD and VHDX keep in their parent locators whatever system the image is on.
/// </summary>
internal static class WindowsPath
{
    private const string LongPrefix = @"\\?\", LongSharePrefix = @"\\?\UNC\", VolumePrefix = @"\\?\Volume{";

    /// <summary>
    /// What to open here for a path that stands in an image: unchanged on Windows; elsewhere without the prefix of long paths and
    /// with this system's separators, so that relative paths lead where they should.
    /// </summary>
    public static string ToLocal(string path) => ToLocal(path, OperatingSystem.IsWindows());

    internal static string ToLocal(string path, bool isWindows)
    {
        if (isWindows)
        {
            return path;
        }
        string plain = path.StartsWith(LongSharePrefix, StringComparison.OrdinalIgnoreCase) ? @"\\" + path[LongSharePrefix.Length..]
            : path.StartsWith(LongPrefix, StringComparison.Ordinal) && !path.StartsWith(VolumePrefix, StringComparison.OrdinalIgnoreCase)
                ? path[LongPrefix.Length..]
                : path;
        string local = plain.Replace('\\', '/');
        return local.StartsWith("./", StringComparison.Ordinal) ? local[2..] : local;
    }

    /// <summary>
    /// The way from a folder to a file, with backslashes, beginning with <c>.\</c> or <c>..\</c> as Windows writes it. Null if there
    /// is none (another drive) or if it cannot be written that way (a backslash in a name).
    /// </summary>
    public static string? Relative(string folder, string fullPath)
    {
        string relative = Path.GetRelativePath(folder, fullPath);
        if (Path.IsPathRooted(relative) || (Path.DirectorySeparatorChar != '\\' && relative.Contains('\\', StringComparison.Ordinal)))
        {
            return null;
        }
        relative = relative.Replace(Path.DirectorySeparatorChar, '\\');
        return relative.StartsWith(@"..\", StringComparison.Ordinal) ? relative : @".\" + relative;
    }

    /// <summary>The last part of a path, whichever separators it has.</summary>
    public static string FileName(string path) => path[(path.AsSpan().LastIndexOfAny('\\', '/') + 1)..];

    /// <summary>A full path with the prefix of long paths; null if it is not a Windows path.</summary>
    public static string? Absolute(string fullPath)
    {
        if (fullPath.StartsWith(LongPrefix, StringComparison.Ordinal))
        {
            return fullPath;
        }
        if (fullPath.StartsWith(@"\\", StringComparison.Ordinal))
        {
            return LongSharePrefix + fullPath[2..];
        }
        return fullPath is [_, ':', '\\' or '/', ..] && char.IsAsciiLetter(fullPath[0]) ? LongPrefix + fullPath.Replace('/', '\\') : null;
    }
}
