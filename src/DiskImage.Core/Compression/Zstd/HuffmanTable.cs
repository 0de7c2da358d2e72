using System.Numerics;
using System.Runtime.InteropServices;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// The prefix code of literals: the next <see cref="Bits"/> bits of a stream are the index of a cell that tells the symbol and
/// how many of those bits it took (RFC 8878, section 4.2).
/// </summary>
/// <remarks>
/// The table always has the depth of the deepest tree allowed, whatever the tree: the shifts of the decoder are constants then.
/// Codes are given out from the longest to the shortest, within one length by symbol, so each symbol owns a run of cells, the
/// runs lie behind each other, and the check that the weights add up to a power of two is also the proof that they fill the
/// table exactly.
/// </remarks>
internal sealed unsafe class HuffmanTable
{
    /// <summary>The longest code, in bits (the RFC's limit).</summary>
    public const int Bits = 11;

    private const int MaxWeights = 255; // and one more, which follows from the others

    private readonly ushort[] _storage;
    private readonly FseTable _weightTable = new(SymbolMeaning.Weight.MaxAccuracy);
    private readonly byte[] _weights = new byte[MaxWeights + 1];
    private readonly short[] _counts = new short[FseDistribution.MaxSymbol + 1];

    /// <summary>An empty table.</summary>
    public HuffmanTable()
    {
        _storage = GC.AllocateArray<ushort>(1 << Bits, pinned: true);
        Cells = (ushort*)Marshal.UnsafeAddrOfPinnedArrayElement(_storage, 0);
    }

    /// <summary>1 &lt;&lt; <see cref="Bits"/> cells: the symbol in the upper byte, the length of its code in the lower.</summary>
    public ushort* Cells { get; }

    /// <summary>A tree was read since the frame began.</summary>
    public bool IsReady { get; set; }

    /// <summary>Reads a tree description (section 4.2.1) and builds the table; how many bytes it took. False if it is damaged.</summary>
    public bool TryRead(ReadOnlySpan<byte> input, out int used)
    {
        used = 0;
        IsReady = false;
        if (input.IsEmpty)
        {
            return false;
        }
        int header = input[0];
        int weights;
        if (header >= 128)
        {
            weights = header - 127;
            used = 1 + ((weights + 1) / 2);
            if (used > input.Length)
            {
                return false;
            }
            for (int i = 0; i < weights; i++)
            {
                int pair = input[1 + (i / 2)];
                _weights[i] = (byte)((i & 1) == 0 ? pair >> 4 : pair & 15);
            }
        }
        else
        {
            used = 1 + header;
            if (used > input.Length || !TryReadWeights(input[1..used], out weights))
            {
                return false;
            }
        }
        IsReady = TryBuild(weights);
        return IsReady;
    }

    /// <summary>Weights as an FSE stream with two states that take turns (section 4.2.1.2).</summary>
    private bool TryReadWeights(ReadOnlySpan<byte> input, out int count)
    {
        count = 0;
        if (!FseDistribution.TryRead(input, _counts, _weightTable.MaxAccuracy, out int accuracy, out int symbols, out int used))
        {
            return false;
        }
        _weightTable.Build(_counts.AsSpan(0, symbols), accuracy, SymbolMeaning.Weight);
        fixed (byte* stream = input)
        {
            if (!BackwardBitReader.TryOpen(stream + used, input.Length - used, out BackwardBitReader bits))
            {
                return false;
            }
            FseCell* current = _weightTable.Cells + bits.Read(accuracy);
            FseCell* other = _weightTable.Cells + bits.Read(accuracy);
            if (bits.IsOverrun)
            {
                return false;
            }
            // The stream ends where a state cannot be followed by another; the other state's symbol is the last.
            while (count < MaxWeights - 1)
            {
                bits.Refill();
                _weights[count++] = (byte)current->Base;
                FseCell* next = _weightTable.Cells + current->NextBase + bits.Read(current->NextBits);
                if (bits.IsOverrun)
                {
                    _weights[count++] = (byte)other->Base;
                    return true;
                }
                current = other;
                other = next;
            }
            return false;
        }
    }

    /// <summary>Finds the last weight and gives each symbol its run of cells (section 4.2.1.3).</summary>
    private bool TryBuild(int count)
    {
        int* symbolsOf = stackalloc int[Bits + 1];
        new Span<int>(symbolsOf, Bits + 1).Clear();
        int sum = 0;
        for (int i = 0; i < count; i++)
        {
            int weight = _weights[i];
            if (weight > Bits)
            {
                return false;
            }
            symbolsOf[weight]++;
            sum += (1 << weight) >> 1;
        }
        if (sum is 0 or >= 1 << Bits)
        {
            return false;
        }
        int depth = BitOperations.Log2((uint)sum) + 1;
        int rest = (1 << depth) - sum;
        if (!BitOperations.IsPow2(rest))
        {
            return false;
        }
        int last = BitOperations.Log2((uint)rest) + 1;
        _weights[count++] = (byte)last;
        symbolsOf[last]++;
        if (symbolsOf[1] == 0)
        {
            return false;
        }
        int* startOf = stackalloc int[Bits + 1];
        int start = 0;
        int unit = 1 << (Bits - depth); // the cells of a symbol of weight 1
        for (int weight = 1; weight <= depth; weight++)
        {
            startOf[weight] = start;
            start += symbolsOf[weight] * (unit << (weight - 1));
        }
        for (int symbol = 0; symbol < count; symbol++)
        {
            int weight = _weights[symbol];
            if (weight == 0)
            {
                continue;
            }
            int run = unit << (weight - 1);
            Fill(Cells + startOf[weight], run, (ushort)((symbol << 8) | (depth + 1 - weight)));
            startOf[weight] += run;
        }
        return true;
    }

    /// <summary>Fills a run of a power of two of cells.</summary>
    private static void Fill(ushort* cells, int run, ushort cell)
    {
        if (run >= 4)
        {
            ulong four = cell * 0x0001_0001_0001_0001UL;
            for (int i = 0; i < run; i += 4)
            {
                *(ulong*)(cells + i) = four;
            }
            return;
        }
        cells[0] = cell;
        if (run == 2)
        {
            cells[1] = cell;
        }
    }
}
