using System.Runtime.Intrinsics.X86;
using ArmAes = System.Runtime.Intrinsics.Arm.Aes;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// The order in which ssh is to offer its ciphers. OpenSSH's own begins with ChaCha20, which takes twice the time of AES-GCM where the
/// processor computes AES; both are trusted alike. Whoever configured ciphers keeps them.
/// </summary>
internal static class SshCiphers
{
    private static bool IsAesQuick => (Aes.IsSupported && Pclmulqdq.IsSupported) || ArmAes.IsSupported;

    /// <summary>What to ask for; null for what ssh does by itself.</summary>
    /// <exception cref="DiskImage.Block.DiskImageException">What is wrong with the configuration.</exception>
    public static async ValueTask<string?> ChooseAsync(SshProgram program, SshPlace place, CancellationToken cancellationToken)
    {
        if (!IsAesQuick)
        {
            return null;
        }
        SshConfiguration configured = await SshConfiguration.ReadAsync(program, place, cancellationToken).ConfigureAwait(false);
        SshConfiguration bare = await SshConfiguration.ReadAsync(
            program with { ConfigFile = "none" }, place, cancellationToken).ConfigureAwait(false);
        return configured["ciphers"] is { } ciphers && ciphers.Equals(bare["ciphers"], StringComparison.Ordinal)
            ? QuickFirst(ciphers)
            : null;
    }

    /// <summary>The same ciphers, AES-GCM before the others; null where there is none of it.</summary>
    internal static string? QuickFirst(string ciphers)
    {
        ILookup<bool, string> byKind = ciphers.Split(',').ToLookup(c => c.Contains("-gcm", StringComparison.Ordinal));
        return byKind[true].Any() ? string.Join(',', byKind[true].Concat(byKind[false])) : null;
    }
}
