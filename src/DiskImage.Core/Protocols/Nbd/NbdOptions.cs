using System.Net;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.Nbd;

/// <summary>How a server is reached.</summary>
internal enum NbdServerType
{
    /// <summary>By TCP.</summary>
    [OptionText("inet", "tcp")]
    Inet,

    /// <summary>By a socket of this machine.</summary>
    Unix,
}

/// <summary>Options when an export is opened. The names are QEMU's.</summary>
internal sealed record NbdOptions
{
    /// <summary>How the server is reached.</summary>
    [DriverOption("server.type", "How the server is reached: inet, unix; by what else is given")]
    public NbdServerType? ServerType { get; init; }

    /// <summary>The server's host.</summary>
    [DriverOption("server.host", "Name or address of the server's host")]
    public string? ServerHost { get; init; }

    /// <summary>The server's port.</summary>
    [DriverOption("server.port", "The server's TCP port", Minimum = 1, Maximum = 65535)]
    public long ServerPort { get; init; } = NbdWire.Port;

    /// <summary>The server's socket.</summary>
    [DriverOption("server.path", "Path of the server's unix socket")]
    public string? ServerPath { get; init; }

    /// <summary>The export.</summary>
    [DriverOption("export", "Name of the export; the server's default if not given")]
    public string Export { get; init; } = "";

    /// <summary>Whether TLS is wanted though no credentials are given.</summary>
    [DriverOption("tls", "Goes on under TLS, as nbds:// does")]
    public bool Tls { get; init; }

    /// <summary>Where the credentials of TLS are.</summary>
    [DriverOption("tls-creds", "Folder with ca-cert.pem, client-cert.pem, client-key.pem, or keys.psk: goes on under TLS")]
    public string? TlsCreds { get; init; }

    /// <summary>What the server's certificate is to be for.</summary>
    [DriverOption("tls-hostname", "Host that the server's certificate must be for; the server's host if not given")]
    public string? TlsHostname { get; init; }

    /// <summary>Who one is, with a key that both sides know.</summary>
    [DriverOption("tls-username", "Name of the key in keys.psk")]
    public string TlsUsername { get; init; } = "qemu";

    /// <summary>What is asked of block status instead of the allocation.</summary>
    [DriverOption("x-dirty-bitmap", "Context that block status tells of instead, e.g. qemu:dirty-bitmap:NAME; what is dirty is no data")]
    public string? DirtyBitmap { get; init; }

    /// <summary>How long requests wait for a lost connection to come back.</summary>
    [DriverOption("reconnect-delay", "Seconds that requests wait for a lost connection to come back", Minimum = 0, Maximum = 86400)]
    public long ReconnectDelay { get; init; }

    /// <summary>How long connecting is tried.</summary>
    [DriverOption("open-timeout", "Seconds that connecting is tried; 0 for once", Minimum = 0, Maximum = 86400)]
    public long OpenTimeout { get; init; }

    /// <summary>How many connections are made where the server allows several.</summary>
    [DriverOption("connections", "Connections to an export that allows several", Minimum = 1, Maximum = 16)]
    public long Connections { get; init; } = 4;

    /// <summary>True for a server that is reached by a unix socket.</summary>
    public bool IsUnix => ServerType == NbdServerType.Unix || (ServerType is null && ServerPath is not null);

    /// <summary>True if nothing is said in the clear.</summary>
    public bool IsSecure => Tls || TlsCreds is not null;

    /// <summary>The host that the server's certificate is to be for.</summary>
    public string CertifiedHost => TlsHostname ?? (IsUnix ? "localhost" : ServerHost ?? "localhost");

    /// <summary>The export as a URI, in one form whatever was given.</summary>
    public string Uri
    {
        get
        {
            string scheme = IsSecure ? "nbds" : "nbd";
            string export = System.Uri.EscapeDataString(Export).Replace("%2F", "/", StringComparison.Ordinal);
            string host = ServerHost is { } name && name.Contains(':', StringComparison.Ordinal) ? $"[{name}]" : ServerHost ?? "localhost";
            return IsUnix
                ? $"{scheme}+unix:///{export}?socket={ServerPath}"
                : $"{scheme}://{host}{(ServerPort == NbdWire.Port ? "" : $":{ServerPort}")}/{export}";
        }
    }

