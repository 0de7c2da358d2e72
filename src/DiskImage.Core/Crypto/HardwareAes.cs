using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Cpu = System.Runtime.Intrinsics.X86.Aes;

namespace DiskImage.Crypto;

/// <summary>
/// AES by the processor's own instructions, whose time does not depend on what they work on. Unlike the platform's it allocates nothing for
/// a request and keeps its round keys in one place, which is cleared. Spec: FIPS 197, sections 5.1 to 5.3.
/// </summary>
internal sealed class HardwareAes : IBlockCipher
{
    private const int Block = 16, Word = 4, Wide = 8; // blocks at a time: as many as keep the unit for AES busy

    private readonly SecretBuffer _keys; // those of encryption, then those of decryption
    private readonly int _rounds;
    private bool _isDisposed;

    /// <summary>With a key of 16, 24 or 32 bytes, which is copied.</summary>
    public HardwareAes(ReadOnlySpan<byte> key)
    {
        _rounds = (key.Length / Word) + 6;
        _keys = new SecretBuffer(2 * (_rounds + 1) * Block);
        Expand(key, MemoryMarshal.Cast<byte, uint>(Keys(isDecryption: false)));
        Span<Vector128<byte>> encrypting = Vectors(Keys(isDecryption: false)), decrypting = Vectors(Keys(isDecryption: true));
        for (int i = 0; i <= _rounds; i++)
        {
            Vector128<byte> round = encrypting[_rounds - i];
            decrypting[i] = i == 0 || i == _rounds ? round : Cpu.InverseMixColumns(round);
        }
    }

    /// <summary>True if the processor has the instructions.</summary>
    public static bool IsSupported => Cpu.IsSupported;

    public int BlockSize => Block;

    public void Encrypt(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        ReadOnlySpan<Vector128<byte>> keys = Vectors(Keys(isDecryption: false)), from = MemoryMarshal.Cast<byte, Vector128<byte>>(input);
        Span<Vector128<byte>> to = Vectors(output)[..from.Length];
        for (; from.Length >= Wide; from = from[Wide..], to = to[Wide..])
        {
            EncryptWide(keys, from, to);
        }
        for (int i = 0; i < from.Length; i++)
        {
            Vector128<byte> state = from[i] ^ keys[0];
            for (int round = 1; round < keys.Length - 1; round++)
            {
                state = Cpu.Encrypt(state, keys[round]);
            }
            to[i] = Cpu.EncryptLast(state, keys[^1]);
        }
    }

    public void Decrypt(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        ReadOnlySpan<Vector128<byte>> keys = Vectors(Keys(isDecryption: true)), from = MemoryMarshal.Cast<byte, Vector128<byte>>(input);
        Span<Vector128<byte>> to = Vectors(output)[..from.Length];
        for (; from.Length >= Wide; from = from[Wide..], to = to[Wide..])
        {
            DecryptWide(keys, from, to);
        }
        for (int i = 0; i < from.Length; i++)
        {
            Vector128<byte> state = from[i] ^ keys[0];
            for (int round = 1; round < keys.Length - 1; round++)
            {
                state = Cpu.Decrypt(state, keys[round]);
            }
            to[i] = Cpu.DecryptLast(state, keys[^1]);
        }
    }

    public void Dispose()
    {
        _isDisposed = true;
        _keys.Dispose();
    }

    /// <summary>Eight blocks side by side: a round of one takes several cycles, and the next block's can begin in each.</summary>
    private static void EncryptWide(
        ReadOnlySpan<Vector128<byte>> keys, ReadOnlySpan<Vector128<byte>> from, Span<Vector128<byte>> to)
    {
        Vector128<byte> key = keys[0];
        Vector128<byte> a = from[0] ^ key, b = from[1] ^ key, c = from[2] ^ key, d = from[3] ^ key;
        Vector128<byte> e = from[4] ^ key, f = from[5] ^ key, g = from[6] ^ key, h = from[7] ^ key;
        for (int round = 1; round < keys.Length - 1; round++)
        {
            key = keys[round];
            (a, b, c, d) = (Cpu.Encrypt(a, key), Cpu.Encrypt(b, key), Cpu.Encrypt(c, key), Cpu.Encrypt(d, key));
            (e, f, g, h) = (Cpu.Encrypt(e, key), Cpu.Encrypt(f, key), Cpu.Encrypt(g, key), Cpu.Encrypt(h, key));
        }
        key = keys[^1];
        (to[0], to[1], to[2], to[3])
            = (Cpu.EncryptLast(a, key), Cpu.EncryptLast(b, key), Cpu.EncryptLast(c, key), Cpu.EncryptLast(d, key));
        (to[4], to[5], to[6], to[7])
            = (Cpu.EncryptLast(e, key), Cpu.EncryptLast(f, key), Cpu.EncryptLast(g, key), Cpu.EncryptLast(h, key));
    }

    private static void DecryptWide(
        ReadOnlySpan<Vector128<byte>> keys, ReadOnlySpan<Vector128<byte>> from, Span<Vector128<byte>> to)
    {
        Vector128<byte> key = keys[0];
        Vector128<byte> a = from[0] ^ key, b = from[1] ^ key, c = from[2] ^ key, d = from[3] ^ key;
        Vector128<byte> e = from[4] ^ key, f = from[5] ^ key, g = from[6] ^ key, h = from[7] ^ key;
        for (int round = 1; round < keys.Length - 1; round++)
        {
            key = keys[round];
            (a, b, c, d) = (Cpu.Decrypt(a, key), Cpu.Decrypt(b, key), Cpu.Decrypt(c, key), Cpu.Decrypt(d, key));
            (e, f, g, h) = (Cpu.Decrypt(e, key), Cpu.Decrypt(f, key), Cpu.Decrypt(g, key), Cpu.Decrypt(h, key));
        }
        key = keys[^1];
        (to[0], to[1], to[2], to[3])
            = (Cpu.DecryptLast(a, key), Cpu.DecryptLast(b, key), Cpu.DecryptLast(c, key), Cpu.DecryptLast(d, key));
        (to[4], to[5], to[6], to[7])
            = (Cpu.DecryptLast(e, key), Cpu.DecryptLast(f, key), Cpu.DecryptLast(g, key), Cpu.DecryptLast(h, key));
    }

    /// <summary>The key schedule of section 5.2; the words are in the bytes' order, which here is little endian.</summary>
    private static void Expand(ReadOnlySpan<byte> key, Span<uint> words)
    {
        MemoryMarshal.Cast<byte, uint>(key).CopyTo(words);
        int length = key.Length / Word;
        for ((int i, uint constant) = (length, 1); i < words.Length; i++)
        {
            uint word = words[i - 1];
            if (i % length == 0)
            {
                word = Substitute(BitOperations.RotateRight(word, 8)) ^ constant;
                constant = (constant << 1) ^ (constant >> 7 == 0 ? 0u : 0x11B);
            }
            else if (length > 6 && i % length == 4)
            {
                word = Substitute(word);
            }
            words[i] = words[i - length] ^ word;
        }
    }

    /// <summary>SubWord: the last round without a key, of four equal columns, which shifting their rows leaves equal.</summary>
    private static uint Substitute(uint word) => Cpu.EncryptLast(Vector128.Create(word).AsByte(), default).AsUInt32().ToScalar();

    private static Span<Vector128<byte>> Vectors(Span<byte> bytes) => MemoryMarshal.Cast<byte, Vector128<byte>>(bytes);

    private Span<byte> Keys(bool isDecryption)
    {
        int half = _keys.Length / 2;
        return _keys.Span.Slice(isDecryption ? half : 0, half);
    }
}
