namespace DiskImage.Formats;

/// <summary>
/// Paths as Windows writes them, which VHD and VHDX keep in their parent locators whatever system the image is on.
/// </summary>
internal static class WindowsPath
{
    private const string LongPrefix = @"\\?\", LongSharePrefix = @"\\?\UNC\", VolumePrefix = @"\\?\Volume{";

    /// <summary>
    /// What to open here for a path that stands in an image: without the prefix of long paths, which hides that two names are one, and with
    /// this system's separators, so that relative paths lead where they should.
    /// </summary>
    public static string ToLocal(string path) => ToLocal(path, OperatingSystem.IsWindows());

    internal static string ToLocal(string path, bool isWindows)
    {
        string plain = path.StartsWith(LongSharePrefix, StringComparison.OrdinalIgnoreCase) ? @"\\" + path[LongSharePrefix.Length..]
            : path.StartsWith(LongPrefix, StringComparison.Ordinal) && !path.StartsWith(VolumePrefix, StringComparison.OrdinalIgnoreCase)
                ? path[LongPrefix.Length..]
                : path;
        return Shown(isWindows ? plain : plain.Replace('\\', '/'));
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

    /// <summary>A relative name as it is shown to users: without the dot before it.</summary>
    public static string Shown(string name)
        => name.StartsWith("./", StringComparison.Ordinal) || name.StartsWith(@".\", StringComparison.Ordinal) ? name[2..] : name;

    /// <summary>The last part of a path, whichever separators it has.</summary>
    public static string FileName(string path) => path[(path.AsSpan().LastIndexOfAny('\\', '/') + 1)..];

    /// <summary>A path from a drive or a share, with backslashes and without the prefix of long paths; null if it is none.</summary>
    public static string? Full(string path)
    {
        string plain = path.StartsWith(LongSharePrefix, StringComparison.OrdinalIgnoreCase) ? @"\\" + path[LongSharePrefix.Length..]
            : path.StartsWith(LongPrefix, StringComparison.Ordinal) ? path[LongPrefix.Length..]
            : path;
        bool isFull = plain.StartsWith(@"\\", StringComparison.Ordinal)
            || (plain is [_, ':', '\\' or '/', ..] && char.IsAsciiLetter(plain[0]));
        return isFull ? plain.Replace('/', '\\') : null;
    }

    /// <summary>A path of <see cref="Full"/> with the prefix of long paths.</summary>
    public static string Long(string fullPath)
        => fullPath.StartsWith(@"\\", StringComparison.Ordinal) ? LongSharePrefix + fullPath[2..] : LongPrefix + fullPath;

    /// <summary>
    /// The file to open here for a path that stands in an image: never a URI or another locator, whatever the path looks like. Null if it
    /// is one of another system's drives or shares.
    /// </summary>
    public static string? ToLocalFile(string path)
    {
        if (path.Length == 0)
        {
            return null;
        }
        if (OperatingSystem.IsWindows())
        {
            string plain = ToLocal(path, isWindows: true);
            return Path.IsPathRooted(plain) ? plain : @".\" + plain;
        }
        if (Full(path) is not null)
        {
            return null;
        }
        string local = path.Replace('\\', '/');
        while (local.StartsWith("./", StringComparison.Ordinal))
        {
            local = local[2..].TrimStart('/');
        }
        return local.Length == 0 ? null : local[0] == '/' ? local : "./" + local;
    }
}
