using System.Globalization;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.Gluster;

/// <summary>Options when a file of a volume is opened. The names are QEMU's; servers are in a list of their own.</summary>
internal sealed record GlusterOptions
{
    /// <summary>The volume.</summary>
    [DriverOption("volume", "Name of the volume; its servers are server.0.type (inet, unix), .host, .port, .path, server.1…")]
    public string? Volume { get; init; }

    /// <summary>Where the file is in it.</summary>
    [DriverOption("path", "Path of the file in the volume")]
    public string? Path { get; init; }

    /// <summary>How much the library tells.</summary>
    [DriverOption("debug", "How much GlusterFS's library writes to its log, 0 to 9", Minimum = 0, Maximum = 9)]
    public long Debug { get; init; } = 4;

    /// <summary>Where it does.</summary>
    [DriverOption("logfile", "File of that log, - for standard error; none if not given")]
    public string? LogFile { get; init; }

    /// <summary>The servers, in the order in which they are asked where the volume is.</summary>
    public IReadOnlyList<GlusterServer> Servers { get; init; } = [];
}

/// <summary>A server that knows volumes.</summary>
/// <param name="IsUnix">It is reached by a socket of this machine.</param>
/// <param name="Host">Its host, or the path of the socket.</param>
/// <param name="Port">Its port; 0 for the usual one, 24007.</param>
/// <param name="IsRdma">RDMA was asked for, which the library does not have any more.</param>
internal sealed record GlusterServer(bool IsUnix, string Host, int Port, bool IsRdma = false)
{
    private static readonly string[] s_members = ["type", "host", "port", "path", "socket"];

    /// <summary>Where in texts a server's members stand: <c>server.0.host</c>.</summary>
    public const string Prefix = "server.";

    /// <inheritdoc/>
    public override string ToString()
        => IsUnix ? Host : $"{(Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host)}{(Port == 0 ? "" : $":{Port}")}";

    /// <summary>The servers that named values stand for, in order.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static IReadOnlyList<GlusterServer> Parse(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var servers = new SortedDictionary<int, Dictionary<string, string>>();
        foreach ((string name, object? value) in values)
        {
            string[] steps = name.Split('.');
            if (steps.Length != 3 || !int.TryParse(steps[1], NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                || number > 99 || !s_members.Contains(steps[2], StringComparer.Ordinal))
            {
                throw Invalid($"Unknown option '{name}'. A server of a volume is server.0.type, server.0.host, server.0.port, "
                    + "server.0.path, the next one server.1.type …, up to 99.");
            }
            Dictionary<string, string> server = servers.TryGetValue(number, out Dictionary<string, string>? known) ? known
                : servers[number] = new(StringComparer.Ordinal);
            string member = steps[2].Equals("socket", StringComparison.Ordinal) ? "path" : steps[2];
            server[member] = Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        }
        return [.. servers.Select(s => Of(s.Key, s.Value))];
    }

    private static GlusterServer Of(int number, Dictionary<string, string> members)
    {
        string type = members.GetValueOrDefault("type") ?? (members.ContainsKey("path") ? "unix" : "inet");
        string port = members.GetValueOrDefault("port") ?? "0";
        return type switch
        {
            "unix" => new(true, members.GetValueOrDefault("path") is { Length: > 0 } path ? path
                : throw Invalid($"'server.{number}.path' is missing, where the socket of the server is."), 0),
            "inet" or "tcp" or "rdma" => new(
                false,
                members.GetValueOrDefault("host") is { Length: > 0 } host ? host : "localhost",
                ushort.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out ushort given) ? given
                    : throw Invalid($"'server.{number}.port={port}' cannot be. A port is 1 to 65535; 0 is the usual one."),
                type.Equals("rdma", StringComparison.Ordinal)),
            _ => throw Invalid($"'server.{number}.type={type}' cannot be. Allowed: inet (tcp), unix."),
        };
    }

    private static DiskImageException Invalid(Wording message) => new(DiskImageErrorKind.InvalidOption, message);
}

/// <summary>What is opened, once all that was given has been understood.</summary>
/// <param name="Servers">Those that are asked where the volume is, in order.</param>
/// <param name="Volume">The volume.</param>
/// <param name="Path">Where the file is in it, from its top.</param>
/// <param name="Debug">How much the library tells.</param>
/// <param name="LogFile">Where; null for nowhere.</param>
internal sealed record GlusterPlace(IReadOnlyList<GlusterServer> Servers, string Volume, string Path, int Debug, string? LogFile)
{
    private const int LongestPath = 4096; // of Linux

