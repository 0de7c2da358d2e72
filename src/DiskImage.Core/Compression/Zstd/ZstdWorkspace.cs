using System.Runtime.InteropServices;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// What a decoder keeps from block to block of a frame, and the memory it works in: about 160 KiB per thread that decodes,
/// made once.
/// </summary>
internal sealed unsafe class ZstdWorkspace
{
    /// <summary>Literals may be read in steps of this size, so as many bytes behind them are readable.</summary>
    public const int LiteralsPadding = 64;

    [ThreadStatic]
    private static ZstdWorkspace? _current;

    private readonly byte[] _literals = GC.AllocateArray<byte>(FrameHeader.LargestBlock + LiteralsPadding, pinned: true);

    private ZstdWorkspace() => Literals = (byte*)Marshal.UnsafeAddrOfPinnedArrayElement(_literals, 0);

    /// <summary>This thread's own.</summary>
    public static ZstdWorkspace Current => _current ??= new ZstdWorkspace();

    /// <summary>Room for the literals of one block.</summary>
    public byte* Literals { get; }

    /// <summary>The tree of the last compressed literals.</summary>
    public HuffmanTable Huffman { get; } = new();

    /// <summary>The last table of literal lengths.</summary>
    public FseTable LiteralLengths { get; } = new(SymbolMeaning.LiteralLength.MaxAccuracy);

    /// <summary>The last table of match lengths.</summary>
    public FseTable MatchLengths { get; } = new(SymbolMeaning.MatchLength.MaxAccuracy);

    /// <summary>The last table of offsets.</summary>
    public FseTable Offsets { get; } = new(SymbolMeaning.Offset.MaxAccuracy);

    /// <summary>Where a distribution is read to.</summary>
    public short[] Counts { get; } = new short[FseDistribution.MaxSymbol + 1];

    /// <summary>The offsets used last.</summary>
    public RecentOffsets Recent { get; set; }

    /// <summary>Forgets the frame before.</summary>
    public void BeginFrame()
    {
        Huffman.IsReady = false;
        LiteralLengths.Clear();
        MatchLengths.Clear();
        Offsets.Clear();
        Recent = RecentOffsets.Initial;
    }
}
