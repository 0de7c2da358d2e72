using System.Numerics;
using System.Runtime.InteropServices;

namespace DiskImage.Compression.Zstd;

/// <summary>One state of an FSE decoder: what it means, and where it leads (RFC 8878, section 4.1).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct FseCell
{
    /// <summary>The symbol, or what it stands for: the start of a range of lengths or offsets.</summary>
    public uint Base;

    /// <summary>The next state, less the bits to be read for it.</summary>
    public ushort NextBase;

    /// <summary>How many bits to read for the next state.</summary>
    public byte NextBits;

    /// <summary>How many bits to read and add to <see cref="Base"/>.</summary>
    public byte ExtraBits;
}

/// <summary>
/// Decoding tables of FSE codes, in memory that does not move. One table is built again and again in its place; it can also
/// point at a predefined one.
/// </summary>
/// <remarks>
/// Building (RFC 8878, section 4.1.1): rare symbols take the last cells, one each; the others are strewn over the rest with a
/// step that visits every cell. Then each symbol's cells, in order, share all states among them in ranges of a power of two.
/// The number of cells is the sum that <see cref="FseDistribution"/> guarantees, so no write leaves the table.
/// </remarks>
internal sealed unsafe class FseTable
{
    private readonly FseCell[] _storage;
    private readonly FseCell* _own;

    /// <summary>A table with room for an accuracy; not ready.</summary>
    public FseTable(int maxAccuracy)
    {
        _storage = GC.AllocateArray<FseCell>(1 << maxAccuracy, pinned: true);
        _own = (FseCell*)Marshal.UnsafeAddrOfPinnedArrayElement(_storage, 0);
        MaxAccuracy = maxAccuracy;
    }

    /// <summary>The finest distribution there is room for.</summary>
    public int MaxAccuracy { get; }

    /// <summary>The cells, 1 &lt;&lt; <see cref="Accuracy"/> of them; null while nothing was built.</summary>
    public FseCell* Cells { get; private set; }

    /// <summary>How many bits a state has.</summary>
    public int Accuracy { get; private set; }

    /// <summary>Forgets what was built.</summary>
    public void Clear() => Cells = null;

    /// <summary>Uses another table's cells; that one is never built again.</summary>
    public void Share(FseTable predefined) => Use(predefined.Cells, predefined.Accuracy);

    /// <summary>Makes a table of one symbol that takes no bits.</summary>
    public void BuildSingle(int symbol, SymbolMeaning meaning)
    {
        _own[0] = new FseCell { Base = meaning.Base(symbol), ExtraBits = meaning.ExtraBits(symbol) };
        Use(_own, 0);
    }

    /// <summary>Makes the table of a distribution.</summary>
    public void Build(ReadOnlySpan<short> counts, int accuracy, SymbolMeaning meaning)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(accuracy, MaxAccuracy);
        int size = 1 << accuracy;
        int mask = size - 1;
        int step = (size >> 1) + (size >> 3) + 3;
        int last = mask;
        Span<ushort> next = stackalloc ushort[FseDistribution.MaxSymbol + 1];
        Span<byte> symbols = stackalloc byte[size];
        for (int symbol = 0; symbol < counts.Length; symbol++)
        {
            next[symbol] = (ushort)Math.Abs((int)counts[symbol]);
            if (counts[symbol] < 0)
            {
                symbols[last--] = (byte)symbol;
            }
        }
        int at = 0;
        for (int symbol = 0; symbol < counts.Length; symbol++)
        {
            for (int i = counts[symbol]; i > 0; i--)
            {
                symbols[at] = (byte)symbol;
                do
                {
                    at = (at + step) & mask;
                }
                while (at > last);
            }
        }
        for (int state = 0; state < size; state++)
        {
            int symbol = symbols[state];
            uint share = next[symbol]++;
            int bits = accuracy - BitOperations.Log2(share);
            _own[state] = new FseCell
            {
                Base = meaning.Base(symbol),
                NextBase = (ushort)((share << bits) - size),
                NextBits = (byte)bits,
                ExtraBits = meaning.ExtraBits(symbol),
            };
        }
        Use(_own, accuracy);
    }

    private void Use(FseCell* cells, int accuracy)
    {
        Cells = cells;
        Accuracy = accuracy;
    }
}
