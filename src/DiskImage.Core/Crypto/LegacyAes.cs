using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>
/// The encryption of QEMU's old formats: AES-128 in CBC mode, by the sector's number, with the first 16 bytes of the passphrase as the key.
/// Nothing is stored by which a wrong passphrase shows.
/// </summary>
internal static class LegacyAes
{
    private const int KeyBytes = 16;

    /// <summary>The cipher of a passphrase.</summary>
    public static ISectorCipher Make(SecretBuffer secret)
    {
        using var key = new SecretBuffer(KeyBytes);
        secret.Span[..Math.Min(KeyBytes, secret.Length)].CopyTo(key.Span);
        return new CipherSpec(CipherAlgorithm.Aes128, CipherMode.Cbc, IvGeneration.Plain64, null).Make(key.Span);
    }
}
