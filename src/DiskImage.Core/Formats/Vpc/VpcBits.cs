namespace DiskImage.Formats.Vpc;

/// <summary>Bits of a sector bitmap, the first sector in the highest bit. Spec: "Block Allocation Table and Data Blocks".</summary>
internal static class VpcBits
{
    public static bool Get(ReadOnlySpan<byte> bits, int index) => (bits[index >> 3] & (0x80 >> (index & 7))) != 0;

    /// <summary>How many bits from <paramref name="index"/> on, before <paramref name="end"/>, are <paramref name="value"/>.</summary>
    public static int Run(ReadOnlySpan<byte> bits, int index, int end, bool value)
    {
        int at = index;
        while (at < end && (at & 7) != 0)
        {
            if (Get(bits, at) != value)
            {
                return at - index;
            }
            at++;
        }
        if (at >= end)
        {
            return end - index;
        }
        int whole = bits[(at >> 3)..((end + 7) >> 3)].IndexOfAnyExcept(value ? (byte)0xFF : (byte)0);
        if (whole < 0)
        {
            return end - index;
        }
        at += whole << 3;
        while (at < end && Get(bits, at) == value)
        {
            at++;
        }
        return Math.Min(at, end) - index;
    }

    /// <summary>Sets the bits [index, end).</summary>
    public static void Set(Span<byte> bits, int index, int end)
    {
        while (index < end && (index & 7) != 0)
        {
            SetOne(bits, index++);
        }
        if (end - index >= 8)
        {
            bits[(index >> 3)..(end >> 3)].Fill(0xFF);
            index = end & ~7;
        }
        while (index < end)
        {
            SetOne(bits, index++);
        }
    }

    private static void SetOne(Span<byte> bits, int index) => bits[index >> 3] |= (byte)(0x80 >> (index & 7));
}
