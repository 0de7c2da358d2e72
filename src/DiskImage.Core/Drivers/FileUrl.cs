namespace DiskImage.Drivers;

/// <summary>The path that a <c>file:</c> URL names. Source: RFC 8089, with its appendices for drives and shares of Windows.</summary>
internal static class FileUrl
{
    private const string Prefix = "file:";

    /// <summary>
    /// The path, with the escapes undone and without query and fragment; null for what is no such URL, names nothing or has a NUL. A path
    /// on another host begins with <c>//host/</c>.
    /// </summary>
    /// <param name="url">The URL.</param>
    /// <param name="hasDrives">True to have a drive's path begin with the drive (<c>C:/…</c>), however the host is written.</param>
    public static string? ToPath(string url, bool hasDrives)
    {
        if (!url.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }
        (string host, string rest) = Split(url);
        string path = Uri.UnescapeDataString(rest);
        if (path.Length == 0 || path.Contains('\0', StringComparison.Ordinal))
        {
            return null;
        }
        bool isOnDrive = hasDrives && path is ['/', _, ':' or '|', ..] && char.IsAsciiLetter(path[1])
            && (path.Length == 3 || path[3] is '/' or '\\');
        return !IsThisHost(host) ? $"//{host}{path}"
            : isOnDrive ? $"{path[1]}:{path[3..]}"
            : path;
    }

    /// <summary>The other host whose file a URL names; null for a file of this one, and for what is no such URL.</summary>
    public static string? OtherHost(string url)
        => url.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase) && Split(url) is { Host: var host, Path.Length: > 0 }
            && !IsThisHost(host) ? host : null;

    private static bool IsThisHost(string host) => host.Length == 0 || host.Equals("localhost", StringComparison.OrdinalIgnoreCase);

    /// <summary>The host and the path of a URL, escapes kept, without query and fragment. A host and no path: both are empty.</summary>
    private static (string Host, string Path) Split(string url)
    {
        string rest = url[Prefix.Length..].Split('?', '#')[0];
        if (!rest.StartsWith("//", StringComparison.Ordinal))
        {
            return ("", rest);
        }
        int end = rest.IndexOf('/', 2);
        return end < 0 ? ("", "") : (rest[2..end], rest[end..]);
    }
}
