using System.Globalization;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Makers and readers beside QEMU: Bochs' bximage, Red Hat's VMDKstream, libvmdk's vmdkinfo.</summary>
public sealed class VmdkJudgeTests : IDisposable
{
    private const string Python = "/usr/bin/python3", Module = "/usr/lib/python3/dist-packages/VMDKstream.py";
    private const int Cylinder = 16 * 63 * 512; // bximage knows whole ones only

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleFact("bximage")]
    public async Task What_bximage_makes_is_read_and_what_we_make_it_reads()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 10 * Cylinder, seed: 4);
        _ = await Programs.RunAsync("bximage", "-func=convert", "-imgmode=vmware4", "-q", _folder["disk.raw"], _folder["theirs.vmdk"]);
        await Images.ConvertAsync(_folder["theirs.vmdk"], null, _folder["back.raw"], "raw");
        byte[] contents = await File.ReadAllBytesAsync(_folder["disk.raw"]), back = await File.ReadAllBytesAsync(_folder["back.raw"]);
        DiskFormat.Same(contents, back[..contents.Length]);
        Assert.True(back.AsSpan(contents.Length).IndexOfAnyExcept((byte)0) < 0);
        await using (BlockNode disk = await Images.OpenAsync(_folder["theirs.vmdk"]))
        {
            Assert.Equal(0, (await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Corruptions);
        }
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.vmdk"], "vmdk");
        _ = await Programs.RunAsync("bximage", "-func=convert", "-imgmode=flat", "-q", _folder["ours.vmdk"], _folder["flat.img"]);
        DiskFormat.Same(contents, (await File.ReadAllBytesAsync(_folder["flat.img"]))[..contents.Length]);
    }

    [OracleFact(Python, Module)]
    public async Task What_VMDKstream_makes_is_read()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], (37 << 20) + 1024, seed: 6);
        string code = $"import sys; sys.path.insert(0, '{Path.GetDirectoryName(Module)}'); import VMDKstream; VMDKstream.convert_to_stream(sys.argv[1], sys.argv[2])";
        _ = await Programs.RunAsync(Python, "-c", code, _folder["disk.raw"], _folder["theirs.vmdk"]);
        await Images.ConvertAsync(_folder["theirs.vmdk"], null, _folder["back.raw"], "raw");
        DiskFormat.Same(await File.ReadAllBytesAsync(_folder["disk.raw"]), await File.ReadAllBytesAsync(_folder["back.raw"]));
    }

    [OracleTheory("vmdkinfo")]
    [InlineData("monolithicSparse", "Monolithic sparse")]
    [InlineData("streamOptimized", "Stream optimized")]
    [InlineData("twoGbMaxExtentSparse", "2GB extent sparse")]
    [InlineData("monolithicFlat", "Monolithic flat")]
    public async Task Libvmdk_says_of_ours_what_it_should(string subformat, string type)
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 33 << 20, seed: 7);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["ours.vmdk"], "vmdk", $"subformat={subformat}");
        string said = await Programs.RunAsync("vmdkinfo", _folder["ours.vmdk"]);
        Assert.Contains((33 << 20).ToString(CultureInfo.InvariantCulture), said, StringComparison.Ordinal);
        Assert.Contains(type, said, StringComparison.OrdinalIgnoreCase);
    }
}
