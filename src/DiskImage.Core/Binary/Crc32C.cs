using System.Numerics;
using System.Runtime.InteropServices;

namespace DiskImage.Binary;

/// <summary>CRC-32C (Castagnoli, RFC 3720 appendix B.4), by the processor's own instruction where it has one.</summary>
internal static class Crc32C
{
    /// <summary>The state before the first byte.</summary>
    public const uint Start = uint.MaxValue;

    /// <summary>The checksum of a run of bytes.</summary>
    public static uint Of(ReadOnlySpan<byte> bytes) => Finish(Add(Start, bytes));

    /// <summary>
    /// The checksum of a structure that holds its own checksum in four bytes, which count as zeroes.
    /// </summary>
    public static uint OfAllBut(ReadOnlySpan<byte> bytes, int checksumAt)
    {
        uint state = Add(Start, bytes[..checksumAt]);
        state = BitOperations.Crc32C(state, 0u);
        return Finish(Add(state, bytes[(checksumAt + sizeof(uint))..]));
    }

    /// <summary>Carries a state over further bytes.</summary>
    public static uint Add(uint state, ReadOnlySpan<byte> bytes)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes);
        foreach (ulong word in words)
        {
            state = BitOperations.Crc32C(state, BitConverter.IsLittleEndian
                ? word
                : System.Buffers.Binary.BinaryPrimitives.ReverseEndianness(word));
        }
        foreach (byte one in bytes[(words.Length * sizeof(ulong))..])
        {
            state = BitOperations.Crc32C(state, one);
        }
        return state;
    }

    /// <summary>The checksum of what a state was carried over.</summary>
    public static uint Finish(uint state) => ~state;
}
