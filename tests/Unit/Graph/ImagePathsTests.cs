using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

public sealed class ImagePathsTests
{
    [Theory]
    [InlineData("/vm/a.qcow2", "/vm", false, true)]
    [InlineData("/vm/sub/a.qcow2", "/vm/", false, true)]
    [InlineData("/vm2/a.qcow2", "/vm", false, false)]
    [InlineData("/vm", "/vm", false, false)]
    [InlineData("/VM/a.qcow2", "/vm", false, false)]
    [InlineData("/a.qcow2", "/", false, true)]
    [InlineData(@"C:\VM\a.vhdx", @"c:\vm", true, true)]
    [InlineData(@"C:\vm\A.VHDX", @"C:\VM\", true, true)]
    [InlineData(@"C:/vm/a.vhdx", @"C:\vm", true, true)]
    [InlineData(@"\\?\C:\vm\a.vhdx", @"C:\vm", true, true)]
    [InlineData(@"C:\vm\a.vhdx", @"\\?\C:\vm", true, true)]
    [InlineData(@"\\?\UNC\server\share\vm\a.vhdx", @"\\SERVER\share\vm", true, true)]
    [InlineData(@"D:\vm\a.vhdx", @"C:\vm", true, false)]
    [InlineData(@"C:\vm2\a.vhdx", @"C:\vm", true, false)]
    [InlineData(@"C:\a.vhdx", @"C:\", true, true)]
    public void What_lies_below_a_folder(string path, string folder, bool isWindows, bool isBelow)
        => Assert.Equal(isBelow, ImagePaths.IsBelow(path, folder, isWindows));

    [Theory]
    [InlineData(@"D:\a", @"C:\vm", true)]
    [InlineData(@"\\?\C:\a", @"C:\vm", true)]
    [InlineData(@"\\?\Volume{6e3ce3c5-0000-0000-0000-100000000000}\a", @"C:\vm", true)]
    [InlineData(@"\\server\share\a", @"C:\vm", false)]
    [InlineData(@"\\server\share\a", @"\\SERVER\share\vm", true)]
    [InlineData(@"\\server\other\a", @"\\server\share\vm", false)]
    [InlineData(@"\\?\UNC\server\share\a", @"C:\vm", false)]
    [InlineData(@"\\?\UNC\server\share\a", @"\\server\share\vm", true)]
    [InlineData(@"\\.\PhysicalDrive0", @"C:\vm", false)]
    [InlineData(@"\\?\GLOBALROOT\Device\x", @"C:\vm", false)]
    [InlineData(@"\\.\pipe\x", @"\\.\pipe\y", false)]
    public void Another_machine_is_no_local_file(string path, string folder, bool isNear)
        => Assert.Equal(isNear, ImagePaths.IsNear(path, folder));

    [Theory]
    [InlineData(@"C:\vm", "base.vhd", true, @"C:\vm\base.vhd")]
    [InlineData(@"C:\", "base.vhd", true, @"C:\base.vhd")]
    [InlineData(@"C:\vm", @"D:\base.vhd", true, @"D:\base.vhd")]
    [InlineData(@"C:\vm", @"\\server\share\base.vhd", true, @"\\server\share\base.vhd")]
    [InlineData(@"C:\vm", @"\base.vhd", true, @"C:\base.vhd")]
    [InlineData(@"C:\vm", "/base.vhd", true, "C:/base.vhd")]
    [InlineData(@"\\server\share\vm", @"\base.vhd", true, @"\\server\share\base.vhd")]
    [InlineData(@"\\server\share", @"\base.vhd", true, @"\\server\share\base.vhd")]
    [InlineData(@"\\?\C:\vm", @"\base.vhd", true, @"\\?\C:\base.vhd")]
    [InlineData(@"C:\vm", "C:base.vhd", true, @"C:\vm\base.vhd")]
    [InlineData(@"C:\vm", "c:base.vhd", true, @"C:\vm\base.vhd")]
    [InlineData(@"C:\vm", "D:base.vhd", true, @"D:\base.vhd")]
    public void Relative_rooted_and_drive_relative_names_are_seen_from_the_folder(
        string folder, string path, bool isWindows, string expected)
        => Assert.Equal(expected, ImageLocator.PathFrom(folder, path, isWindows));

    [UnixTheory]
    [InlineData("/vm", "base.img", "/vm/base.img")]
    [InlineData("/vm", "/b/base.img", "/b/base.img")]
    [InlineData("/vm", "C:a", "/vm/C:a")]
    public void Relative_and_rooted_names_of_unix_are_seen_from_the_folder(string folder, string path, string expected)
        => Assert.Equal(expected, ImageLocator.PathFrom(folder, path, isWindows: false));

    private sealed class UnixTheoryAttribute : TheoryAttribute
    {
        public UnixTheoryAttribute() => Skip = Wine.WhyNotOnWindows("the names of Unix");
    }
}
