using DiskImage.Tests.Support;

namespace DiskImage.Tests.Platform;

/// <summary>Files without copy-on-write. To see the attribute, name a folder of a btrfs file system in DISKIMAGE_TEST_BTRFS.</summary>
public sealed class NoCowTests
{
    private const string Variable = "DISKIMAGE_TEST_BTRFS";

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    [InlineData("vpc")]
    [InlineData("vhdx")]
    public async Task The_option_is_taken_on_every_file_system(string format)
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["a"], format, "size=4M,nocow=on");
        Assert.True(new FileInfo(folder["a"]).Exists);
    }

    [BtrfsTheory]
    [InlineData("raw", "nocow=on", true)]
    [InlineData("raw", "nocow=off", false)]
    [InlineData("qcow2", "nocow=on,preallocation=falloc", true)]
    [InlineData("vhdx", "nocow=on", true)]
    public async Task On_btrfs_the_file_has_the_attribute(string format, string options, bool expected)
    {
        string path = Path.Combine(Environment.GetEnvironmentVariable(Variable)!, $"nocow-{format}-{expected}");
        try
        {
            await Images.CreateAsync(path, format, $"size=4M,{options}");
            string attributes = (await Programs.RunAsync("lsattr", path)).Split(' ')[0];
            Assert.Equal(expected, attributes.Contains('C', StringComparison.Ordinal));
        }
        finally
        {
            File.Delete(path);
        }
    }

    /// <summary>A theory that needs btrfs.</summary>
    private sealed class BtrfsTheoryAttribute : TheoryAttribute
    {
        public BtrfsTheoryAttribute()
            => Skip = Wine.WhyNot("btrfs")
                ?? (Environment.GetEnvironmentVariable(Variable) is null
                    ? $"{Variable} names no folder of a btrfs file system"
                    : Programs.WhyMissing("lsattr"));
    }
}
