using System.Numerics;
using System.Runtime.InteropServices;

namespace DiskImage.Formats.Qcow2;

/// <summary>Bits of bitmap data: bit n is bit n % 8, from the lowest, of byte n / 8. Spec: qcow2, "Bitmap data".</summary>
internal static class Qcow2Bits
{
    /// <summary>Sets the bits [first, end); true if that changed one.</summary>
    public static bool Set(Span<byte> bits, long first, long end) => Fill(bits, first, end, byte.MaxValue);

    /// <summary>Clears the bits [first, end); true if that changed one.</summary>
    public static bool Clear(Span<byte> bits, long first, long end) => Fill(bits, first, end, 0);

    /// <summary>The first bit at or after <paramref name="from"/> that is set, or is clear; the number of bits if there is none.</summary>
    public static long Next(ReadOnlySpan<byte> bits, long from, bool set)
    {
        long end = bits.Length * 8L;
        if (from >= end)
        {
            return end;
        }
        byte boring = set ? (byte)0 : byte.MaxValue;
        int at = (int)(from >> 3);
        int rest = (bits[at] ^ boring) >> (int)(from & 7);
        if (rest != 0)
        {
            return from + BitOperations.TrailingZeroCount(rest);
        }
        int skipped = bits[(at + 1)..].IndexOfAnyExcept(boring);
        return skipped < 0 ? end : ((at + 1L + skipped) << 3) + BitOperations.TrailingZeroCount(bits[at + 1 + skipped] ^ boring);
    }

    /// <summary>How many bits are set.</summary>
    public static long Count(ReadOnlySpan<byte> bits)
    {
        long count = 0;
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bits);
        foreach (ulong word in words)
        {
            count += BitOperations.PopCount(word);
        }
        foreach (byte last in bits[(words.Length * sizeof(ulong))..])
        {
            count += BitOperations.PopCount(last);
        }
        return count;
    }

    private static bool Fill(Span<byte> bits, long first, long end, byte value)
    {
        if (first >= end)
        {
            return false;
        }
        int firstByte = (int)(first >> 3), lastByte = (int)((end - 1) >> 3);
        byte head = (byte)(byte.MaxValue << (int)(first & 7)), tail = (byte)(byte.MaxValue >> (7 - (int)((end - 1) & 7)));
        if (firstByte == lastByte)
        {
            return Put(ref bits[firstByte], (byte)(head & tail), value);
        }
        Span<byte> whole = bits[(firstByte + 1)..lastByte];
        bool changed = whole.ContainsAnyExcept(value);
        whole.Fill(value);
        changed |= Put(ref bits[firstByte], head, value);
        changed |= Put(ref bits[lastByte], tail, value);
        return changed;
    }

    private static bool Put(ref byte target, byte mask, byte value)
    {
        byte old = target;
        target = (byte)((old & ~mask) | (value & mask));
        return target != old;
    }
}
