using DiskImage.Tests.Support;

namespace DiskImage.Tests.Platform;

/// <summary>Folders that mark their files, on Windows: a VHD or VHDX that is made there bears no mark that Hyper-V refuses.</summary>
public sealed class FolderMarkTests
{
    [WindowsTheory]
    [InlineData("vpc", "size=4M,subformat=fixed", false)]
    [InlineData("vpc", "size=4M", false)]
    [InlineData("vhdx", "size=4M", false)]
    [InlineData("qcow2", "size=4M", true)]
    public async Task In_a_compressed_folder(string format, string options, bool isCompressed)
    {
        using var folder = new TestFolder();
        _ = await Programs.RunAsync("compact", "/c", folder[""]);
        await Images.CreateAsync(folder["a"], format, options);
        FileAttributes attributes = File.GetAttributes(folder["a"]);
        Assert.Equal(isCompressed, (attributes & FileAttributes.Compressed) != 0);
        Assert.True(isCompressed || (attributes & (FileAttributes.SparseFile | FileAttributes.Encrypted)) == 0);
    }

    /// <summary>A theory that needs Windows.</summary>
    private sealed class WindowsTheoryAttribute : TheoryAttribute
    {
        public WindowsTheoryAttribute()
            => Skip = OperatingSystem.IsWindows() ? Wine.WhyNot("the marks of NTFS") : "only NTFS has these marks";
    }
}
