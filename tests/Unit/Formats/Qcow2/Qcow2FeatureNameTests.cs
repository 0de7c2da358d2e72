using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>What an image calls its features, in tables as other programs write them; and how memory is shared out.</summary>
public sealed class Qcow2FeatureNameTests
{
    [Theory]
    [InlineData("\0\u003fTest feature", 63, "Test feature")] // an entry that is cut short
    [InlineData("\0\u003fa", 63, "a")]
    [InlineData("\0\u003f", 63, null)]
    [InlineData("\u0001\u003fcompatible", 63, null)]
    [InlineData("", 0, null)]
    public void A_name_in_a_short_table_is_read(string table, int bit, string? name)
        => Assert.Equal(name, Qcow2Extension.FeatureName(Encoding.Latin1.GetBytes(table), bit));

    [Fact]
    public void A_name_ends_where_its_text_does()
    {
        byte[] table = Encoding.Latin1.GetBytes($"\0\u003dtest1\0{new string(' ', 40)}\0\u003etest2{new string('\0', 41)}");
        Assert.Equal("test1", Qcow2Extension.FeatureName(table, 61));
        Assert.Equal("test2", Qcow2Extension.FeatureName(table, 62));
        Assert.Null(Qcow2Extension.FeatureName(table, 63));
    }

    [Theory]
    [InlineData(null, null, null, 32 << 20, 4 << 20)]
    [InlineData(1 << 20, null, null, 512 << 10, 512 << 10)]
    [InlineData(64 << 20, null, null, 60 << 20, 4 << 20)]
    [InlineData(4 << 20, 1 << 20, null, 1 << 20, 3 << 20)]
    [InlineData(4 << 20, null, 1 << 20, 3 << 20, 1 << 20)]
    [InlineData(null, 1 << 20, 2 << 20, 1 << 20, 2 << 20)]
    public void Memory_is_shared_out(int? sum, int? tables, int? refcounts, int expectedTables, int expectedRefcounts)
        => Assert.Equal((expectedTables, expectedRefcounts), Options(sum, tables, refcounts).Caches());

    [Theory]
    [InlineData(1, 2, null)]
    [InlineData(1, null, 2)]
    [InlineData(3, 1, 2)]
    public void Parts_beyond_the_sum_are_an_option_error(int? sum, int? tables, int? refcounts)
        => Assert.Equal(
            DiskImageErrorKind.InvalidOption,
            Assert.Throws<DiskImageException>(() => Options(sum, tables, refcounts).Caches()).Kind);

    private static Qcow2OpenOptions Options(int? sum, int? tables, int? refcounts)
        => new() { CacheSize = sum, L2CacheSize = tables, RefcountCacheSize = refcounts };
}
