using DiskImage.Drivers;

namespace DiskImage.Tests.Drivers;

public sealed class FileUrlTests
{
    [Theory]
    [InlineData("file:///C:/a/b.vhd", true, "C:/a/b.vhd")]
    [InlineData("file://localhost/C:/a/b%20%23.vhd", true, "C:/a/b #.vhd")]
    [InlineData("file://LOCALHOST/c|/a", true, "c:/a")]
    [InlineData("file:/C:/a", true, "C:/a")]
    [InlineData("file:///C:", true, "C:")]
    [InlineData("file:///C:/a", false, "/C:/a")]
    [InlineData("file:///Cd:/a", true, "/Cd:/a")]
    [InlineData("file:///1:/a", true, "/1:/a")]
    [InlineData("file:///Volumes/a/b.vhd", true, "/Volumes/a/b.vhd")]
    [InlineData("file://server/C:/a", true, "//server/C:/a")]
    [InlineData("file:///a?b#c", true, "/a")]
    [InlineData("file://[", true, null)]
    [InlineData("file://[/a", true, "//[/a")]
    [InlineData("file:", true, null)]
    [InlineData("file:///%00", true, null)]
    [InlineData("http://host/a", true, null)]
    [InlineData("/a", true, null)]
    public void Names_a_path_or_none(string url, bool hasDrives, string? path) => Assert.Equal(path, FileUrl.ToPath(url, hasDrives));

    [Theory]
    [InlineData("file://server/a", "server")]
    [InlineData("FILE://Server/a?b", "Server")]
    [InlineData("file://127.0.0.1/a", "127.0.0.1")]
    [InlineData("file:///a", null)]
    [InlineData("file:////a", null)]
    [InlineData("file://localhost/a", null)]
    [InlineData("file:/a", null)]
    [InlineData("file://server", null)]
    [InlineData("http://server/a", null)]
    public void Tells_another_host(string url, string? host) => Assert.Equal(host, FileUrl.OtherHost(url));
}
