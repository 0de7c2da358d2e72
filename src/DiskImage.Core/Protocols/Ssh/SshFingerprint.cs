using System.Security.Cryptography;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>The fingerprint of a server's key.</summary>
/// <param name="Hash">How it is made.</param>
/// <param name="Digits">It, in small hexadecimal digits.</param>
internal sealed record SshFingerprint(SshKeyHash Hash, string Digits)
{
    /// <summary>Reads one, in hexadecimal with or without colons; of SHA-256 also in base 64, as OpenSSH shows it.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public static SshFingerprint Parse(SshKeyHash hash, string text)
    {
        int length = hash switch { SshKeyHash.Md5 => 16, SshKeyHash.Sha1 => 20, _ => 32 };
        string digits = text.Replace(":", "", StringComparison.Ordinal);
        if (digits.Length == 2 * length && digits.All(char.IsAsciiHexDigit))
        {
            return new SshFingerprint(hash, digits.ToLowerInvariant());
        }
        byte[] bytes = new byte[length];
        return hash == SshKeyHash.Sha256 && Convert.TryFromBase64String($"{text.TrimEnd('=')}=", bytes, out int count) && count == length
            ? new SshFingerprint(hash, Convert.ToHexStringLower(bytes))
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{text}' is no fingerprint of kind {hash.ToString().ToLowerInvariant()}, which has {2 * length} hexadecimal digits, "
                    + "with or without colons.");
    }

    /// <summary>The fingerprint of a key, as it is in the key's own encoding.</summary>
    public static SshFingerprint Of(SshKeyHash hash, ReadOnlySpan<byte> key) => new(hash, Convert.ToHexStringLower(Digest(hash, key)));

    /// <summary>True for a key that has it.</summary>
    public bool Fits(ReadOnlySpan<byte> key) => Of(Hash, key) == this;

    /// <summary>As <c>host_key_check</c> has it.</summary>
    public override string ToString() => $"{Hash.ToString().ToLowerInvariant()}:{Digits}";

#pragma warning disable CA5350, CA5351 // the user's word; a warning says what it is worth
    private static byte[] Digest(SshKeyHash hash, ReadOnlySpan<byte> key) => hash switch
    {
        SshKeyHash.Md5 => MD5.HashData(key),
        SshKeyHash.Sha1 => SHA1.HashData(key),
        _ => SHA256.HashData(key),
    };
#pragma warning restore CA5350, CA5351
}
