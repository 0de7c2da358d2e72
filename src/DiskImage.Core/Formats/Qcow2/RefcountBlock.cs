using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Reads and writes refcounts of 1 to 64 bits in a refcount block. Widths below a byte begin at the least significant bit.
/// Spec: qcow2, "Host cluster management".
/// </summary>
internal static class RefcountBlock
{
    public static ulong Get(ReadOnlySpan<byte> block, int index, int order) => order switch
    {
        4 => BinaryPrimitives.ReadUInt16BigEndian(block[(index * 2)..]),
        3 => block[index],
        5 => BinaryPrimitives.ReadUInt32BigEndian(block[(index * 4)..]),
        6 => BinaryPrimitives.ReadUInt64BigEndian(block[(index * 8)..]),
        _ => (ulong)(block[BitByte(index, order)] >> BitShift(index, order)) & ((1UL << (1 << order)) - 1),
    };

    /// <summary>Sets a refcount that fits the width; returns the bytes of the block that changed.</summary>
    public static (int Start, int Length) Set(Span<byte> block, int index, int order, ulong value)
    {
        switch (order)
        {
            case 4:
                BinaryPrimitives.WriteUInt16BigEndian(block[(index * 2)..], (ushort)value);
                return (index * 2, 2);
            case 3:
                block[index] = (byte)value;
                return (index, 1);
            case 5:
                BinaryPrimitives.WriteUInt32BigEndian(block[(index * 4)..], (uint)value);
                return (index * 4, 4);
            case 6:
                BinaryPrimitives.WriteUInt64BigEndian(block[(index * 8)..], value);
                return (index * 8, 8);
            default:
                int at = BitByte(index, order), shift = BitShift(index, order);
                int mask = ((1 << (1 << order)) - 1) << shift;
                block[at] = (byte)((block[at] & ~mask) | ((int)value << shift));
                return (at, 1);
        }
    }

    /// <summary>
    /// Index of the first refcount at or after <paramref name="from"/> that is zero; <paramref name="end"/> if none is before it.
    /// </summary>
    public static int NextFree(ReadOnlySpan<byte> block, int from, int end, int order)
    {
        if (order == 4)
        {
            int at = MemoryMarshal.Cast<byte, ushort>(block)[from..end].IndexOf((ushort)0); // zero is zero in either byte order
            return at < 0 ? end : from + at;
        }
        while (from < end && Get(block, from, order) != 0)
        {
            from++;
        }
        return from;
    }

    /// <summary>
    /// Index of the first refcount at or after <paramref name="from"/> that is not zero; <paramref name="end"/> if none is before it.
    /// </summary>
    public static int NextUsed(ReadOnlySpan<byte> block, int from, int end, int order)
    {
        if (order == 4)
        {
            int at = MemoryMarshal.Cast<byte, ushort>(block)[from..end].IndexOfAnyExcept((ushort)0);
            return at < 0 ? end : from + at;
        }
        while (from < end && Get(block, from, order) == 0)
        {
            from++;
        }
        return from;
    }

    private static int BitByte(int index, int order) => index >> (3 - order);

    private static int BitShift(int index, int order) => (index << order) & 7;
}
