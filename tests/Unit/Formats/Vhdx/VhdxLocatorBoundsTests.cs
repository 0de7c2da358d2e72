using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Every count, offset and length of a parent locator at and past its bounds. Spec: MS-VHDX 2.6.2.6.</summary>
public sealed class VhdxLocatorBoundsTests
{
    private const int Count = 18, FirstPair = 20, SecondPair = 32;

    public static TheoryData<string, int, int, long> Fields() => new()
    {
        { "too many pairs", Count, 2, 0xFFFF },
        { "one pair more than there is", Count, 2, 3 },
        { "key far away", FirstPair, 4, 0xFFFFFFFE },
        { "key just past the end", FirstPair, 4, -2 },
        { "value far away", FirstPair + 4, 4, 0x7FFFFFFF },
        { "value just past the end", FirstPair + 4, 4, -2 },
        { "empty key", FirstPair + 8, 2, 0 },
        { "key of half a character", FirstPair + 8, 2, 3 },
        { "key longer than the locator", FirstPair + 8, 2, 0xFFFE },
        { "value of half a character", FirstPair + 10, 2, 5 },
        { "value longer than the locator", FirstPair + 10, 2, 0xFFFE },
        { "second value longer than the locator", SecondPair + 10, 2, 0xFFFE },
    };

    [Theory]
    [MemberData(nameof(Fields))]
    public void A_field_out_of_bounds_is_refused(string what, int at, int width, long value)
    {
        byte[] locator = Locator();
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value < 0 ? locator.Length + value : value);
        bytes.AsSpan(0, width).CopyTo(locator.AsSpan(at));
        DiskImageException refused = Assert.Throws<DiskImageException>(() => VhdxParentLocator.Parse(locator, "a.vhdx", 4096));
        Assert.True(refused.Kind == DiskImageErrorKind.Corrupt, what);
        Assert.Equal(4096, refused.Offset);
    }

    [Fact]
    public void Every_truncation_is_refused()
    {
        byte[] locator = Locator();
        for (int length = 0; length < locator.Length; length++)
        {
            Assert.Equal(
                DiskImageErrorKind.Corrupt,
                Assert.Throws<DiskImageException>(() => VhdxParentLocator.Parse(locator.AsSpan(0, length), "a.vhdx", 0)).Kind);
        }
        Assert.Equal(2, VhdxParentLocator.Parse(locator, "a.vhdx", 0).Values.Count);
    }

    [Fact]
    public void A_key_that_stands_there_twice_is_refused()
    {
        byte[] locator = Locator();
        locator.AsSpan(FirstPair, 4).CopyTo(locator.AsSpan(SecondPair)); // the key's offset
        locator.AsSpan(FirstPair + 8, 2).CopyTo(locator.AsSpan(SecondPair + 8)); // and length
        DiskImageException refused = Assert.Throws<DiskImageException>(() => VhdxParentLocator.Parse(locator, "a.vhdx", 0));
        Assert.Contains("'parent_linkage' stands in the parent locator twice", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_value_as_long_as_a_length_can_say_is_read()
    {
        string path = @".\" + new string('x', 32_000);
        var locator = new VhdxParentLocator(
            VhdxParentLocator.VhdxType, new Dictionary<string, string>(StringComparer.Ordinal) { ["relative_path"] = path });
        Assert.Equal(path, VhdxParentLocator.Parse(locator.ToBytes(), "a.vhdx", 0).Values["relative_path"]);
    }

    private static byte[] Locator() => new VhdxParentLocator(
        VhdxParentLocator.VhdxType,
        new Dictionary<string, string>(
            StringComparer.Ordinal) { ["parent_linkage"] = Guid.Empty.ToString("B"), ["relative_path"] = @".\base.vhdx" }).ToBytes();
}
