using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>The text of a new descriptor. Spec: Virtual Disk Format 5.0, "The Descriptor File".</summary>
internal static class VmdkText
{
    public const string AdapterKey = "ddb.adapterType", HardwareKey = "ddb.virtualHWVersion", ToolsKey = "ddb.toolsVersion";

    private const int IdeHeads = 16, ScsiHeads = 255, SectorsPerTrack = 63, MostIdeCylinders = 16383;
    private const int DefaultHardware = 4, Compat6Hardware = 6;

    /// <summary>An adapter as it is written.</summary>
    public static string Of(VmdkAdapter adapter) => adapter switch
    {
        VmdkAdapter.BusLogic => "buslogic",
        VmdkAdapter.LsiLogic => "lsilogic",
        VmdkAdapter.LegacyEsx => "legacyESX",
        _ => "ide",
    };

    /// <summary>A kind of disk as it is written.</summary>
    public static string Of(VmdkSubformat subformat) => subformat switch
    {
        VmdkSubformat.MonolithicFlat => "monolithicFlat",
        VmdkSubformat.TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
        VmdkSubformat.TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
        VmdkSubformat.StreamOptimized => "streamOptimized",
        VmdkSubformat.Vmfs => "vmfs",
        _ => "monolithicSparse",
    };

    /// <summary>The hardware version that options ask for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: two are.</exception>
    public static int Hardware(VmdkCreateOptions options, string imageName)
        => options is { Compat6: true, HardwareVersion: { } version }
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{imageName}: compat6 stands for hwversion={Compat6Hardware}, so hwversion={version} cannot be given with it. Leave one of them out.", imageName)
            : options.HardwareVersion ?? (options.Compat6 ? Compat6Hardware : DefaultHardware);

    /// <summary>A new disk's descriptor.</summary>
    /// <param name="options">What is asked for.</param>
    /// <param name="length">Bytes of the disk.</param>
    /// <param name="extents">Its extents.</param>
    /// <param name="parentCid">The parent's content identifier; <see cref="VmdkDescriptor.NoParent"/> for none.</param>
    /// <param name="imageName">The image.</param>
    public static VmdkDescriptor New(VmdkCreateOptions options, long length, IReadOnlyList<VmdkExtentLine> extents, uint parentCid, string imageName)
    {
        bool isIde = options.AdapterType == VmdkAdapter.Ide;
        int heads = isIde ? IdeHeads : ScsiHeads;
        long cylinders = length / ((long)heads * SectorsPerTrack * VmdkHeader.SectorSize);
        cylinders = isIde ? Math.Min(cylinders, MostIdeCylinders) : cylinders;
        string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
        uint cid = VmdkParent.NewCid(0, length, Of(options.Subformat), parentCid, Path.GetFileName(imageName));
        VmdkDescriptor descriptor = VmdkDescriptor.Of(
        [
            "# Disk DescriptorFile",
            "version=1",
            "encoding=\"UTF-8\"",
            $"CID={VmdkParent.Text(cid)}",
            $"parentCID={VmdkParent.Text(parentCid)}",
            $"createType=\"{Of(options.Subformat)}\"",
            "",
            "# Extent description",
            .. extents.Select(e => e.Text),
            "",
            "# The Disk Data Base",
            "#DDB",
            "",
            $"{HardwareKey} = \"{Number(Hardware(options, imageName))}\"",
            $"ddb.geometry.cylinders = \"{Number(cylinders)}\"",
            $"ddb.geometry.heads = \"{Number(heads)}\"",
            $"ddb.geometry.sectors = \"{Number(SectorsPerTrack)}\"",
            $"{AdapterKey} = \"{Of(options.AdapterType)}\"",
            $"{ToolsKey} = \"{Number(options.ToolsVersion)}\"",
            "",
        ],
        imageName);
        return options.BackingFile is null ? descriptor : descriptor.WithParent(parentCid, options.BackingFile);
    }
}
