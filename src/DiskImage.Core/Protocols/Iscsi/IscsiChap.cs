using System.Globalization;
using System.Numerics;
using System.Security.Cryptography;
using DiskImage.Crypto;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Who one is, and who the target is to be.</summary>
/// <param name="User">The name; null to say nothing.</param>
/// <param name="Secret">The secret of that name.</param>
/// <param name="TargetUser">The target's name, if it is to prove who it is; null if it need not.</param>
/// <param name="TargetSecret">The secret of that name.</param>
internal sealed record IscsiCredentials(string? User, SecretBuffer? Secret, string? TargetUser, SecretBuffer? TargetSecret) : IDisposable
{
    /// <summary>Nobody in particular.</summary>
    public static IscsiCredentials None { get; } = new(null, null, null, null);

    /// <inheritdoc/>
    public void Dispose()
    {
        Secret?.Dispose();
        TargetSecret?.Dispose();
    }

    /// <inheritdoc/>
    public override string ToString() => "(credentials)";
}

/// <summary>
/// The Challenge Handshake Authentication Protocol. Spec: RFC 1994, section 4; RFC 7143, section 12.1.3; the algorithms as IANA
/// numbers them (PPP Authentication Algorithms).
/// </summary>
internal static class IscsiChap
{
    /// <summary>
    /// Algorithms that are offered, the better first: SHA-1, MD5. Not SHA-256, number 7: tgt and IET take that number for SHA-1, so no
    /// login would succeed.
    /// </summary>
    public const string Offered = "6,5";

    /// <summary>Bytes of a challenge, and of a response, at most. Spec: RFC 7143, 12.1.3.</summary>
    public const int LongestChallenge = 1024;

    /// <summary>True for an algorithm that was offered.</summary>
    public static bool IsKnown(string algorithm) => algorithm is "5" or "6";

    /// <summary>The answer to a challenge: the hash over identifier, secret and challenge.</summary>
    public static byte[] Respond(string algorithm, byte identifier, SecretBuffer secret, ReadOnlySpan<byte> challenge)
    {
        using var hash = IncrementalHash.CreateHash(algorithm is "6" ? HashAlgorithmName.SHA1 : HashAlgorithmName.MD5);
        hash.AppendData([identifier]);
        hash.AppendData(secret.Span);
        hash.AppendData(challenge);
        return hash.GetHashAndReset();
    }

    /// <summary>A large binary value, in hexadecimal. Spec: RFC 7143, section 6.1.</summary>
    public static string Write(ReadOnlySpan<byte> bytes) => $"0x{Convert.ToHexStringLower(bytes)}";

    /// <summary>A large binary value: hexadecimal, base64 or decimal. Null if it is none, or has too many bytes.</summary>
    public static byte[]? Read(string text)
    {
        try
        {
            byte[] bytes = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
                ? Convert.FromHexString(text.Length % 2 == 0 ? text[2..] : $"0{text[2..]}")
                : text.StartsWith("0b", StringComparison.OrdinalIgnoreCase)
                ? Convert.FromBase64String(text[2..])
                : text.Length <= 20 && BigInteger.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out BigInteger number)
                ? number.ToByteArray(isUnsigned: true, isBigEndian: true)
                : [];
            return bytes.Length is > 0 and <= LongestChallenge ? bytes : null;
        }
        catch (FormatException)
        {
            return null;
        }
    }
}
