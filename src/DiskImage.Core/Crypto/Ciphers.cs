using Org.BouncyCastle.Crypto.Engines;

namespace DiskImage.Crypto;

/// <summary>What is known of each block cipher, and where it comes from.</summary>
internal static class Ciphers
{
    /// <summary>Bytes of the key.</summary>
    public static int KeyLength(this CipherAlgorithm algorithm) => algorithm switch
    {
        CipherAlgorithm.Aes192 or CipherAlgorithm.Serpent192 or CipherAlgorithm.Twofish192 => 24,
        CipherAlgorithm.Aes256 or CipherAlgorithm.Serpent256 or CipherAlgorithm.Twofish256 => 32,
        _ => 16,
    };

    /// <summary>Bytes of a block.</summary>
    public static int BlockLength(this CipherAlgorithm algorithm) => algorithm == CipherAlgorithm.Cast5128 ? 8 : 16;

    /// <summary>The cipher's name in headers of LUKS, which say the key's length elsewhere.</summary>
    public static string Family(this CipherAlgorithm algorithm) => algorithm switch
    {
        CipherAlgorithm.Aes128 or CipherAlgorithm.Aes192 or CipherAlgorithm.Aes256 => "aes",
        CipherAlgorithm.Serpent128 or CipherAlgorithm.Serpent192 or CipherAlgorithm.Serpent256 => "serpent",
        CipherAlgorithm.Twofish128 or CipherAlgorithm.Twofish192 or CipherAlgorithm.Twofish256 => "twofish",
        CipherAlgorithm.Cast5128 => "cast5",
        _ => "sm4",
    };

    /// <summary>The cipher of a name and a key length in bytes; null if there is none here.</summary>
    public static CipherAlgorithm? Find(string family, int keyLength)
    {
        foreach (CipherAlgorithm algorithm in Enum.GetValues<CipherAlgorithm>())
        {
            if (algorithm.Family().Equals(family, StringComparison.Ordinal) && algorithm.KeyLength() == keyLength)
            {
                return algorithm;
            }
        }
        return null;
    }

    /// <summary>A cipher with a key of <see cref="KeyLength"/> bytes, which is copied.</summary>
    public static IBlockCipher Make(this CipherAlgorithm algorithm, ReadOnlySpan<byte> key) => algorithm.Family() switch
    {
        "aes" => HardwareAes.IsSupported ? new HardwareAes(key) : new PlatformAes(key),
        "serpent" => new PortableCipher(static () => new SerpentEngine(), key),
        "twofish" => new PortableCipher(static () => new TwofishEngine(), key),
        "cast5" => new PortableCipher(static () => new Cast5Engine(), key),
        _ => new PortableCipher(static () => new SM4Engine(), key),
    };
}
