using System.Buffers.Binary;
using System.Numerics;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// How often each symbol of an FSE code comes, in parts of 1 &lt;&lt; accuracy; −1 means "less than one part"
/// (RFC 8878, section 4.1.1).
/// </summary>
internal static class FseDistribution
{
    /// <summary>The largest symbol of any alphabet here.</summary>
    public const int MaxSymbol = 255;

    private const int MinAccuracy = 5;

    /// <summary>
    /// Reads a distribution; how many symbols it names and how many bytes it takes. False if it is damaged, finer than
    /// <paramref name="maxAccuracy"/> or names a symbol that <paramref name="counts"/> has no room for.
    /// </summary>
    public static bool TryRead(ReadOnlySpan<byte> input, Span<short> counts, int maxAccuracy, out int accuracy, out int symbols, out int used)
    {
        accuracy = symbols = used = 0;
        if (input.IsEmpty)
        {
            return false;
        }
        accuracy = (input[0] & 15) + MinAccuracy;
        if (accuracy > maxAccuracy)
        {
            return false;
        }
        int bit = 4;
        int remaining = 1 << accuracy;
        while (remaining > 0)
        {
            if (symbols >= counts.Length)
            {
                return false;
            }
            // A value of 0 … remaining + 1 in as few bits as hold it; the lowest values go without the top bit.
            int largest = remaining + 1;
            int width = 32 - BitOperations.LeadingZeroCount((uint)largest);
            int half = 1 << (width - 1);
            int shorter = (2 * half) - 1 - largest;
            int raw = (int)(Peek(input, bit) & (uint)((2 * half) - 1));
            int value = raw & (half - 1);
            if (value < shorter)
            {
                bit += width - 1;
            }
            else
            {
                value = raw < half ? raw : raw - shorter;
                bit += width;
            }
            int count = value - 1;
            counts[symbols++] = (short)count;
            remaining -= Math.Abs(count);
            for (uint more = count == 0 ? 3u : 0; more == 3;)
            {
                more = Peek(input, bit) & 3;
                bit += 2;
                if (more > counts.Length - symbols)
                {
                    return false;
                }
                counts.Slice(symbols, (int)more).Clear();
                symbols += (int)more;
            }
        }
        used = (bit + 7) >> 3;
        return used <= input.Length;
    }

    /// <summary>The bits from a place on, with zeroes behind the end.</summary>
    private static uint Peek(ReadOnlySpan<byte> input, int bit)
    {
        int at = bit >> 3;
        if (at <= input.Length - sizeof(uint))
        {
            return BinaryPrimitives.ReadUInt32LittleEndian(input[at..]) >> (bit & 7);
        }
        uint value = 0;
        for (int i = at; i < input.Length; i++)
        {
            value |= (uint)input[i] << (8 * (i - at));
        }
        return value >> (bit & 7);
    }
}