    /// <summary>It as a URI of the first server.</summary>
    public string Name
    {
        get
        {
            string file = $"{Uri.EscapeDataString(Volume)}{Uri.EscapeDataString(Path).Replace("%2F", "/", StringComparison.Ordinal)}";
            GlusterServer first = Servers[0];
            return first.IsUnix
                ? $"gluster+unix:///{file}?socket={Uri.EscapeDataString(first.Host).Replace("%2F", "/", StringComparison.Ordinal)}"
                : $"gluster://{first}/{file}";
        }
    }

    /// <summary>Which file it is.</summary>
    public NodeIdentity Identity => new($"gluster:{Name}");

    /// <summary>Understands options.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static GlusterPlace Of(GlusterOptions options)
    {
        if (options.Servers.Count == 0)
        {
            throw Invalid("A file of a GlusterFS volume needs 'server.0.host' or 'server.0.path', where the volume is known.");
        }
        string volume = options.Volume is { Length: > 0 } name && !name.Contains('/', StringComparison.Ordinal) && IsText(name) ? name
            : throw Invalid("A file of a GlusterFS volume needs 'volume', the name of the volume.");
        string path = options.Path is { Length: > 0 } file && IsText(file) && file.Trim('/').Length > 0 ? $"/{file.TrimStart('/')}"
            : throw Invalid($"A file of a GlusterFS volume needs 'path', where it is: 1 to {LongestPath} characters without NUL.");
        string? log = options.LogFile is not { Length: > 0 } given ? null
            : given.Equals("-", StringComparison.Ordinal) ? given
            : System.IO.Path.GetFullPath(given);
        return new(options.Servers, volume, path, (int)options.Debug, log);
    }

    private static bool IsText(string text) => text.Length <= LongestPath && !text.Contains('\0', StringComparison.Ordinal);

    private static DiskImageException Invalid(Wording message) => new(DiskImageErrorKind.InvalidOption, message);
}

/// <summary>
/// From URIs to options, as QEMU has them: <c>gluster[+tcp|+unix|+rdma]://[host[:port]]/volume/path[?socket=PATH]</c>.
/// </summary>
internal static class GlusterLocator
{
    /// <summary>The schemes, the plain one first.</summary>
    public static readonly string[] Schemes = ["gluster", "gluster+tcp", "gluster+unix", "gluster+rdma"];

    /// <summary>The options that a URI stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        int end = locator.IndexOf("://", StringComparison.Ordinal);
        string scheme = end < 0 ? "" : locator[..end].ToLowerInvariant();
        if (!Schemes.Contains(scheme, StringComparer.Ordinal))
        {
            throw Wrong(locator, "does not begin with gluster://");
        }
        bool isUnix = scheme.Equals(Schemes[2], StringComparison.Ordinal);
        string[] parts = locator[(end + 3)..].Split('?', 2);
        int slash = parts[0].IndexOf('/', StringComparison.Ordinal);
        string server = slash < 0 ? parts[0] : parts[0][..slash];
        string[] place = slash < 0 ? [] : parts[0][slash..].TrimStart('/').Split('/', 2);
        if (place is not [{ Length: > 0 }, { Length: > 0 }])
        {
            throw Wrong(locator, "does not name a volume and a file");
        }
        var options = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["volume"] = Uri.UnescapeDataString(place[0]),
            ["path"] = Uri.UnescapeDataString(place[1]),
            ["server.0.type"] = isUnix ? "unix" : scheme.Equals(Schemes[3], StringComparison.Ordinal) ? "rdma" : "inet",
        };
        if (isUnix)
        {
            options["server.0.path"] = server.Length == 0 && parts.Length == 2
                && parts[1].Split('=', 2) is ["socket", { Length: > 0 } path]
                ? Uri.UnescapeDataString(path)
                : throw Wrong(locator, "names no socket, or a host besides");
            return options;
        }
        if (parts.Length == 2)
        {
            throw Wrong(locator, "has a query, which only gluster+unix has: socket=PATH");
        }
        int colon = server.LastIndexOf(':');
        bool hasPort = colon >= 0 && !server[colon..].Contains(']', StringComparison.Ordinal);
        options["server.0.host"] = (hasPort ? server[..colon] : server).Trim('[', ']');
        options["server.0.port"] = hasPort ? server[(colon + 1)..] : "0";
        return options;
    }

    private static DiskImageException Wrong(string locator, Wording what) => new(
        DiskImageErrorKind.InvalidOption,
        $"'{locator}' {what}. A file of a GlusterFS volume is gluster://host:port/volume/path, or "
            + "gluster+unix:///volume/path?socket=PATH.");
}
