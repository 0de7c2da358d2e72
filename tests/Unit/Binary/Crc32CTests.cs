using System.Text;
using DiskImage.Binary;

namespace DiskImage.Tests;

public sealed class Crc32CTests
{
    [Theory]
    [InlineData("", 0u)]
    [InlineData("a", 0xC1D04330u)]
    [InlineData("123456789", 0xE3069283u)] // the check value of the CRC catalogue
    public void Known_texts_have_known_checksums(string text, uint expected)
        => Assert.Equal(expected, Crc32C.Of(Encoding.ASCII.GetBytes(text)));

    [Fact]
    public void The_examples_of_RFC_3720_hold()
    {
        Assert.Equal(0x8A9136AAu, Crc32C.Of(new byte[32]));
        Assert.Equal(0x62A8AB43u, Crc32C.Of(Enumerable.Repeat((byte)0xFF, 32).ToArray()));
        Assert.Equal(0x46DD794Eu, Crc32C.Of(Enumerable.Range(0, 32).Select(i => (byte)i).ToArray()));
        Assert.Equal(0x113FDB5Cu, Crc32C.Of(Enumerable.Range(0, 32).Select(i => (byte)(31 - i)).ToArray()));
    }

    [Fact]
    public void Parts_add_up_and_a_checksum_in_the_middle_counts_as_zeroes()
    {
        byte[] bytes = new byte[1000];
        new Random(1).NextBytes(bytes);
        foreach (int at in new[] { 0, 1, 4, 7, 500, 996 })
        {
            byte[] blank = (byte[])bytes.Clone();
            blank.AsSpan(at, 4).Clear();
            Assert.Equal(Crc32C.Of(blank), Crc32C.OfAllBut(bytes, at));
            Assert.Equal(Crc32C.Of(bytes), Crc32C.Finish(Crc32C.Add(Crc32C.Add(Crc32C.Start, bytes.AsSpan(0, at)), bytes.AsSpan(at))));
        }
    }
}
