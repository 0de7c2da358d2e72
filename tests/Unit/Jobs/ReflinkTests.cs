using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Jobs;

/// <summary>Conversions on file systems that share storage between files.</summary>
public sealed class ReflinkTests
{
    private const int Size = 16 << 20;

    [ReflinkTheory("xfs")]
    [InlineData("raw", "raw")]
    [InlineData("raw", "qcow2")]
    [InlineData("qcow2", "raw")]
    [InlineData("raw", "vhdx")]
    [InlineData("vhdx", "raw")]
    [InlineData("qcow2", "vhdx")]
    [InlineData("vhdx", "qcow2")]
    [InlineData("raw", "vpc")]
    [InlineData("raw", "vdi")]
    [InlineData("raw", "vmdk")]
    [InlineData("raw", "qed")]
    [InlineData("raw", "parallels")]
    public Task On_xfs_data_are_shared_and_independent(string from, string to) => ConvertAsync("xfs", from, to);

    [ReflinkTheory("btrfs")]
    [InlineData("raw", "qcow2")]
    [InlineData("qcow2", "vhdx")]
    [InlineData("vhdx", "raw")]
    public Task On_btrfs_data_are_shared_and_independent(string from, string to) => ConvertAsync("btrfs", from, to);

    [ReflinkTheory("xfs")]
    [InlineData("raw", "preallocation=falloc")]
    [InlineData("qcow2", "preallocation=full")]
    public async Task Space_that_was_claimed_is_kept(string format, string options)
    {
        using MountedFileSystem mounted = await MountedFileSystem.OfAsync("xfs");
        byte[] contents = await MakeRawAsync(mounted["a.raw"]);
        ConvertResult result = await Images.ConvertAsync(mounted["a.raw"], "raw", mounted["b"], format, options);
        Assert.Equal(0, result.BytesShared);
        Assert.Equal(contents, await ReadAsync(mounted["b"], format));
        await using BlockNode disk = await Images.OpenAsync(mounted["b"], format);
        Assert.True(disk.Child("file")!.AllocatedLength >= Size);
    }

    [ReflinkTheory("xfs")]
    [InlineData("reflink=0")]
    public async Task Where_the_file_system_has_none_the_copy_is_made_all_the_same(string option)
    {
        using MountedFileSystem mounted = await MountedFileSystem.OfAsync("xfs", "-m", option);
        byte[] contents = await MakeRawAsync(mounted["a.raw"]);
        ConvertResult result = await Images.ConvertAsync(mounted["a.raw"], "raw", mounted["b.qcow2"], "qcow2");
        Assert.Equal(0, result.BytesShared);
        Assert.Equal(contents, await ReadAsync(mounted["b.qcow2"], "qcow2"));
    }

    [ReflinkTheory("xfs")]
    [InlineData("xfs")]
    public async Task Between_file_systems_the_copy_is_made_all_the_same(string kind)
    {
        using MountedFileSystem one = await MountedFileSystem.OfAsync(kind), other = await MountedFileSystem.OfAsync(kind);
        byte[] contents = await MakeRawAsync(one["a.raw"]);
        ConvertResult result = await Images.ConvertAsync(one["a.raw"], "raw", other["b.vhdx"], "vhdx");
        Assert.Equal(0, result.BytesShared);
        Assert.Equal(contents, await ReadAsync(other["b.vhdx"], "vhdx"));
    }

    private static async Task ConvertAsync(string kind, string from, string to)
    {
        using MountedFileSystem mounted = await MountedFileSystem.OfAsync(kind);
        byte[] contents = await MakeRawAsync(mounted["first.raw"]);
        string source = mounted["source"], target = mounted["target"];
        _ = await Images.ConvertAsync(mounted["first.raw"], "raw", source, from, how: new ConvertOptions { Shares = false });
        ConvertResult result = await Images.ConvertAsync(source, from, target, to);
        Assert.Equal(Size, result.BytesCopied + result.BytesZero);
        Assert.True(result.BytesShared > Size / 4, $"{result.BytesShared:#,0} of {result.BytesCopied:#,0} bytes shared");
        Assert.Equal(contents, await ReadAsync(target, to));
        byte[] before = await File.ReadAllBytesAsync(source);
        await using (BlockNode disk = await Images.OpenAsync(target, to, writable: true))
        {
            await disk.WriteAsync(0, new byte[] { 1, 2, 3 });
            await disk.WriteZeroesAsync(5 << 20, 1 << 20);
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(source));
        if (to is "qcow2" or "vhdx" or "vdi"
            && Programs.WhyMissing("qemu-img") is null)
        {
            _ = await Programs.RunAsync("qemu-img", "check", "-f", to, target);
        }
    }

    /// <summary>Data of whole blocks, holes, and a length that is no whole number of blocks.</summary>
    private static async Task<byte[]> MakeRawAsync(string path)
    {
        byte[] contents = new byte[Size];
        var random = new Random(6);
        for (int at = 0; at < Size; at += 1 << 20)
        {
            if (at % (3 << 20) != 0)
            {
                random.NextBytes(contents.AsSpan(at, at % (2 << 20) == 0 ? 1 << 20 : 300_000));
            }
        }
        await Images.WriteSparseAsync(path, contents);
        return contents;
    }

    private static async Task<byte[]> ReadAsync(string path, string format)
    {
        await using BlockNode disk = await Images.OpenAsync(path, format);
        byte[] contents = new byte[Size];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    /// <summary>A theory that needs a file system.</summary>
    private sealed class ReflinkTheoryAttribute : TheoryAttribute
    {
        public ReflinkTheoryAttribute(string kind) => Skip = MountedFileSystem.WhyNot(kind);
    }
}
