using System.Security.Cryptography;
using Org.BouncyCastle.Crypto;
using Org.BouncyCastle.Crypto.Digests;
using Org.BouncyCastle.Crypto.Macs;
using Org.BouncyCastle.Crypto.Parameters;

namespace DiskImage.Crypto;

/// <summary>Hash functions, and the keys that PBKDF2 (RFC 8018) makes with them.</summary>
internal static class Hashes
{
    /// <summary>Bytes of the longest digest.</summary>
    public const int MostBytes = 64;

    /// <summary>Bytes of the digest.</summary>
    public static int Length(this HashAlgorithm algorithm) => algorithm switch
    {
        HashAlgorithm.Md5 => 16,
        HashAlgorithm.Sha1 or HashAlgorithm.Ripemd160 => 20,
        HashAlgorithm.Sha224 => 28,
        HashAlgorithm.Sha384 => 48,
        HashAlgorithm.Sha512 => 64,
        _ => 32,
    };

    /// <summary>The name in headers, which is also the option's.</summary>
    public static string Text(this HashAlgorithm algorithm) => algorithm.ToString().ToLowerInvariant();

    /// <summary>The hash of a name; null if there is none here.</summary>
    public static HashAlgorithm? Find(string name)
    {
        foreach (HashAlgorithm algorithm in Enum.GetValues<HashAlgorithm>())
        {
            if (algorithm.Text().Equals(name, StringComparison.Ordinal))
            {
                return algorithm;
            }
        }
        return null;
    }

    /// <summary>The digest of two runs of bytes, one behind the other.</summary>
    public static void Hash(this HashAlgorithm algorithm, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second, Span<byte> digest)
    {
        if (Platform(algorithm) is { } name)
        {
            using IncrementalHash hash = IncrementalHash.CreateHash(name);
            hash.AppendData(first);
            hash.AppendData(second);
            _ = hash.GetHashAndReset(digest);
            return;
        }
        IDigest portable = Portable(algorithm);
        portable.BlockUpdate(first);
        portable.BlockUpdate(second);
        _ = portable.DoFinal(digest);
    }

    /// <summary>Asked once: a system may have the hashes and not this.</summary>
    private static readonly Lazy<bool> s_platformDerivesKeys = new(static () =>
    {
        try
        {
            return Rfc2898DeriveBytes.Pbkdf2("passphrase"u8, "salt"u8, 1, HashAlgorithmName.SHA256, 16).Length == 16;
        }
        catch (CryptographicException)
        {
            return false;
        }
    });

    /// <summary>A key from a passphrase. Never cancelled: the caller bounds the iterations.</summary>
    public static void Pbkdf2(
        this HashAlgorithm algorithm, ReadOnlySpan<byte> passphrase, ReadOnlySpan<byte> salt, int iterations, Span<byte> key)
    {
        // the platform's function takes no MD5
        if (Platform(algorithm) is { } name && algorithm != HashAlgorithm.Md5 && s_platformDerivesKeys.Value)
        {
            Rfc2898DeriveBytes.Pbkdf2(passphrase, salt, key, iterations, name);
            return;
        }
        Pbkdf2Portably(algorithm, passphrase, salt, iterations, key);
    }

    /// <summary>The same where the platform has no such function. Spec: RFC 8018, 5.2.</summary>
    internal static void Pbkdf2Portably(
        HashAlgorithm algorithm, ReadOnlySpan<byte> passphrase, ReadOnlySpan<byte> salt, int iterations, Span<byte> key)
    {
        var mac = new HMac(Portable(algorithm));
        mac.Init(new KeyParameter(passphrase));
        Span<byte> block = stackalloc byte[MostBytes], sum = stackalloc byte[MostBytes], number = stackalloc byte[4];
        block = block[..mac.GetMacSize()];
        sum = sum[..mac.GetMacSize()];
        for (int i = 1; !key.IsEmpty; i++)
        {
            System.Buffers.Binary.BinaryPrimitives.WriteInt32BigEndian(number, i);
            mac.BlockUpdate(salt);
            mac.BlockUpdate(number);
            _ = mac.DoFinal(block);
            block.CopyTo(sum);
            for (int round = 1; round < iterations; round++)
            {
                mac.BlockUpdate(block);
                _ = mac.DoFinal(block);
                Xor.Into(sum, block);
            }
            int count = Math.Min(sum.Length, key.Length);
            sum[..count].CopyTo(key);
            key = key[count..];
        }
        CryptographicOperations.ZeroMemory(block);
        CryptographicOperations.ZeroMemory(sum);
    }

    private static HashAlgorithmName? Platform(HashAlgorithm algorithm) => algorithm switch
    {
        HashAlgorithm.Md5 => HashAlgorithmName.MD5,
        HashAlgorithm.Sha1 => HashAlgorithmName.SHA1,
        HashAlgorithm.Sha256 => HashAlgorithmName.SHA256,
        HashAlgorithm.Sha384 => HashAlgorithmName.SHA384,
        HashAlgorithm.Sha512 => HashAlgorithmName.SHA512,
        _ => null,
    };

    private static IDigest Portable(HashAlgorithm algorithm) => algorithm switch
    {
        HashAlgorithm.Md5 => new MD5Digest(),
        HashAlgorithm.Sha1 => new Sha1Digest(),
        HashAlgorithm.Sha256 => new Sha256Digest(),
        HashAlgorithm.Sha384 => new Sha384Digest(),
        HashAlgorithm.Sha512 => new Sha512Digest(),
        HashAlgorithm.Sha224 => new Sha224Digest(),
        HashAlgorithm.Ripemd160 => new RipeMD160Digest(),
        _ => new SM3Digest(),
    };
}
