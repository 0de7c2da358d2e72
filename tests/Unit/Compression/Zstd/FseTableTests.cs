using DiskImage.Compression.Zstd;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>The tables of the predefined distributions, as RFC 8878's appendix A lists them: symbol, bits, base of each state.</summary>
public sealed class FseTableTests
{
    [Fact]
    public void The_table_of_literal_lengths_is_the_one_of_appendix_A() => Compare(SymbolMeaning.LiteralLength, """
        0 4 0, 0 4 16, 1 5 32, 3 5 0, 4 5 0, 6 5 0, 7 5 0, 9 5 0, 10 5 0, 12 5 0, 14 6 0, 16 5 0, 18 5 0, 19 5 0, 21 5 0, 22 5 0,
        24 5 0, 25 5 32, 26 5 0, 27 6 0, 29 6 0, 31 6 0, 0 4 32, 1 4 0, 2 5 0, 4 5 32, 5 5 0, 7 5 32, 8 5 0, 10 5 32, 11 5 0, 13 6 0,
        16 5 32, 17 5 0, 19 5 32, 20 5 0, 22 5 32, 23 5 0, 25 4 0, 25 4 16, 26 5 32, 28 6 0, 30 6 0, 0 4 48, 1 4 16, 2 5 32, 3 5 32, 5 5 32,
        6 5 32, 8 5 32, 9 5 32, 11 5 32, 12 5 32, 15 6 0, 17 5 32, 18 5 32, 20 5 32, 21 5 32, 23 5 32, 24 5 32, 35 6 0, 34 6 0, 33 6 0, 32 6 0
        """);

    [Fact]
    public void The_table_of_match_lengths_is_the_one_of_appendix_A() => Compare(SymbolMeaning.MatchLength, """
        0 6 0, 1 4 0, 2 5 32, 3 5 0, 5 5 0, 6 5 0, 8 5 0, 10 6 0, 13 6 0, 16 6 0, 19 6 0, 22 6 0, 25 6 0, 28 6 0, 31 6 0, 33 6 0,
        35 6 0, 37 6 0, 39 6 0, 41 6 0, 43 6 0, 45 6 0, 1 4 16, 2 4 0, 3 5 32, 4 5 0, 6 5 32, 7 5 0, 9 6 0, 12 6 0, 15 6 0, 18 6 0,
        21 6 0, 24 6 0, 27 6 0, 30 6 0, 32 6 0, 34 6 0, 36 6 0, 38 6 0, 40 6 0, 42 6 0, 44 6 0, 1 4 32, 1 4 48, 2 4 16, 4 5 32, 5 5 32,
        7 5 32, 8 5 32, 11 6 0, 14 6 0, 17 6 0, 20 6 0, 23 6 0, 26 6 0, 29 6 0, 52 6 0, 51 6 0, 50 6 0, 49 6 0, 48 6 0, 47 6 0, 46 6 0
        """);

    [Fact]
    public void The_table_of_offsets_is_the_one_of_appendix_A() => Compare(SymbolMeaning.Offset, """
        0 5 0, 6 4 0, 9 5 0, 15 5 0, 21 5 0, 3 5 0, 7 4 0, 12 5 0, 18 5 0, 23 5 0, 5 5 0, 8 4 0, 14 5 0, 20 5 0, 2 5 0, 7 4 16,
        11 5 0, 17 5 0, 22 5 0, 4 5 0, 8 4 16, 13 5 0, 19 5 0, 1 5 0, 6 4 16, 10 5 0, 16 5 0, 28 5 0, 27 5 0, 26 5 0, 25 5 0, 24 5 0
        """);

    [Fact]
    public void Ranges_of_lengths_end_where_the_rfc_says()
    {
        Assert.Equal(65536u, SymbolMeaning.LiteralLength.Base(35));
        Assert.Equal(16, SymbolMeaning.LiteralLength.ExtraBits(35));
        Assert.Equal(65539u, SymbolMeaning.MatchLength.Base(52));
        Assert.Equal(16, SymbolMeaning.MatchLength.ExtraBits(52));
        Assert.Equal(131u, SymbolMeaning.MatchLength.Base(43));
        Assert.Equal(1u << 31, SymbolMeaning.Offset.Base(31));
    }

    [Theory]
    [InlineData("0A", false)] // accuracy 15
    [InlineData("", false)]
    [InlineData("00", false)] // cut off
    [InlineData("10FEFFFFFFFFFFFFFF", false)] // zeroes without end
    public void A_damaged_distribution_is_refused(string hex, bool good)
        => Assert.Equal(good, FseDistribution.TryRead(Convert.FromHexString(hex), new short[36], 9, out _, out _, out _));

    [Fact]
    public void A_distribution_for_more_symbols_than_there_are_is_refused()
    {
        // Accuracy 5: 31 symbols of "less than one", then one more.
        byte[] input = new byte[32];
        Assert.True(FseDistribution.TryRead(input, new short[36], 9, out int accuracy, out int symbols, out _));
        Assert.Equal((5, 32), (accuracy, symbols));
        Assert.False(FseDistribution.TryRead(input, new short[31], 9, out _, out _, out _));
    }

    [Theory]
    [InlineData("", 0xEF46DB3751D8E999)]
    [InlineData("a", 0xD24EC4F1A98C6E5B)]
    [InlineData("abc", 0x44BC2CF5AD770999)]
    public void Hashes_are_those_of_xxh64(string text, ulong hash) => Assert.Equal(hash, XxHash64.Hash(System.Text.Encoding.ASCII.GetBytes(text)));

    private static unsafe void Compare(SymbolMeaning meaning, string table)
    {
        int[][] rows = [.. table.Split(',').Select(row => row.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray())];
        Assert.Equal(rows.Length, 1 << meaning.Predefined.Accuracy);
        for (int state = 0; state < rows.Length; state++)
        {
            FseCell cell = meaning.Predefined.Cells[state];
            int symbol = rows[state][0];
            Assert.Equal((meaning.Base(symbol), meaning.ExtraBits(symbol), rows[state][1], rows[state][2]), (cell.Base, cell.ExtraBits, (int)cell.NextBits, (int)cell.NextBase));
        }
    }
}
