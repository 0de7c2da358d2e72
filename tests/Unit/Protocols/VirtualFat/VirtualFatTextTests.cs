using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>QEMU's text form, on every system with the paths of every system.</summary>
public sealed class VirtualFatTextTests
{
    [Theory]
    [InlineData("fat:dir", "dir", "")]
    [InlineData("fat:./seed", "./seed", "")]
    [InlineData("fat:rw:dir", "dir", "rw=True")]
    [InlineData("fat:floppy:dir", "dir", "floppy=True")]
    [InlineData("fat:floppy:rw:12:/a b", "/a b", "fat-type=12 floppy=True rw=True")]
    [InlineData("fat:32:rw:/d", "/d", "fat-type=32 rw=True")]
    [InlineData("fat:rw:16:floppy:/d", "/d", "fat-type=16 floppy=True rw=True")]
    [InlineData("FAT:rw:/d", "/d", "rw=True")]
    [InlineData(@"fat:C:\dir", @"C:\dir", "")]
    [InlineData(@"fat:rw:C:\dir\b", @"C:\dir\b", "rw=True")]
    [InlineData(@"fat:floppy:16:d:/dir", "d:/dir", "fat-type=16 floppy=True")]
    [InlineData(@"fat:\\server\share\dir", @"\\server\share\dir", "")]
    [InlineData(@"fat:rw:\\?\C:\dir", @"\\?\C:\dir", "rw=True")]
    [InlineData("fat:./rw:x", "./rw:x", "")]
    [InlineData("fat:a:b", "a:b", "")]
    [InlineData("fat:64:b", "64:b", "")]
    [InlineData("fat:///srv/seed", "///srv/seed", "")]
    public void The_text_says_folder_and_options(string text, string folder, string options)
    {
        ImageLocator locator = ImageLocator.Parse(text);
        Assert.Equal("fat", locator.Scheme, ignoreCase: true);
        Assert.False(locator.IsFile);
        ProtocolDriver driver = Images.Registry.Protocol(locator.Scheme);
        Dictionary<string, object?> parsed = driver.Parse(text).ToDictionary(p => p.Key, p => p.Value, StringComparer.Ordinal);
        Assert.Equal(folder, parsed["dir"]);
        _ = parsed.Remove("dir");
        Assert.Equal(options, string.Join(' ', parsed.OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => $"{p.Key}={p.Value}")));
    }

    [Theory]
    [InlineData("fat:", "no path")]
    [InlineData("fat:rw:", "needs the folder")]
    [InlineData("fat:/nowhere/at/all", "no such folder")]
    [InlineData("json:{\"driver\":\"vvfat\"}", "needs the folder")]
    [InlineData("json:{\"driver\":\"vvfat\",\"dir\":\"/\",\"fat-type\":13}", "fat-type")]
    [InlineData("json:{\"driver\":\"vvfat\",\"dir\":\"/\",\"flopy\":true}", "floppy")]
    public async Task What_is_no_folder_is_said_so(string text, string says)
    {
        var e = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(text));
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
    }
}
