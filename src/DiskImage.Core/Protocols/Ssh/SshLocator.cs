using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>From URIs to options.</summary>
internal static class SshLocator
{
    private const string Home = "/~/", KeyCheck = "host_key_check";

    /// <summary>The options that a URI stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        if (!Uri.TryCreate(locator, UriKind.Absolute, out Uri? uri) || !uri.Scheme.Equals("ssh", StringComparison.OrdinalIgnoreCase)
            || uri.Host.Length == 0)
        {
            throw Wrong(locator, "names no server");
        }
        if (uri.UserInfo.Contains(':', StringComparison.Ordinal))
        {
            throw new DiskImageException( // which is not repeated
                DiskImageErrorKind.InvalidOption, $"ssh://{uri.Host}: a URL is no place for a password. Give it as a credential.");
        }
        if (uri.Fragment.Length > 0)
        {
            throw Wrong(locator, "has a '#', which in a path is written %23");
        }
        string path = Uri.UnescapeDataString(uri.AbsolutePath);
        var options = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["server.host"] = uri.Host.Trim('[', ']'),
            ["path"] = path.StartsWith(Home, StringComparison.Ordinal) ? path[Home.Length..] : path,
        };
        if (path.EndsWith('/'))
        {
            throw Wrong(locator, "names no file");
        }
        if (uri.UserInfo.Length > 0)
        {
            options["user"] = Uri.UnescapeDataString(uri.UserInfo);
        }
        if (uri.Port >= 0)
        {
            options["server.port"] = (long)uri.Port;
        }
        foreach (string part in uri.Query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = part.Split('=', 2);
            string option = pair[0] is KeyCheck ? KeyCheck : throw Wrong(locator, $"has the query '{pair[0]}'; known: {KeyCheck}");
            options[option] = Uri.UnescapeDataString(pair[^1]);
        }
        return options;
    }

    private static DiskImageException Wrong(string locator, string what) => new(
        DiskImageErrorKind.InvalidOption,
        $"'{locator}' {what}. A file of an SSH server is ssh://user@host:port/path, user and port as needed, or ssh://host/~/path from "
            + "the folder where one logs in.");
}
