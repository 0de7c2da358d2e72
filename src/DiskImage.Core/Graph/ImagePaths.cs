namespace DiskImage.Graph;

/// <summary>Where paths lie in relation to each other, as this system's file systems see it.</summary>
internal static class ImagePaths
{
    private const int MostLinks = 40; // as Linux has it

    private const string LongPrefix = @"\\?\", LongSharePrefix = @"\\?\UNC\", VolumePrefix = @"\\?\Volume{";

    /// <summary>Compares full paths. Windows ignores case; elsewhere a name in another case may be another file.</summary>
    public static StringComparer Comparer => StringComparer.FromComparison(Comparison(OperatingSystem.IsWindows()));

    /// <summary>
    /// True for a full path in a folder or below it, symbolic links on the way followed. How the folder itself is reached does not matter.
    /// </summary>
    public static bool IsBelow(string path, string folder)
        => WithoutLinks(folder) is { } real && WithoutLinks(path) is { } target && IsBelow(target, real, OperatingSystem.IsWindows());

    /// <summary>The same by the names alone.</summary>
    internal static bool IsBelow(string path, string folder, bool isWindows)
    {
        if (isWindows)
        {
            (path, folder) = (Plain(path), Plain(folder));
        }
        char separator = isWindows ? '\\' : '/';
        string start = folder.EndsWith(separator) ? folder : folder + separator;
        return path.Length > start.Length && path.StartsWith(start, Comparison(isWindows));
    }

    /// <summary>True for a full Windows path on a drive or volume of this machine, or on the share that the folder is on.</summary>
    internal static bool IsNear(string path, string folder)
    {
        if (path.StartsWith(VolumePrefix, StringComparison.OrdinalIgnoreCase))
        {
            return true;
        }
        path = Plain(path);
        return path is [_, ':', '\\', ..]
            || (Share(path) is { } share && share.Equals(Share(Plain(folder)), StringComparison.OrdinalIgnoreCase));
    }

    /// <summary>A Windows path with backslashes and without the prefix of long paths.</summary>
    private static string Plain(string path)
    {
        path = path.Replace('/', '\\');
        return path.StartsWith(LongSharePrefix, StringComparison.OrdinalIgnoreCase) ? @"\\" + path[LongSharePrefix.Length..]
            : path.StartsWith(LongPrefix, StringComparison.Ordinal) && path.Length > LongPrefix.Length + 2
            && path[LongPrefix.Length + 1] == ':' ? path[LongPrefix.Length..]
            : path;
    }

    /// <summary>The machine and share of <c>\\machine\share\…</c>; null for other paths, <c>\\.\</c> and <c>\\?\</c> among them.</summary>
    private static string? Share(string path)
    {
        string[] parts = path.StartsWith(@"\\", StringComparison.Ordinal) ? path[2..].Split('\\') : [];
        return parts.Length < 2 || parts[0] is "" or "." or "?" ? null : $@"{parts[0]}\{parts[1]}";
    }

    /// <summary>A full path with every symbolic link in it followed, as far as it exists; null if there are too many.</summary>
    private static string? WithoutLinks(string path)
    {
        string real = Path.GetPathRoot(path) ?? "";
        var parts = new Stack<string>(PartsOf(path));
        for (int links = 0; parts.TryPop(out string? part);)
        {
            string next = Path.Combine(real, part);
            if (LinkTarget(next) is not { } target)
            {
                real = next;
                continue;
            }
            if (++links > MostLinks)
            {
                return null;
            }
            string full = Path.GetFullPath(target, real);
            real = Path.GetPathRoot(full) ?? "";
            foreach (string further in PartsOf(full))
            {
                parts.Push(further);
            }
        }
        return real;

        static IEnumerable<string> PartsOf(string path)
            => path[(Path.GetPathRoot(path)?.Length ?? 0)..]
                .Split([Path.DirectorySeparatorChar, Path.AltDirectorySeparatorChar], StringSplitOptions.RemoveEmptyEntries).Reverse();
    }

    private static string? LinkTarget(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null; // what cannot be looked at cannot be opened either
        }
    }

    private static StringComparison Comparison(bool isWindows) => isWindows ? StringComparison.OrdinalIgnoreCase : StringComparison.Ordinal;
}
