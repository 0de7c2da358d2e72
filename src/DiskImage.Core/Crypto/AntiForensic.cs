using System.Buffers.Binary;
using System.Security.Cryptography;

namespace DiskImage.Crypto;

/// <summary>
/// Blows a key up to many stripes, all of which are needed to get it back: so that it is gone when any of them is overwritten. Spec: LUKS1
/// on-disk format, "Anti-forensic information splitter".
/// </summary>
internal static class AntiForensic
{
    /// <summary>Splits a key into stripes; <paramref name="split"/> is a multiple of it.</summary>
    public static void Split(HashAlgorithm hash, ReadOnlySpan<byte> key, Span<byte> split)
    {
        using var sum = new SecretBuffer(key.Length);
        int last = split.Length - key.Length;
        RandomNumberGenerator.Fill(split[..last]);
        for (int at = 0; at < last; at += key.Length)
        {
            Xor.Into(sum.Span, split.Slice(at, key.Length));
            Diffuse(hash, sum.Span);
        }
        key.CopyTo(split[last..]);
        Xor.Into(split[last..], sum.Span);
    }

    /// <summary>Gets a key back from its stripes.</summary>
    public static void Merge(HashAlgorithm hash, ReadOnlySpan<byte> split, Span<byte> key)
    {
        key.Clear();
        int last = split.Length - key.Length;
        for (int at = 0; at < last; at += key.Length)
        {
            Xor.Into(key, split.Slice(at, key.Length));
            Diffuse(hash, key);
        }
        Xor.Into(key, split[last..]);
    }

    /// <summary>Replaces each run as long as a digest by the digest of its number and itself.</summary>
    private static void Diffuse(HashAlgorithm hash, Span<byte> data)
    {
        Span<byte> digest = stackalloc byte[Hashes.MostBytes], number = stackalloc byte[4];
        int length = hash.Length();
        for (int i = 0, at = 0; at < data.Length; i++, at += length)
        {
            BinaryPrimitives.WriteInt32BigEndian(number, i);
            Span<byte> part = data.Slice(at, Math.Min(length, data.Length - at));
            hash.Hash(number, part, digest);
            digest[..part.Length].CopyTo(part);
        }
        CryptographicOperations.ZeroMemory(digest);
    }
}
