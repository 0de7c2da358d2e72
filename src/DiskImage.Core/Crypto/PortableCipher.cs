using System.Collections.Concurrent;
using System.Security.Cryptography;
using Org.BouncyCastle.Crypto.Parameters;
using BouncyCipher = Org.BouncyCastle.Crypto.IBlockCipher;

namespace DiskImage.Crypto;

/// <summary>A block cipher that the platform lacks, from BouncyCastle. An engine is one thread's at a time, so there are several.</summary>
internal sealed class PortableCipher : IBlockCipher
{
    private readonly ConcurrentBag<BouncyCipher> _encryptors = [], _decryptors = [];
    private readonly Func<BouncyCipher> _make;
    private readonly SecretBuffer _key;

    /// <summary>With a key, which is copied.</summary>
    public PortableCipher(Func<BouncyCipher> make, ReadOnlySpan<byte> key)
    {
        (_make, _key) = (make, SecretBuffer.Of(key));
        BouncyCipher first = Made(forEncryption: true);
        BlockSize = first.GetBlockSize();
        _encryptors.Add(first);
    }

    public int BlockSize { get; }

    public void Encrypt(ReadOnlySpan<byte> input, Span<byte> output) => Run(_encryptors, forEncryption: true, input, output);

    public void Decrypt(ReadOnlySpan<byte> input, Span<byte> output) => Run(_decryptors, forEncryption: false, input, output);

    public void Dispose()
    {
        _encryptors.Clear();
        _decryptors.Clear();
        _key.Dispose();
    }

    private void Run(ConcurrentBag<BouncyCipher> engines, bool forEncryption, ReadOnlySpan<byte> input, Span<byte> output)
    {
        if (!engines.TryTake(out BouncyCipher? engine))
        {
            engine = Made(forEncryption);
        }
        for (int at = 0; at < input.Length; at += BlockSize)
        {
            _ = engine.ProcessBlock(input.Slice(at, BlockSize), output[at..]);
        }
        engines.Add(engine);
    }

    private BouncyCipher Made(bool forEncryption)
    {
        BouncyCipher engine = _make();
        byte[] key = _key.Span.ToArray(); // KeyParameter clones; this copy is cleared at once
        engine.Init(forEncryption, new KeyParameter(key));
        CryptographicOperations.ZeroMemory(key);
        return engine;
    }
}
