using System.Numerics;
using DiskImage.Binary;

namespace DiskImage.Formats.Vhdx;

/// <summary>Runs of bits in a sector bitmap, where bit 0 is the lowest of byte 0. Spec: MS-VHDX 2.4.</summary>
internal static class VhdxBits
{
    private const int WordBits = 64;

    /// <summary>Length of the run of equal bits that begins at <paramref name="start"/>, up to <paramref name="end"/>.</summary>
    public static int Run(ReadOnlySpan<byte> bits, int start, int end, out bool value)
    {
        value = (bits[start / 8] & (1 << (start % 8))) != 0;
        int at = start;
        while (at < end)
        {
            int wordAt = at / WordBits * 8;
            ulong word = wordAt + 8 <= bits.Length ? LittleEndian.U64(bits, wordAt) : Last(bits[wordAt..]);
            word = (value ? ~word : word) >> (at % WordBits);
            if (word != 0)
            {
                return Math.Min(end, at + BitOperations.TrailingZeroCount(word)) - start;
            }
            at = (wordAt * 8) + WordBits;
        }
        return end - start;
    }

    /// <summary>Sets or clears the bits [start, end).</summary>
    public static void Set(Span<byte> bits, int start, int end, bool value)
    {
        while (start < end)
        {
            int bit = start % 8, count = Math.Min(8 - bit, end - start);
            if (count == 8)
            {
                int bytes = (end - start) / 8;
                bits.Slice(start / 8, bytes).Fill(value ? byte.MaxValue : (byte)0);
                start += bytes * 8;
                continue;
            }
            byte mask = (byte)(((1 << count) - 1) << bit);
            ref byte one = ref bits[start / 8];
            one = (byte)(value ? one | mask : one & ~mask);
            start += count;
        }
    }

    private static ulong Last(ReadOnlySpan<byte> bytes)
    {
        ulong word = 0;
        for (int i = 0; i < bytes.Length; i++)
        {
            word |= (ulong)bytes[i] << (i * 8);
        }
        return word;
    }
}
