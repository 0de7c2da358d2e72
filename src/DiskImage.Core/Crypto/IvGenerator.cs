using System.Buffers.Binary;

namespace DiskImage.Crypto;

/// <summary>
/// Makes the first vectors of sectors: their numbers in little endian, as wide as a block, encrypted once more where the generator has a
/// cipher of its own (ESSIV).
/// </summary>
/// <param name="narrow">Numbers are cut to 32 bits ("plain").</param>
/// <param name="cipher">Encrypts them; null for none. It is the generator's.</param>
internal sealed class IvGenerator(bool narrow, IBlockCipher? cipher) : IDisposable
{
    /// <summary>Fills vectors, one behind the other.</summary>
    /// <param name="vectors">As many vectors as there are sectors.</param>
    /// <param name="length">Bytes of one: of a block of the cipher that is to use it.</param>
    /// <param name="number">The first sector's number.</param>
    /// <param name="step">From one number to the next.</param>
    public void Fill(Span<byte> vectors, int length, long number, long step)
    {
        vectors.Clear();
        for (int at = 0; at < vectors.Length; at += length, number += step)
        {
            BinaryPrimitives.WriteInt64LittleEndian(vectors[at..], narrow ? number & uint.MaxValue : number);
        }
        cipher?.Encrypt(vectors, vectors);
    }

    public void Dispose() => cipher?.Dispose();
}
