using System.Security.Cryptography;
using Org.BouncyCastle.Crypto.Generators;
using Org.BouncyCastle.Crypto.Parameters;

namespace DiskImage.Crypto;

/// <summary>Argon2 (RFC 9106), a key derivation that takes memory as well as time.</summary>
internal static class Argon2
{
    /// <summary>A key from a passphrase. Never cancelled: the caller bounds what it takes.</summary>
    /// <param name="isHybrid">Argon2id, else Argon2i.</param>
    /// <param name="passphrase">The passphrase.</param>
    /// <param name="salt">The salt.</param>
    /// <param name="passes">How often it goes over the memory.</param>
    /// <param name="memoryKib">The memory, in KiB.</param>
    /// <param name="lanes">Parallel lanes.</param>
    /// <param name="key">Gets the key.</param>
    /// <param name="pepper">A further secret; LUKS has none.</param>
    /// <param name="associated">Associated data; LUKS has none.</param>
    public static void Derive(
        bool isHybrid,
        ReadOnlySpan<byte> passphrase,
        byte[] salt,
        int passes,
        int memoryKib,
        int lanes,
        Span<byte> key,
        byte[]? pepper = null,
        byte[]? associated = null)
    {
        Argon2Parameters parameters = new Argon2Parameters.Builder(isHybrid ? Argon2Parameters.Argon2id : Argon2Parameters.Argon2i)
            .WithVersion(Argon2Parameters.Version13)
            .WithIterations(passes)
            .WithMemoryAsKB(memoryKib)
            .WithParallelism(lanes)
            .WithSalt(salt)
            .WithSecret(pepper ?? [])
            .WithAdditional(associated ?? [])
            .Build();
        var generator = new Argon2BytesGenerator();
        generator.Init(parameters);
        byte[] secret = passphrase.ToArray(), made = new byte[key.Length]; // what it takes; cleared at once
        _ = generator.GenerateBytes(secret, made);
        made.CopyTo(key);
        CryptographicOperations.ZeroMemory(secret);
        CryptographicOperations.ZeroMemory(made);
    }
}
