using DiskImage.Formats;

namespace DiskImage.Tests.Formats;

public sealed class WindowsPathTests
{
    [Theory]
    [InlineData(@".\base.vhdx", "base.vhdx", "base.vhdx")]
    [InlineData(@"..\..\a b\base.vhdx", "../../a b/base.vhdx")]
    [InlineData(@"base.vhdx", "base.vhdx")]
    [InlineData(@"\\?\C:\disks\base.vhdx", "C:/disks/base.vhdx", @"C:\disks\base.vhdx")]
    [InlineData(@"\\?\UNC\server\share\base.vhdx", "//server/share/base.vhdx", @"\\server\share\base.vhdx")]
    [InlineData(
        @"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx", "//?/Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}/base.vhdx")]
    public void Paths_of_Windows_are_opened_with_the_separators_of_the_system(string path, string elsewhere, string? windows = null)
    {
        Assert.Equal(elsewhere, WindowsPath.ToLocal(path, isWindows: false));
        Assert.Equal(windows ?? path, WindowsPath.ToLocal(path, isWindows: true));
    }

    [Fact]
    public void Relative_paths_are_written_as_Windows_writes_them()
    {
        string root = Path.GetFullPath("/disks");
        Assert.Equal(@".\base.vhdx", WindowsPath.Relative(root, Path.Combine(root, "base.vhdx")));
        Assert.Equal(@".\sub\base.vhdx", WindowsPath.Relative(root, Path.Combine(root, "sub", "base.vhdx")));
        Assert.Equal(@"..\other\base.vhdx", WindowsPath.Relative(root, Path.GetFullPath("/other/base.vhdx")));
        if (!OperatingSystem.IsWindows())
        {
            Assert.Null(WindowsPath.Relative(root, @"/disks/a\b.vhdx"));
        }
    }

    [Theory]
    [InlineData(@"C:\disks\base.vhdx", @"\\?\C:\disks\base.vhdx")]
    [InlineData("d:/disks/base.vhdx", @"\\?\d:\disks\base.vhdx")]
    [InlineData(@"\\server\share\base.vhdx", @"\\?\UNC\server\share\base.vhdx")]
    [InlineData(@"\\?\C:\x.vhdx", @"\\?\C:\x.vhdx")]
    [InlineData("/disks/base.vhdx", null)]
    [InlineData(@"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\x.vhdx", null)]
    public void Absolute_paths_are_written_if_they_are_of_Windows(string path, string? expected)
        => Assert.Equal(expected, WindowsPath.Full(path) is { } full ? WindowsPath.Long(full) : null);
}
