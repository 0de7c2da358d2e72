using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>A key of a server.</summary>
/// <param name="Type">Its type, as on the wire.</param>
/// <param name="Key">It, in base 64.</param>
internal sealed record SshHostKey(string Type, string Key)
{
    private const int MostKeys = 64; // of one server. Ours

    // Settings of ssh under which only ssh knows the way to it.
    private static readonly string[] s_detours = ["proxyjump", "proxycommand", "proxyusefdpass"];

    /// <summary>ssh's configuration has a command that tells of further keys.</summary>
    public bool IsBesideOthers { get; private init; }

    /// <summary>Signatures that prove it.</summary>
    public string Algorithms => Type.Equals("ssh-rsa", StringComparison.Ordinal) ? "rsa-sha2-512,rsa-sha2-256" : Type;

    /// <summary>As a line of a file of known hosts, for whichever host.</summary>
    public string Line => $"* {Type} {Key}\n";

    /// <summary>
    /// The key of a server that has the fingerprint that was given. The server is asked for its keys, and nobody logs in. Who connects then
    /// insists on the key itself, so nothing depends on the same server answering twice.
    /// </summary>
    /// <param name="program">The system's OpenSSH.</param>
    /// <param name="place">The server.</param>
    /// <param name="configured">What ssh's configuration says of it.</param>
    /// <param name="warn">Told what speaks against the fingerprint.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Refused: no key has it. Unsupported: its keys cannot be asked for. Io: no answer.</exception>
    public static async ValueTask<SshHostKey> FindAsync(
        SshProgram program, SshPlace place, SshConfiguration configured, Action<Wording> warn, CancellationToken cancellationToken)
    {
        (string output, SshWords? words) = s_detours.Any(d => configured[d] is { } way and not ("none" or "no"))
            ? await SshKeyShow.AskAsync(program, place, cancellationToken).ConfigureAwait(false)
            : await SshProcess.AskAsync(
                program.Find("ssh-keyscan"),
                ["-T", "20", "-p", PortOf(configured), "--", configured["hostname"] ?? place.Host],
                cancellationToken).ConfigureAwait(false);
        SshHostKey[] keys = [.. output.Split('\n').Select(Parse).OfType<SshHostKey>().Distinct().Take(MostKeys)];
        if (keys.Length == 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Io,
                $"{place.Address}: cannot be reached: the server tells none of its keys{(words is null ? "" : $" ({words.Text})")}",
                place.Address);
        }
        SshFingerprint wanted = place.Key!;
        SshHostKey found = Array.Find(keys, k => wanted.Fits(Convert.FromBase64String(k.Key)))
            ?? throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{place.Address}: no key of the server has the fingerprint {wanted}, so nobody has logged in. Its keys: "
                    + $"{string.Join(", ", keys.Select(k => k.Shown(wanted.Hash)))}. Make sure of the right one by another way than this "
                    + $"network.",
                place.Address);
        if (wanted.Hash != SshKeyHash.Sha256)
        {
            string kind = wanted.Hash.ToString().ToUpperInvariant();
            warn($"{place.Address}: a fingerprint of kind {kind} can be forged. That of this key by SHA-256 is "
                + $"{SshFingerprint.Of(SshKeyHash.Sha256, Convert.FromBase64String(found.Key))}.");
        }
        return found with { IsBesideOthers = configured["knownhostscommand"] is not null };
    }

    /// <summary>A line of what the keys were asked with: host, type, key. Null for anything else.</summary>
    internal static SshHostKey? Parse(string line)
    {
        string[] parts = line.Trim().Split(' ');
        bool isKey = parts.Length == 3 && !parts[0].StartsWith('#')
            && parts[1].Length is > 0 and < 100 && parts[1].All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '@')
            && Convert.TryFromBase64String(parts[2], new byte[parts[2].Length], out int count) && count > 0;
        return isKey ? new SshHostKey(parts[1], parts[2]) : null;
    }

    private string Shown(SshKeyHash hash) => $"{Type} {SshFingerprint.Of(hash, Convert.FromBase64String(Key))}";

    private static string PortOf(SshConfiguration settings)
        => settings["port"] is { } told && ushort.TryParse(told, CultureInfo.InvariantCulture, out _) ? told : "22";
}
