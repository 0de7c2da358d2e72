using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vmdk;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Every value of what a descriptor says of the virtual machine: made, shown, changed; and the files that a map names.</summary>
public sealed class VmdkOptionTests : IDisposable
{
    private static readonly string?[] s_adapters = [null, "ide", "buslogic", "lsilogic", "legacyESX"];
    private static readonly string?[] s_hardware = [null, "1", "3", "4", "6", "7", "13", "21", "1000"];
    private static readonly string?[] s_tools = [null, "0", "1", "2147483647", "4294967295"];

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Every pair of values, over all kinds of disk.</summary>
    public static TheoryData<string> Pairs()
    {
        var matrix = new OptionMatrix(
            [
                (
                    "subformat",
                    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized", "vmfs"]),
                ("adapter_type", s_adapters), ("hwversion", s_hardware), ("toolsversion", s_tools), ("compat6", [null, "on"]),
            ],
            [new("compat6", v => v is not null, "hwversion", v => v is not null)]);
        return [.. matrix.Pairwise(seed: 1)];
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public async Task What_is_made_is_shown(string options)
    {
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", $"size=1M,{options}");
        Dictionary<string, string> given = options.Split(',').Select(o => o.Split('=')).ToDictionary(
            o => o[0], o => o[1], StringComparer.Ordinal);
        VmdkInfo info = await InfoAsync();
        Assert.Equal(given["subformat"], info.CreateType);
        Assert.Equal(given.GetValueOrDefault("adapter_type", "ide"), info.AdapterType);
        Assert.Equal(given.GetValueOrDefault("hwversion", given.ContainsKey("compat6") ? "6" : "4"), info.HardwareVersion);
        Assert.Equal(given.GetValueOrDefault("toolsversion", "2147483647"), info.ToolsVersion);
    }

    [Theory]
    [InlineData("monolithicSparse")]
    [InlineData("monolithicFlat")]
    [InlineData("twoGbMaxExtentSparse")]
    [InlineData("twoGbMaxExtentFlat")]
    [InlineData("vmfs")]
    public async Task Every_value_can_be_changed_and_nothing_else_changes_with_it(string subformat)
    {
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", $"size=1M,subformat={subformat}");
        VmdkInfo expected = await InfoAsync();
        foreach (string adapter in s_adapters.OfType<string>())
        {
            expected = await ChangedAsync($"adapter_type={adapter}", expected with { AdapterType = adapter });
        }
        foreach (string version in s_hardware.OfType<string>())
        {
            expected = await ChangedAsync($"hwversion={version}", expected with { HardwareVersion = version });
        }
        foreach (string version in s_tools.OfType<string>())
        {
            expected = await ChangedAsync($"toolsversion={version}", expected with { ToolsVersion = version });
        }
        foreach (string cid in new[] { "00000000", "0badcafe", "fffffffe" })
        {
            expected = await ChangedAsync($"cid={cid}", expected with { Cid = cid });
        }
        foreach (string wrong in new[]
        {
            "adapter_type=sata", "hwversion=0", "hwversion=1001", "hwversion=x", "toolsversion=-1", "toolsversion=4294967296",
            "cid=12", "cid=ffffffff",
        })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync(wrong));
            Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        }
        Same(expected, await InfoAsync());
    }

    [Theory]
    [InlineData("monolithicFlat", 1)]
    [InlineData("twoGbMaxExtentFlat", 3)]
    [InlineData("twoGbMaxExtentSparse", 3)]
    public async Task A_map_names_the_file_of_each_extent(string subformat, int files)
    {
        const long Part = 2L << 30;
        long length = ((files - 1) * Part) + (4 << 20);
        await Images.CreateAsync(_folder["disk.vmdk"], "vmdk", $"size={length},subformat={subformat}");
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.vmdk"], writable: true);
        byte[] data = Enumerable.Repeat((byte)7, 1 << 16).ToArray();
        for (int i = 0; i < files; i++)
        {
            await disk.WriteAsync((i * Part) + (1 << 20), data);
        }
        await disk.FlushAsync();
        string?[] named = new string?[files];
        await foreach (BlockExtent extent in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
        {
            if (extent is { IsZero: false, IsAllocated: true })
            {
                for (int i = 0; i < files; i++)
                {
                    if (extent.Offset <= (i * Part) + (1 << 20) && (i * Part) + (1 << 20) < extent.Offset + extent.Length)
                    {
                        named[i] = Path.GetFileName(extent.Node?.Name);
                        byte[] there = new byte[512];
                        await extent.Node!.ReadAsync(extent.HostOffset!.Value + ((i * Part) + (1 << 20) - extent.Offset), there);
                        Assert.Equal(data[..512], there);
                    }
                }
            }
        }
        char letter = subformat.EndsWith("Flat", StringComparison.Ordinal) ? 'f' : 's';
        string[] expected = subformat is "monolithicFlat" ? ["disk-flat.vmdk"]
            : [.. Enumerable.Range(1, files).Select(n => $"disk-{letter}00{n}.vmdk")];
        Assert.Equal(expected, named);
    }

    private async Task<VmdkInfo> ChangedAsync(string option, VmdkInfo expected)
    {
        await AmendAsync(option);
        VmdkInfo now = await InfoAsync();
        Same(expected, now);
        return now;
    }

    private static void Same(VmdkInfo expected, VmdkInfo now)
    {
        Assert.Equal(expected.Extents, now.Extents);
        Assert.Equal(expected with { Extents = now.Extents }, now);
    }

    private async Task AmendAsync(string options)
    {
        var driver = (IAmendable)Images.Registry.Format("vmdk");
        object record = driver.AmendOptions.Bind(OptionSchema.Split(options));
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true);
        await driver.AmendAsync(disk, record, null, CancellationToken.None);
    }

    private async Task<VmdkInfo> InfoAsync()
    {
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"]);
        return (VmdkInfo)disk.As<IDescribed>()!.Describe().FormatSpecific!;
    }
}
