using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Protocols.Ssh;

/// <summary>How the server's key is checked.</summary>
internal enum SshKeyCheck
{
    /// <summary>It is the one that ssh knows.</summary>
    [OptionText("known_hosts")]
    KnownHosts,

    /// <summary>It has a fingerprint.</summary>
    Hash,

    /// <summary>Not at all.</summary>
    None,
}

/// <summary>How a fingerprint is made.</summary>
internal enum SshKeyHash
{
    /// <summary>16 bytes; forged easily.</summary>
    Md5,

    /// <summary>20 bytes; forged at some expense.</summary>
    Sha1,

    /// <summary>32 bytes.</summary>
    Sha256,
}

/// <summary>Options when a file of an SSH server is opened. The names are QEMU's; <c>key-file</c> is ours.</summary>
internal sealed record SshOptions
{
    /// <summary>The server's host.</summary>
    [DriverOption("server.host", "Name or address of the server's host, or what ssh's configuration calls it")]
    public string? ServerHost { get; init; }

    /// <summary>The server's port.</summary>
    [DriverOption("server.port", "The server's TCP port; what ssh's configuration says if not given, and else 22", Minimum = 1,
        Maximum = 65535)]
    public long? ServerPort { get; init; }

    /// <summary>Who logs in.</summary>
    [DriverOption("user", "Who logs in; what ssh's configuration says if not given, and else who runs this")]
    public string? User { get; init; }

    /// <summary>Where the file is.</summary>
    [DriverOption("path", "Path of the file on the server; a relative one is taken from the folder where one logs in")]
    public string? Path { get; init; }

    /// <summary>How the server's key is checked.</summary>
    [DriverOption("host-key-check.mode", "How the server's key is checked: known_hosts, hash, none")]
    public SshKeyCheck? KeyCheck { get; init; }

    /// <summary>How the fingerprint is made.</summary>
    [DriverOption("host-key-check.type", "How the fingerprint is made: md5, sha1, sha256")]
    public SshKeyHash? KeyHash { get; init; }

    /// <summary>The fingerprint.</summary>
    [DriverOption("host-key-check.hash", "The fingerprint, in hexadecimal with or without colons")]
    public string? Fingerprint { get; init; }

    /// <summary>The same in one text.</summary>
    [DriverOption("host_key_check", "The same in one: yes, no, or md5:, sha1:, sha256: and the fingerprint")]
    public string? KeyCheckText { get; init; }

    /// <summary>The private key that one logs in with.</summary>
    [DriverOption("key-file", "File with the private key to log in with; the agent's keys and ssh's configuration if not given")]
    public string? KeyFile { get; init; }
}

