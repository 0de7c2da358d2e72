using System.Collections.Concurrent;
using System.Runtime.Intrinsics.X86;
using ArmAes = System.Runtime.Intrinsics.Arm.Aes;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// The order in which ssh is to offer its ciphers. OpenSSH's own begins with ChaCha20, which takes twice the time of AES-GCM where the
/// processor computes AES; both are trusted alike. Whoever configured ciphers keeps them.
/// </summary>
internal static class SshCiphers
{
    private const string Setting = "ciphers";

    private static readonly ConcurrentDictionary<string, string> s_usual = new(StringComparer.Ordinal); // by the path of ssh

    private static bool IsAesQuick => (Aes.IsSupported && Pclmulqdq.IsSupported) || ArmAes.IsSupported;

    /// <summary>What to ask for; null for what ssh does by itself.</summary>
    /// <param name="program">OpenSSH.</param>
    /// <param name="place">The server.</param>
    /// <param name="configured">What is configured for it.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<string?> ChooseAsync(
        SshProgram program, SshPlace place, SshConfiguration configured, CancellationToken cancellationToken)
        => IsAesQuick && configured[Setting] is { } ciphers
            && ciphers.Equals(await UsualAsync(program, place, cancellationToken).ConfigureAwait(false), StringComparison.Ordinal)
            ? QuickFirst(ciphers)
            : null;

    /// <summary>The same ciphers, AES-GCM before the others; null where there is none of it.</summary>
    internal static string? QuickFirst(string ciphers)
    {
        ILookup<bool, string> byKind = ciphers.Split(',').ToLookup(c => c.Contains("-gcm", StringComparison.Ordinal));
        return byKind[true].Any() ? string.Join(',', byKind[true].Concat(byKind[false])) : null;
    }

    /// <summary>What ssh offers where nothing is configured. It is asked once.</summary>
    private static async ValueTask<string> UsualAsync(SshProgram program, SshPlace place, CancellationToken cancellationToken)
    {
        string path = program.Find("ssh");
        if (!s_usual.TryGetValue(path, out string? usual))
        {
            usual = (await SshConfiguration.ReadAsync(
                program with { ConfigFile = "none" }, place, cancellationToken).ConfigureAwait(false))[Setting] ?? "";
            s_usual[path] = usual;
        }
        return usual;
    }
}
