using DiskImage.Block;
using DiskImage.Protocols.Sheepdog;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>The texts and options that lead to a VDI, as QEMU before 6.0 had them.</summary>
public sealed class SheepLocatorTests
{
    [Theory]
    [InlineData("sheepdog:///a", "sheepdog:///a")]
    [InlineData("sheepdog://localhost/a", "sheepdog:///a")]
    [InlineData("sheepdog+tcp://localhost:7000/a", "sheepdog:///a")]
    [InlineData("sheepdog://host:7001/a%20b#tag", "sheepdog://host:7001/a%20b#tag")]
    [InlineData("sheepdog://[::1]:7001/a#12", "sheepdog://[::1]:7001/a#12")]
    [InlineData("sheepdog://[::1]/a", "sheepdog://[::1]/a")]
    [InlineData("sheepdog+unix:///a/b?socket=/run/sheep", "sheepdog+unix:///a/b?socket=/run/sheep")]
    [InlineData("sheepdog+unix:///a?socket=/run/sheep#3", "sheepdog+unix:///a?socket=/run/sheep#3")]
    [InlineData("sheepdog:a", "sheepdog:///a")]
    [InlineData("sheepdog:a:7", "sheepdog:///a#7")]
    [InlineData("sheepdog:a:tag", "sheepdog:///a#tag")]
    [InlineData("sheepdog:host:7002:a", "sheepdog://host:7002/a")]
    [InlineData("sheepdog::1:a", "sheepdog://localhost:1/a")]
    [InlineData("sheepdog:host:7002:a:tag", "sheepdog://host:7002/a#tag")]
    public void A_text_leads_to_one_name(string text, string name)
    {
        SheepPlace place = SheepDriver.PlaceOf(text);
        Assert.Equal(name, place.Name);
        Assert.Equal(name, SheepDriver.PlaceOf(place.Name).Name);
    }

    [Theory]
    [InlineData("sheepdog://host")]
    [InlineData("sheepdog:///")]
    [InlineData("sheepdog:///a#")]
    [InlineData("sheepdog:///a#0")]
    [InlineData("sheepdog:///a#4294967296")]
    [InlineData("sheepdog://host:0/a")]
    [InlineData("sheepdog://host:99999/a")]
    [InlineData("sheepdog:///a?socket=/x")]
    [InlineData("sheepdog+unix:///a")]
    [InlineData("sheepdog+unix://host/a?socket=/x")]
    [InlineData("sheepdog+unix:///a?sock=/x")]
    [InlineData("sheepdog:a:b:c:d:e")]
    [InlineData("sheepdog:")]
    public void What_is_no_VDI_is_refused(string text)
    {
        Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => SheepDriver.PlaceOf(text)).Kind);
    }

    [Theory]
    [InlineData("1", 1, 0)]
    [InlineData("31", 31, 0)]
    [InlineData("2:1", 3, 0x11)]
    [InlineData("4:2", 6, 0x22)]
    [InlineData("16:15", 31, 0x8F)]
    [InlineData("0", null, 0)]
    [InlineData("32", null, 0)]
    [InlineData("3:1", null, 0)]
    [InlineData("4:16", null, 0)]
    [InlineData("4:0", null, 0)]
    [InlineData("4:2:1", null, 0)]
    [InlineData("x", null, 0)]
    public void Redundancy_is_copies_or_an_erasure_code(string text, int? copies, int policy)
    {
        if (copies is null)
        {
            Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => SheepRedundancy.Parse(text)).Kind);
            return;
        }
        Assert.Equal(new SheepRedundancy((byte)copies, (byte)policy), SheepRedundancy.Parse(text));
        Assert.Equal(text, SheepRedundancy.Parse(text).ToString());
    }
}