/// <summary>What is opened, once all that was given has been understood.</summary>
/// <param name="Host">The server, as ssh knows it.</param>
/// <param name="Port">Its port; null for what ssh's configuration says.</param>
/// <param name="User">Who logs in; null likewise.</param>
/// <param name="Path">Where the file is there.</param>
/// <param name="Key">The fingerprint that the server's key must have; null for none.</param>
/// <param name="IsUnchecked">The server's key may be any.</param>
/// <param name="KeyFile">Full path of the private key to log in with; null for what ssh's configuration says.</param>
internal sealed record SshPlace(
    string Host, int? Port, string? User, string Path, SshFingerprint? Key, bool IsUnchecked, string? KeyFile)
{
    private const string NeverInNames = "'`\"$;&<>|(){}*?,!"; // what a shell obeys that ssh's configuration may hand them to, and patterns

    /// <summary>The server as a URI.</summary>
    public string Server
        => $"ssh://{(User is null ? "" : $"{Uri.EscapeDataString(User)}@")}"
            + $"{(Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host)}{(Port is null ? "" : $":{Port}")}";

    /// <summary>The file as a URI, in one form whatever was given, without what is asked of the server's key.</summary>
    public string Address => $"{Server}{(Path.StartsWith('/') ? "" : "/~/")}{Escaped(Path)}";

    /// <summary>The file as a URI that leads to it again.</summary>
    public string Name => $"{Address}{(IsUnchecked ? "?host_key_check=no" : Key is null ? "" : $"?host_key_check={Key}")}";

    /// <summary>Understands options.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static SshPlace Of(SshOptions options)
    {
        string host = Checked("server.host", options.ServerHost ?? throw Missing("server.host", "where its server is"));
        string? user = options.User is null ? null : Checked("user", options.User);
        string path = options.Path is { Length: > 0 } given ? given : throw Missing("path", "which file it is");
        if (path.Contains('\0', StringComparison.Ordinal) || path.Length > SftpWire.LongestPath)
        {
            throw Invalid($"The path of a file on an SSH server has no NUL and at most {SftpWire.LongestPath:#,0} characters.");
        }
        (bool isUnchecked, SshFingerprint? key) = KeyOf(options);
        string? keyFile = options.KeyFile is { Length: > 0 } file ? System.IO.Path.GetFullPath(file) : null;
        return new SshPlace(host, (int?)options.ServerPort, user, path, key, isUnchecked, keyFile);
    }

    /// <summary>The same for somebody to log in.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is no name.</exception>
    public SshPlace For(string user) => this with { User = Checked(nameof(user), user) };

    private static (bool IsUnchecked, SshFingerprint? Key) KeyOf(SshOptions options)
    {
        bool isParted = (options.KeyCheck ?? (object?)options.KeyHash ?? options.Fingerprint) is not null;
        if (options.KeyCheckText is { } text)
        {
            return isParted ? throw Invalid("'host_key_check' and 'host-key-check.…' say the same: give one of them.")
                : text switch
                {
                    "yes" => (false, null),
                    "no" => (true, null),
                    _ when text.Split(':', 2) is [var type, var hash] && Enum.TryParse(type, ignoreCase: true, out SshKeyHash kind)
                        && !char.IsAsciiDigit(type[0])
                        => (false, SshFingerprint.Parse(kind, hash)),
                    _ => throw Invalid($"'host_key_check={text}' is not understood. Allowed: yes, no, or md5:, sha1:, sha256: and the "
                        + "fingerprint of the server's key in hexadecimal, with or without colons."),
                };
        }
        if (options.KeyCheck == SshKeyCheck.Hash || (options.KeyCheck is null && isParted))
        {
            return (false, SshFingerprint.Parse(
                options.KeyHash ?? throw Missing("host-key-check.type", "how the fingerprint is made"),
                options.Fingerprint ?? throw Missing("host-key-check.hash", "the fingerprint of the server's key")));
        }
        return options.KeyHash is null && options.Fingerprint is null
            ? (options.KeyCheck == SshKeyCheck.None, null)
            : throw Invalid("A fingerprint is given, and 'host-key-check.mode' says that it does not count. Leave one of them out.");
    }

    /// <summary>
    /// A name that ssh gets as an argument, and that the user's configuration may hand on to a shell: it is never taken for an option, and
    /// has nothing that a shell obeys.
    /// </summary>
    private static string Checked(string option, string name)
        => name.Length is > 0 and < 256 && name[0] != '-' && name[^1] != '\\'
            && !name.Any(c => char.IsWhiteSpace(c) || char.IsControl(c) || NeverInNames.Contains(c))
            ? name
            : throw Invalid($"'{option}={name}' cannot be. A host or user does not begin with '-' or end with '\\', and has no spaces, "
                + $"control characters or any of {NeverInNames}");

    private static string Escaped(string path) => Uri.EscapeDataString(path).Replace("%2F", "/", StringComparison.Ordinal);

    private static DiskImageException Missing(string option, string what)
        => Invalid($"A file of an SSH server needs '{option}', {what}.");

    private static DiskImageException Invalid(Wording message) => new(DiskImageErrorKind.InvalidOption, message);
}
