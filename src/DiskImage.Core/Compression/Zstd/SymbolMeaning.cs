namespace DiskImage.Compression.Zstd;

/// <summary>
/// What the symbols of an FSE code stand for: a base and a number of extra bits to add to it
/// (RFC 8878, section 3.1.1.3.2.1.1), and the distribution that needs no description (section 3.1.1.3.2.2).
/// </summary>
internal sealed class SymbolMeaning
{
    private readonly uint[] _bases;
    private readonly byte[] _extraBits;

    private SymbolMeaning(uint[] bases, byte[] extraBits, int maxAccuracy, int defaultAccuracy, ReadOnlySpan<short> defaultCounts)
    {
        (_bases, _extraBits, MaxAccuracy) = (bases, extraBits, maxAccuracy);
        Predefined = new FseTable(maxAccuracy);
        if (!defaultCounts.IsEmpty)
        {
            Predefined.Build(defaultCounts, defaultAccuracy, this);
        }
    }

    /// <summary>How many literals a sequence begins with: 0 … 131071.</summary>
    public static SymbolMeaning LiteralLength { get; } = Consecutive(
        start: 0,
        extraBits: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        maxAccuracy: 9,
        defaultAccuracy: 6,
        defaultCounts: [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1]);

    /// <summary>How many bytes a sequence copies: 3 … 131074.</summary>
    public static SymbolMeaning MatchLength { get; } = Consecutive(
        start: 3,
        extraBits:
        [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        ],
        maxAccuracy: 9,
        defaultAccuracy: 6,
        defaultCounts:
        [
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ]);

    /// <summary>How far back a sequence copies from: the code is the number of extra bits and the place of the bit above them.</summary>
    public static SymbolMeaning Offset { get; } = new(
        [.. Enumerable.Range(0, 32).Select(code => 1u << code)],
        [.. Enumerable.Range(0, 32).Select(code => (byte)code)],
        maxAccuracy: 8,
        defaultAccuracy: 5,
        [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]);

    /// <summary>The symbol itself: the weights of a Huffman tree (section 4.2.1.2).</summary>
    public static SymbolMeaning Weight { get; } = new(
        [.. Enumerable.Range(0, FseDistribution.MaxSymbol + 1).Select(symbol => (uint)symbol)],
        new byte[FseDistribution.MaxSymbol + 1],
        maxAccuracy: 6,
        defaultAccuracy: 0,
        []);

    /// <summary>How many symbols there are.</summary>
    public int Symbols => _bases.Length;

    /// <summary>The finest distribution allowed.</summary>
    public int MaxAccuracy { get; }

    /// <summary>The table of the predefined distribution, where there is one.</summary>
    public FseTable Predefined { get; }

    /// <summary>The least number that a symbol stands for.</summary>
    public uint Base(int symbol) => _bases[symbol];

    /// <summary>How many bits of the stream are added to it.</summary>
    public byte ExtraBits(int symbol) => _extraBits[symbol];

    /// <summary>Symbols that stand for ranges without a gap.</summary>
    private static SymbolMeaning Consecutive(uint start, byte[] extraBits, int maxAccuracy, int defaultAccuracy, ReadOnlySpan<short> defaultCounts)
    {
        uint[] bases = new uint[extraBits.Length];
        for (int i = 0; i < bases.Length; i++)
        {
            bases[i] = start;
            start += 1u << extraBits[i];
        }
        return new(bases, extraBits, maxAccuracy, defaultAccuracy, defaultCounts);
    }
}
