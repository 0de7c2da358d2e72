using System.Runtime.InteropServices;

namespace DiskImage.Compression;

/// <summary>
/// Tells bytes that no method makes smaller (encrypted, compressed, random ones) from others, in a twentieth of the time of deflating them
/// in vain.
/// </summary>
/// <remarks>
/// Two questions, both to be answered with yes. Is every value as frequent as any other? The chi-squared sum of a sample says: of noise
/// it is near the number of values, of text, code and tables many times that. And does nothing come twice? Words at multiples of their
/// length leave marks in a small table; of noise few find theirs there. A mistake costs bytes, never data: what is taken for noise is
/// stored as it is.
/// </remarks>
internal static class Noise
{
    private const int Least = 16 << 10; // bytes: of fewer nothing can be told
    private const int Samples = 4096, SampleRun = 16, Values = 256;
    private const int MostUneven = 400; // the sum's mean is 255 for noise, its deviation 23: six of these and some
    private const int MarkBits = 17; // a table of 16 KiB
    private const int Part = 64 << 10, Word = sizeof(ulong); // repetitions further apart than a window of deflate do not count

    /// <summary>True if there is no use in compressing a block.</summary>
    public static bool Is(ReadOnlySpan<byte> block) => block.Length >= Least && IsEven(block) && !Repeats(block);

    private static bool IsEven(ReadOnlySpan<byte> block)
    {
        Span<int> counts = stackalloc int[Values];
        counts.Clear();
        int step = block.Length / (Samples / SampleRun);
        for (int at = 0, run = 0; run < Samples / SampleRun; run++, at += step)
        {
            foreach (byte value in block.Slice(at, SampleRun))
            {
                counts[value]++;
            }
        }
        const int Expected = Samples / Values;
        int sum = 0;
        foreach (int count in counts)
        {
            sum += (count - Expected) * (count - Expected);
        }
        return sum / Expected <= MostUneven;
    }

    private static bool Repeats(ReadOnlySpan<byte> block)
    {
        Span<ulong> marks = stackalloc ulong[1 << (MarkBits - 6)];
        for (; block.Length >= Word; block = block[Math.Min(Part, block.Length)..])
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(block[..Math.Min(Part, block.Length)]);
            marks.Clear();
            int found = 0;
            foreach (ulong word in words)
            {
                int mark = (int)((word * 0x9E37_79B9_7F4A_7C15) >> (64 - MarkBits));
                ulong bit = 1UL << (mark & 63);
                found += (marks[mark >> 6] & bit) != 0 ? 1 : 0;
                marks[mark >> 6] |= bit;
            }
            // Of n different words about n * n / (2 * marks) find a mark of another; twice that and a few are repetitions.
            if (found > ((long)words.Length * words.Length >> MarkBits) + 64)
            {
                return true;
            }
        }
        return false;
    }
}
