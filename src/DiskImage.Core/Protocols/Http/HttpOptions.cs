using DiskImage.Options;

namespace DiskImage.Protocols.Http;

/// <summary>Options when an object of a web server is opened. The names are QEMU's; <c>header</c> is ours.</summary>
internal sealed record HttpOptions
{
    private const long LongestWait = 10_000; // seconds, as in QEMU

    /// <summary>Where it is.</summary>
    [DriverOption("url", "http:// or https:// URL of the object")]
    public string Url { get; init; } = "";

    /// <summary>How much more is read than was asked for, at first.</summary>
    [DriverOption("readahead", "Bytes that are read ahead, at first; it adapts to how the disk is read", IsSize = true, Minimum = 512,
        Maximum = 64 << 20)]
    public long ReadAhead { get; init; } = 256 << 10;

    /// <summary>Whether the server's certificate must be good.</summary>
    [DriverOption("sslverify", "Whether the server's certificate must be good")]
    public bool SslVerify { get; init; } = true;

    /// <summary>How long nothing may come.</summary>
    [DriverOption(
        "timeout", "Seconds that a server may be silent in the middle of an answer, or before it", Minimum = 1, Maximum = LongestWait)]
    public long Timeout { get; init; } = 5;

    /// <summary>Who asks.</summary>
    [DriverOption("username", "Name of the user at the server")]
    public string? UserName { get; init; }

    /// <summary>The secret that has the password.</summary>
    [DriverOption("password-secret", "Name of the secret with the user's password")]
    public string? PasswordSecret { get; init; }

    /// <summary>Who asks the proxy.</summary>
    [DriverOption("proxy-username", "Name of the user at the proxy that the environment names")]
    public string? ProxyUserName { get; init; }

    /// <summary>The secret that has that password.</summary>
    [DriverOption("proxy-password-secret", "Name of the secret with the proxy user's password")]
    public string? ProxyPasswordSecret { get; init; }

    /// <summary>Cookies.</summary>
    [DriverOption("cookie", "Cookies to send: name=value; name=value")]
    public string? Cookie { get; init; }

    /// <summary>The secret that has the cookies.</summary>
    [DriverOption("cookie-secret", "Name of the secret with the cookies")]
    public string? CookieSecret { get; init; }

    /// <summary>A further header.</summary>
    [DriverOption("header", "Header to send, as 'Name: value'; several on lines of their own")]
    public string? Header { get; init; }

    /// <summary>The secret that has further headers.</summary>
    [DriverOption("header-secret", "Name of the secret with headers to send")]
    public string? HeaderSecret { get; init; }
}
