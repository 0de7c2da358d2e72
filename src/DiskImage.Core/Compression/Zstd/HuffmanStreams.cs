using System.Numerics;
using System.Runtime.CompilerServices;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// Decodes Huffman-coded literals from one stream, or from four that each hold a quarter (RFC 8878, sections 3.1.1.3.1.6
/// and 4.2.2).
/// </summary>
/// <remarks>
/// One stream is a chain: where a symbol starts is known when the one before it is. Four streams are four chains that the
/// processor follows at once, as long as their states stay in registers; so a state is only two numbers. The stream's next bits
/// stand at the top of a word whose lowest bit is a 1 that travels up as bits are shifted out: its place tells how many are
/// gone. Before a round of five symbols per stream it is known that each has the bytes to refill from and the output the room:
/// how many such rounds are safe is computed ahead, until none is; the careful reader finishes each stream and judges it.
/// </remarks>
internal static unsafe class HuffmanStreams
{
    private const int SymbolsPerRound = 5; // 5 × 11 bits, of at least 56 that a refill leaves behind
    private const int BytesPerRound = 7;
    private const int JumpTableBytes = 6;

    /// <summary>Fills the output from one stream, which must hold exactly that.</summary>
    public static bool TryDecodeOne(ushort* cells, byte* input, long inputLength, byte* output, long outputLength)
        => BackwardBitReader.TryOpen(input, inputLength, out BackwardBitReader bits) && Finish(cells, bits, output, outputLength);

    /// <summary>Fills the output from a jump table and four streams, which must hold exactly that.</summary>
    public static bool TryDecodeFour(ushort* cells, byte* input, long inputLength, byte* output, long outputLength)
    {
        if (inputLength < JumpTableBytes + 4 || outputLength < 6)
        {
            return false;
        }
        long quarter = (outputLength + 3) / 4;
        long length0 = input[0] | (input[1] << 8);
        long length1 = input[2] | (input[3] << 8);
        long length2 = input[4] | (input[5] << 8);
        long length3 = inputLength - JumpTableBytes - length0 - length1 - length2;
        byte* start0 = input + JumpTableBytes;
        byte* start1 = start0 + length0;
        byte* start2 = start1 + length1;
        byte* start3 = start2 + length2;
        if (length3 < 1 || length0 < 1 || length1 < 1 || length2 < 1)
        {
            return false;
        }
        byte* out0 = output;
        byte* out1 = output + quarter;
        byte* out2 = out1 + quarter;
        byte* out3 = out2 + quarter;
        long left = outputLength - (3 * quarter); // of the last, which is the shortest
        if (Math.Min(Math.Min(length0, length1), Math.Min(length2, length3)) >= sizeof(ulong)
            && start0[length0 - 1] != 0 && start1[length1 - 1] != 0 && start2[length2 - 1] != 0 && start3[length3 - 1] != 0)
        {
            byte* window0 = start0 + length0 - sizeof(ulong);
            byte* window1 = start1 + length1 - sizeof(ulong);
            byte* window2 = start2 + length2 - sizeof(ulong);
            byte* window3 = start3 + length3 - sizeof(ulong);
            ulong bits0 = Open(window0);
            ulong bits1 = Open(window1);
            ulong bits2 = Open(window2);
            ulong bits3 = Open(window3);
            while (true)
            {
                long bytes = Math.Min(
                    Math.Min(window0 - start0, window1 - start1),
                    Math.Min(window2 - start2, window3 - start3));
                long rounds = Math.Min(bytes / BytesPerRound, left / SymbolsPerRound);
                if (rounds == 0)
                {
                    break;
                }
                left -= rounds * SymbolsPerRound;
                for (byte* end = out0 + (rounds * SymbolsPerRound); out0 != end;)
                {
                    Step(cells, ref bits0, out0);
                    Step(cells, ref bits1, out1);
                    Step(cells, ref bits2, out2);
                    Step(cells, ref bits3, out3);
                    Step(cells, ref bits0, out0 + 1);
                    Step(cells, ref bits1, out1 + 1);
                    Step(cells, ref bits2, out2 + 1);
                    Step(cells, ref bits3, out3 + 1);
                    Step(cells, ref bits0, out0 + 2);
                    Step(cells, ref bits1, out1 + 2);
                    Step(cells, ref bits2, out2 + 2);
                    Step(cells, ref bits3, out3 + 2);
                    Step(cells, ref bits0, out0 + 3);
                    Step(cells, ref bits1, out1 + 3);
                    Step(cells, ref bits2, out2 + 3);
                    Step(cells, ref bits3, out3 + 3);
                    Step(cells, ref bits0, out0 + 4);
                    Step(cells, ref bits1, out1 + 4);
                    Step(cells, ref bits2, out2 + 4);
                    Step(cells, ref bits3, out3 + 4);
                    out0 += SymbolsPerRound;
                    out1 += SymbolsPerRound;
                    out2 += SymbolsPerRound;
                    out3 += SymbolsPerRound;
                    Refill(ref bits0, ref window0);
                    Refill(ref bits1, ref window1);
                    Refill(ref bits2, ref window2);
                    Refill(ref bits3, ref window3);
                }
            }
            return Finish(cells, new(start0, window0, Used(bits0)), out0, output + quarter - out0)
                && Finish(cells, new(start1, window1, Used(bits1)), out1, output + (2 * quarter) - out1)
                && Finish(cells, new(start2, window2, Used(bits2)), out2, output + (3 * quarter) - out2)
                && Finish(cells, new(start3, window3, Used(bits3)), out3, output + outputLength - out3);
        }
        return left >= 0
            && TryDecodeOne(cells, start0, length0, out0, quarter)
            && TryDecodeOne(cells, start1, length1, out1, quarter)
            && TryDecodeOne(cells, start2, length2, out2, quarter)
            && TryDecodeOne(cells, start3, length3, out3, left);
    }

