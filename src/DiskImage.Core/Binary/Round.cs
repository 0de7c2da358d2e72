using System.Numerics;

namespace DiskImage.Binary;

/// <summary>Rounding to powers of two, checked against overflow.</summary>
internal static class Round
{
    /// <summary>The largest multiple of <paramref name="unit"/> (a power of two) that is at most <paramref name="value"/>.</summary>
    public static long Down(long value, long unit) => value & ~(unit - 1);

    /// <summary>The smallest multiple of <paramref name="unit"/> (a power of two) that is at least <paramref name="value"/>.</summary>
    /// <exception cref="OverflowException">It does not fit.</exception>
    public static long Up(long value, long unit) => checked(value + (unit - 1)) & ~(unit - 1);

    /// <summary>How many units (a power of two) cover <paramref name="value"/>; cannot overflow.</summary>
    public static long Units(long value, long unit)
    {
        int bits = BitOperations.TrailingZeroCount(unit);
        return (value >> bits) + ((value & (unit - 1)) == 0 ? 0 : 1);
    }
}