    /// <summary>Where the server listens.</summary>
    /// <exception cref="DiskImageException">InvalidOption: nothing says where.</exception>
    public EndPoint Address()
    {
        if (!IsUnix)
        {
            return new DnsEndPoint(ServerHost ?? throw Missing("server.host"), (int)ServerPort);
        }
        string path = ServerPath ?? throw Missing("server.path");
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (Exception e) when (e is ArgumentException or PlatformNotSupportedException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{path}: no unix socket can have that path: {e.Message}", path, cause: e);
        }

        static DiskImageException Missing(string option) => new(
            DiskImageErrorKind.InvalidOption, $"An NBD export needs '{option}', where its server is.");
    }
}

/// <summary>From the texts that name exports to options.</summary>
internal static class NbdLocator
{
    private const string OldPrefix = "nbd:", OldUnix = "unix:", OldExport = ":exportname=";

    /// <summary>The options that a URI, or a text of the older form, stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is neither.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        var options = new Dictionary<string, object?>(StringComparer.Ordinal);
        if (locator.Contains("://", StringComparison.Ordinal))
        {
            ParseUri(locator, options);
        }
        else
        {
            ParseOld(locator, options);
        }
        return options;
    }

    private static void ParseUri(string locator, Dictionary<string, object?> options)
    {
        if (!Uri.TryCreate(locator, UriKind.Absolute, out Uri? uri))
        {
            throw Wrong(locator, "is no URI");
        }
        string scheme = uri.Scheme.ToLowerInvariant();
        bool isUnix = scheme.EndsWith("+unix", StringComparison.Ordinal);
        if (scheme.StartsWith("nbds", StringComparison.Ordinal))
        {
            options["tls"] = true;
        }
        if (uri.UserInfo.Length > 0)
        {
            options["tls-username"] = Uri.UnescapeDataString(uri.UserInfo);
        }
        options["export"] = Uri.UnescapeDataString(uri.AbsolutePath.Length > 0 ? uri.AbsolutePath[1..] : "");
        foreach (string part in uri.Query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = part.Split('=', 2);
            string value = Uri.UnescapeDataString(pair.Length == 2 ? pair[1] : "");
            string option = pair[0] switch
            {
                "socket" when isUnix => "server.path",
                "tls-certificates" => "tls-creds",
                "tls-hostname" or "tls-username" => pair[0],
                _ => throw Wrong(locator, $"has the query '{pair[0]}'; known: socket (of nbd+unix), tls-certificates, tls-hostname, "
                    + "tls-username"),
            };
            options[option] = value;
        }
        if (isUnix)
        {
            options["server.type"] = "unix";
            if (!options.ContainsKey("server.path") || uri.Host.Length > 0)
            {
                throw Wrong(locator, "names no socket");
            }
            return;
        }
        options["server.host"] = uri.Host.Length > 0 ? uri.Host.Trim('[', ']') : "localhost";
        if (uri.Port >= 0)
        {
            options["server.port"] = (long)uri.Port;
        }
    }

    private static void ParseOld(string locator, Dictionary<string, object?> options)
    {
        if (!locator.StartsWith(OldPrefix, StringComparison.OrdinalIgnoreCase))
        {
            throw Wrong(locator, "names no server");
        }
        string rest = locator[OldPrefix.Length..];
        int export = rest.IndexOf(OldExport, StringComparison.Ordinal);
        if (export >= 0)
        {
            options["export"] = rest[(export + OldExport.Length)..];
            rest = rest[..export];
        }
        if (rest.StartsWith(OldUnix, StringComparison.Ordinal))
        {
            options["server.type"] = "unix";
            options["server.path"] = rest[OldUnix.Length..];
            return;
        }
        int colon = rest.LastIndexOf(':');
        if (colon <= 0)
        {
            throw Wrong(locator, "has no port");
        }
        options["server.host"] = rest[..colon].Trim('[', ']');
        options["server.port"] = rest[(colon + 1)..];
    }

    private static DiskImageException Wrong(string locator, string what) => new(
        DiskImageErrorKind.InvalidOption,
        $"'{locator}' {what}. An export is nbd://host:port/name, nbds:// under TLS, nbd+unix:///name?socket=PATH, or in the older form "
            + "nbd:host:port:exportname=NAME, nbd:unix:PATH:exportname=NAME.");
}
