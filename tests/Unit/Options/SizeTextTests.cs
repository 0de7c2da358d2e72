using DiskImage.Options;
using FsCheck;
using FsCheck.Fluent;

namespace DiskImage.Tests.Options;

public sealed class SizeTextTests
{
    [Theory]
    [InlineData("0", 0)]
    [InlineData("1048576", 1048576)]
    [InlineData("64k", 65536)]
    [InlineData("64K", 65536)]
    [InlineData(" 64 KiB ", 65536)]
    [InlineData("10GB", 10L << 30)]
    [InlineData("10GiB", 10L << 30)]
    [InlineData("1.5G", 3L << 29)]
    [InlineData("0.5k", 512)]
    [InlineData("2T", 2L << 40)]
    [InlineData("1P", 1L << 50)]
    [InlineData("7E", 7L << 60)]
    [InlineData("512B", 512)]
    [InlineData("0x100000", 1048576)]
    [InlineData("0X1f", 31)]
    [InlineData("9223372036854775807", long.MaxValue)]
    public void Is_understood(string text, long expected)
    {
        Assert.True(SizeText.TryParse(text, out long size));
        Assert.Equal(expected, size);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData(" ")]
    [InlineData("k")]
    [InlineData("-1")]
    [InlineData("+1")]
    [InlineData("64q")]
    [InlineData("64kk")]
    [InlineData("8E")]
    [InlineData("9223372036854775808")]
    [InlineData("99999999999999999999999999999999999")]
    [InlineData("0.3k")] // no whole number of bytes
    [InlineData("1.5")]
    [InlineData("1,5G")]
    [InlineData("1e3")]
    [InlineData("iB")]
    [InlineData("10iB")]
    [InlineData("0x")]
    [InlineData("0xFFFFFFFFFFFFFFFF")]
    [InlineData("0xFFFFFFFFFFFFFFFFF")]
    [InlineData("NaN")]
    public void Is_refused(string? text) => Assert.False(SizeText.TryParse(text, out _));

    [Theory]
    [InlineData("8E", true)]
    [InlineData("8EB", true)]
    [InlineData("8192PiB", true)]
    [InlineData("9223372036854775808", true)]
    [InlineData("99999999999999999999999999999999999", true)]
    [InlineData("0xFFFFFFFFFFFFFFFF", true)]
    [InlineData("10Q", false)]
    [InlineData("", false)]
    [InlineData("0.3k", false)]
    public void Too_large_is_not_the_same_as_no_size(string text, bool isTooLarge)
    {
        Assert.Equal(
            isTooLarge,
            SizeText.WhyNot(text).Contains("too large: a size is at most 9,223,372,036,854,775,807 bytes", StringComparison.Ordinal));
        Assert.Equal(!isTooLarge, SizeText.WhyNot(text).Contains("k, M, G, T, P, E", StringComparison.Ordinal));
    }

    [Fact]
    public void What_is_written_reads_back()
        => Prop.ForAll(
            ArbMap.Default.ArbFor<long>(),
            ArbMap.Default.ArbFor<byte>(),
            (number, shift) =>
            {
                long size = (number & long.MaxValue) << (shift % 60) & long.MaxValue;
                return SizeText.TryParse(SizeText.Format(size), out long back) && back == size;
            }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData(0, "0")]
    [InlineData(1000, "1000")]
    [InlineData(65536, "64k")]
    [InlineData(2 << 20, "2M")]
    [InlineData(3L << 60, "3E")]
    public void The_largest_suffix_that_fits_is_written(long size, string text) => Assert.Equal(text, SizeText.Format(size));
}
