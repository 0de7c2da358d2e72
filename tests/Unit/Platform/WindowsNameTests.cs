using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Tests.Platform;

/// <summary>Windows' names and errors, on any system: the rules are text.</summary>
public sealed class WindowsNameTests
{
    [Theory]
    [InlineData(@"C:\a\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\server\share\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\.\C:\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"//./C:/disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\.\C:\", nameof(WindowsNameKind.File))] // the folder at the root
    [InlineData(@"\\.\C:", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\C:", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\C:\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\?\UNC\server\share\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\.\PhysicalDrive0", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\PhysicalDrive0", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\.\NUL", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\.\pipe\p", nameof(WindowsNameKind.Pipe))]
    [InlineData(@"\\.\PIPE\folder\p", nameof(WindowsNameKind.Pipe))]
    [InlineData(@"\\?\pipe\p", nameof(WindowsNameKind.Pipe))]
    [InlineData(@"\\.\mailslot\m", nameof(WindowsNameKind.Pipe))]
    [InlineData(@"\\?\Volume{0a1b2c3d-0000-0000-0000-100000000000}", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\Volume{0a1b2c3d-0000-0000-0000-100000000000}\a\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\?\globalroot\Device\Harddisk0\Partition1", nameof(WindowsNameKind.Device))]
    [InlineData(@"\\?\GLOBALROOT\Device\Harddisk0\Partition1\disk.vhdx", nameof(WindowsNameKind.File))]
    [InlineData(@"\\.\GLOBALROOT\Device\NamedPipe", nameof(WindowsNameKind.Device))]
    public void A_path_tells_devices_from_files(string path, string expected)
        => Assert.Equal(expected, WindowsName.KindOf(path).ToString());

    [Theory]
    [InlineData("NUL")]
    [InlineData("nul")]
    [InlineData(@"C:\images\NUL")]
    [InlineData(@"C:\images\nul.vhdx")]
    [InlineData(@"C:\images\nul .vhdx")]
    [InlineData("con")]
    [InlineData("a/AUX.qcow2")]
    [InlineData("COM1.img")]
    [InlineData("lpt9")]
    [InlineData("COM\u00b2")]
    [InlineData("CONOUT$")]
    [InlineData(@"\\.\PhysicalDrive1")]
    [InlineData(@"\\.\pipe\p")]
    public void Names_of_devices_are_no_targets(string path)
        => Assert.Contains("device", WindowsName.WhyNoNewFile(path), StringComparison.Ordinal);

    [Theory]
    [InlineData("disk.qcow2:stream", "stream")]
    [InlineData(@"C:\a\disk.vhdx:s:$DATA", "s:$DATA")]
    [InlineData("C:disk.vhdx:s", "s")]
    [InlineData("a.b:", "")]
    public void Streams_are_no_targets(string path, string stream)
    {
        string? why = WindowsName.WhyNoNewFile(path);
        Assert.Contains("alternate data stream", why, StringComparison.Ordinal);
        Assert.Contains($"'{stream}'", why, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(@"C:\a\disk.vhdx")]
    [InlineData("C:disk.vhdx")]
    [InlineData(@"\\server\share\disk.vhdx")]
    [InlineData(@"\\?\C:\a\disk.vhdx")]
    [InlineData(@"\\.\C:\a\disk.vhdx")]
    [InlineData("nullable.vhdx")]
    [InlineData("COM10.vhdx")]
    [InlineData("COMA")]
    [InlineData("console.img")]
    [InlineData(@"C:\nul\disk.vhdx")] // Windows says whether there is such a folder
    public void Other_names_are(string path) => Assert.Null(WindowsName.WhyNoNewFile(path));

    [Theory]
    [InlineData(112, DiskImageErrorKind.NoSpace)]
    [InlineData(39, DiskImageErrorKind.NoSpace)]
    [InlineData(1295, DiskImageErrorKind.NoSpace)]
    [InlineData(223, DiskImageErrorKind.NoSpace)]
    [InlineData(32, DiskImageErrorKind.Locked)]
    [InlineData(33, DiskImageErrorKind.Locked)]
    [InlineData(123, DiskImageErrorKind.InvalidOption)]
    [InlineData(206, DiskImageErrorKind.InvalidOption)]
    [InlineData(183, DiskImageErrorKind.AlreadyExists)]
    public void Errors_of_Windows_have_their_kind(int error, DiskImageErrorKind kind)
    {
#pragma warning disable CA1416 // text and numbers only
        Assert.Equal(kind, WindowsFile.MeaningOf(unchecked((int)0x8007_0000) | error)?.Kind);
        Assert.Null(WindowsFile.MeaningOf(error)); // not from Windows
    }

    [Theory]
    [InlineData(FileAttributes.Normal, true)]
    [InlineData(FileAttributes.SparseFile | FileAttributes.Archive, true)]
    [InlineData(FileAttributes.Offline, false)]
    [InlineData(FileAttributes.ReparsePoint | FileAttributes.SparseFile, false)]
    [InlineData((FileAttributes)0x0040_0000 | FileAttributes.SparseFile, false)] // recall on data access
    [InlineData((FileAttributes)0x0004_0000, false)] // recall on open
    public void Holes_of_placeholders_are_not_trusted(FileAttributes attributes, bool isTrusted)
        => Assert.Equal(isTrusted, WindowsFile.TrustsHoles(attributes));
#pragma warning restore CA1416
}
