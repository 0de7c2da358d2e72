using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;

namespace DiskImage.Crypto;

/// <summary>Makes the first vectors of sectors from their numbers.</summary>
internal abstract class IvGenerator : IDisposable
{
    /// <summary>Fills vectors, one behind the other.</summary>
    /// <param name="vectors">As many vectors as there are sectors.</param>
    /// <param name="length">Bytes of one: of a block of the cipher that is to use it.</param>
    /// <param name="number">The first sector's number.</param>
    /// <param name="step">From one number to the next.</param>
    public abstract void Fill(Span<byte> vectors, int length, long number, long step);

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>
/// The numbers in little endian, as wide as a block, encrypted once more where the generator has a cipher of its own (ESSIV).
/// </summary>
/// <param name="narrow">Numbers are cut to 32 bits ("plain").</param>
/// <param name="cipher">Encrypts them; null for none. It is the generator's.</param>
internal sealed class NumberIv(bool narrow, IBlockCipher? cipher) : IvGenerator
{
    public override void Fill(Span<byte> vectors, int length, long number, long step)
    {
        vectors.Clear();
        for (int at = 0; at < vectors.Length; at += length, number += step)
        {
            BinaryPrimitives.WriteInt64LittleEndian(vectors[at..], narrow ? number & uint.MaxValue : number);
        }
        cipher?.Encrypt(vectors, vectors);
    }

    public override void Dispose() => cipher?.Dispose();
}

/// <summary>A keyed hash (HMAC-SHA1) of the number of the block in 32 bits, big endian, as Apple's disk images have it.</summary>
/// <param name="key">The key, which is the generator's.</param>
/// <param name="unitsPerBlock">Units of 512 bytes, by which numbers are counted, in a block.</param>
internal sealed class HmacIv(SecretBuffer key, int unitsPerBlock) : IvGenerator
{
    [SuppressMessage("Security", "CA5350", Justification = "Apple's format has it so.")]
    public override void Fill(Span<byte> vectors, int length, long number, long step)
    {
        Span<byte> text = stackalloc byte[4], hash = stackalloc byte[HMACSHA1.HashSizeInBytes];
        for (int at = 0; at < vectors.Length; at += length, number += step)
        {
            BinaryPrimitives.WriteUInt32BigEndian(text, (uint)(number / unitsPerBlock));
            _ = HMACSHA1.HashData(key.Span, text, hash);
            hash[..length].CopyTo(vectors[at..]);
        }
    }

    public override void Dispose() => key.Dispose();
}
