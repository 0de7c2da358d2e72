using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>
/// From texts to options, as QEMU has them: <c>sheepdog[+tcp|+unix]://[host[:port]]/vdi[?socket=PATH][#snapshot]</c>, and the older
/// <c>sheepdog:[host:port:]vdi[:snapshot]</c>. A snapshot is a number or a tag.
/// </summary>
internal static class SheepLocator
{
    /// <summary>The schemes, the plain one first.</summary>
    public static readonly string[] Schemes = ["sheepdog", "sheepdog+tcp", "sheepdog+unix"];

    /// <summary>The options that a text stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none of these.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        int end = locator.IndexOf("://", StringComparison.Ordinal);
        return end < 0 ? ParseOld(locator) : ParseUri(locator, locator[..end].ToLowerInvariant(), locator[(end + 3)..]);
    }

    private static Dictionary<string, object?> ParseUri(string locator, string scheme, string rest)
    {
        bool isUnix = scheme.Equals(Schemes[2], StringComparison.Ordinal);
        var options = new Dictionary<string, object?>(StringComparer.Ordinal) { ["server.type"] = isUnix ? "unix" : "inet" };
        string[] parts = rest.Split('#', 2);
        if (parts.Length == 2)
        {
            AddSnapshot(locator, Uri.UnescapeDataString(parts[1]), options);
        }
        string[] place = parts[0].Split('?', 2);
        int slash = place[0].IndexOf('/', StringComparison.Ordinal);
        if (!Schemes.Contains(scheme, StringComparer.Ordinal) || slash < 0 || slash == place[0].Length - 1)
        {
            throw Wrong(locator, "names no VDI");
        }
        options["vdi"] = Uri.UnescapeDataString(place[0][(slash + 1)..]);
        foreach (string part in (place.Length == 2 ? place[1] : "").Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = part.Split('=', 2);
            options["server.path"] = isUnix && pair is ["socket", { Length: > 0 } path] ? Uri.UnescapeDataString(path)
                : throw Wrong(locator, $"has the query '{part}'; known: socket=PATH, of sheepdog+unix");
        }
        if (isUnix)
        {
            return slash == 0 && options.ContainsKey("server.path") ? options
                : throw Wrong(locator, "names no socket, or a host besides");
        }
        AddServer(locator, place[0][..slash], options);
        return options;
    }

    private static Dictionary<string, object?> ParseOld(string locator)
    {
        string[] parts = locator.Split(':');
        var options = new Dictionary<string, object?>(StringComparer.Ordinal) { ["server.type"] = "inet" };
        if (parts.Length is < 2 or > 5 || !parts[0].Equals(Schemes[0], StringComparison.OrdinalIgnoreCase))
        {
            throw Wrong(locator, "has too many parts");
        }
        string[] vdi = parts[(parts.Length >= 4 ? 3 : 1)..];
        if (parts.Length >= 4)
        {
            AddServer(locator, $"{parts[1]}:{parts[2]}", options);
        }
        options["vdi"] = vdi[0].Length > 0 ? vdi[0] : throw Wrong(locator, "names no VDI");
        if (vdi.Length == 2)
        {
            AddSnapshot(locator, vdi[1], options);
        }
        return options;
    }

    private static void AddServer(string locator, string server, Dictionary<string, object?> options)
    {
        int colon = server.LastIndexOf(':');
        bool hasPort = colon >= 0 && !server[colon..].Contains(']', StringComparison.Ordinal);
        string host = hasPort ? server[..colon] : server;
        if (host.Length > 0)
        {
            options["server.host"] = host.Trim('[', ']');
        }
        if (hasPort)
        {
            options["server.port"] = ushort.TryParse(
                server[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out ushort port) && port > 0
                ? (long)port
                : throw Wrong(locator, $"has the port '{server[(colon + 1)..]}'");
        }
    }

    private static void AddSnapshot(string locator, string text, Dictionary<string, object?> options)
    {
        if (text.Length == 0)
        {
            throw Wrong(locator, "names no snapshot behind its mark");
        }
        bool isNumber = text.All(char.IsAsciiDigit);
        if (isNumber && !(uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint id) && id > 0))
        {
            throw Wrong(locator, $"has the snapshot number {text}; they go from 1 to {uint.MaxValue}");
        }
        options[isNumber ? "snap-id" : "tag"] = text;
    }

    private static DiskImageException Wrong(string locator, Wording what) => new(
        DiskImageErrorKind.InvalidOption,
        $"'{locator}' {what}. A VDI is sheepdog://host:port/vdi, sheepdog+unix:///vdi?socket=PATH, with #number or #tag of a snapshot, or "
            + "in the older form sheepdog:host:port:vdi:snapshot.");
}
