namespace DiskImage.Drivers;

/// <summary>The path that a <c>file:</c> URL names. Source: RFC 8089, with its appendices for drives and shares of Windows.</summary>
internal static class FileUrl
{
    private const string Prefix = "file:";

    /// <summary>
    /// The path, with the escapes undone and without query and fragment; null for what is no such URL, names nothing or has a NUL. A path on
    /// another host begins with <c>//host/</c>.
    /// </summary>
    /// <param name="url">The URL.</param>
    /// <param name="hasDrives">True to have a drive's path begin with the drive (<c>C:/…</c>), however the host is written.</param>
    public static string? ToPath(string url, bool hasDrives)
    {
        if (!url.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }
        string rest = url[Prefix.Length..].Split('?', '#')[0], host = "";
        if (rest.StartsWith("//", StringComparison.Ordinal))
        {
            int end = rest.IndexOf('/', 2);
            if (end < 0)
            {
                return null; // a host and no path
            }
            (host, rest) = (rest[2..end], rest[end..]);
        }
        string path = Uri.UnescapeDataString(rest);
        if (path.Length == 0 || path.Contains('\0', StringComparison.Ordinal))
        {
            return null;
        }
        bool isLocal = host.Length == 0 || host.Equals("localhost", StringComparison.OrdinalIgnoreCase);
        bool isOnDrive = hasDrives && path is ['/', _, ':' or '|', ..] && char.IsAsciiLetter(path[1]) && (path.Length == 3 || path[3] is '/' or '\\');
        return !isLocal ? $"//{host}{path}"
            : isOnDrive ? $"{path[1]}:{path[3..]}"
            : path;
    }
}