    /// <summary>The last bits of a stream behind its padding, over the 1 that counts.</summary>
    private static ulong Open(byte* window)
    {
        ulong bits = BackwardBitReader.LoadUInt64(window);
        return (bits | 1) << (BitOperations.LeadingZeroCount(bits) + 1);
    }

    /// <summary>How many bits of the word are used up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Used(ulong bits) => BitOperations.TrailingZeroCount(bits);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Step(ushort* cells, ref ulong bits, byte* output)
    {
        uint cell = cells[bits >> (64 - HuffmanTable.Bits)];
        bits <<= (byte)cell;
        *output = (byte)(cell >> 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Refill(ref ulong bits, ref byte* window)
    {
        int used = Used(bits);
        window -= used >> 3;
        bits = (BackwardBitReader.LoadUInt64(window) | 1) << (used & 7);
    }

    /// <summary>Decodes to the end, with every bound looked at. False unless bits and output end together.</summary>
    private static bool Finish(ushort* cells, BackwardBitReader bits, byte* output, long count)
    {
        if (count < 0)
        {
            return false;
        }
        for (; count >= SymbolsPerRound; count -= SymbolsPerRound, output += SymbolsPerRound)
        {
            bits.Refill();
            Step(cells, ref bits, output);
            Step(cells, ref bits, output + 1);
            Step(cells, ref bits, output + 2);
            Step(cells, ref bits, output + 3);
            Step(cells, ref bits, output + 4);
            if (bits.IsOverrun)
            {
                return false;
            }
        }
        bits.Refill();
        for (; count > 0; count--, output++)
        {
            Step(cells, ref bits, output);
        }
        bits.Refill();
        return bits.IsExhausted;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Step(ushort* cells, ref BackwardBitReader bits, byte* output)
    {
        uint cell = cells[bits.Peek(HuffmanTable.Bits)];
        bits.Skip((byte)cell);
        *output = (byte)(cell >> 8);
    }
}
