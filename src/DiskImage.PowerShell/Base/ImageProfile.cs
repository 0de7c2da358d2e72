using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vdi;
using DiskImage.Formats.Vhdx;
using DiskImage.Formats.Vmdk;
using DiskImage.Formats.Vpc;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>
/// What a service or a program asks of the images it takes: how to make one, and why it would refuse one. A further profile is a
/// further line in <see cref="All"/>.
/// </summary>
/// <param name="Name">Its name.</param>
/// <param name="Help">What it stands for, in one line.</param>
/// <param name="Format">The format of images made for it.</param>
/// <param name="Options">Create options of that format.</param>
/// <param name="SizeUnit">Virtual sizes are rounded up to a multiple of so many bytes.</param>
/// <param name="Objections">Why it would refuse an open image, each as a clause; empty if it would not.</param>
/// <param name="ObjectionsToSize">Why it would refuse any image of a virtual size.</param>
internal sealed record ImageProfile(
    string Name,
    string Help,
    string Format,
    IReadOnlyDictionary<string, object?> Options,
    long SizeUnit,
    Func<OpenedImage, IEnumerable<string>> Objections,
    Func<long, IEnumerable<string>> ObjectionsToSize)
{
    private const FileAttributes RefusedByHyperV = FileAttributes.SparseFile | FileAttributes.Compressed | FileAttributes.Encrypted;

    /// <summary>The profiles there are.</summary>
    public static IReadOnlyList<ImageProfile> All { get; } =
    [
        new(
            "Azure",
            "a fixed VHD of whole MiB",
            "vpc",
            new Dictionary<string, object?>(StringComparer.Ordinal) { ["subformat"] = "fixed", ["force_size"] = true },
            1 << 20,
            AzureObjections,
            VpcProfile.AzureObjectionsToSize),
        new(
            "HyperV",
            "a dynamic VHDX",
            "vhdx",
            new Dictionary<string, object?>(StringComparer.Ordinal) { ["subformat"] = "dynamic" },
            512,
            HyperVObjections,
            size => size == 0 ? ["the disk is empty"] : []),
        new(
            "ESXi",
            "a stream-optimized VMDK of whole MiB",
            "vmdk",
            ForVmware("streamOptimized"),
            1 << 20,
            image => VmwareObjections(image, "ESXi", VmdkProfile.EsxiObjections),
            VmdkProfile.EsxiObjectionsToSize),
        new(
            "VMwareWorkstation",
            "a sparse VMDK in one file",
            "vmdk",
            new Dictionary<string, object?>(StringComparer.Ordinal) { ["subformat"] = "monolithicSparse", ["adapter_type"] = "lsilogic" },
            512,
            image => VmwareObjections(image, "Workstation", VmdkProfile.WorkstationObjections),
            size => size == 0 ? ["the disk is empty"] : []),
        new(
            "VMFS",
            "a flat VMDK with a vmfs descriptor, of whole MiB",
            "vmdk",
            ForVmware("vmfs"),
            1 << 20,
            image => VmwareObjections(image, "a VMFS datastore", VmdkProfile.VmfsObjections),
            VmdkProfile.EsxiObjectionsToSize),
        new(
            "VirtualBox",
            "a dynamic VDI",
            "vdi",
            new Dictionary<string, object?>(StringComparer.Ordinal) { ["static"] = false },
            512,
            image => Facts(image) is VdiInfo info
                ? VdiProfile.VirtualBoxObjections(info, image.Node.Length)
                : [$"the format is {image.Format.Name}; this profile stands for VDI"],
            VdiProfile.VirtualBoxObjectionsToSize),
    ];

    /// <summary>The profile of a name; null for no name.</summary>
    /// <exception cref="DiskImageException">InvalidOption, naming the choice.</exception>
    public static ImageProfile? Find(string? name)
        => name is null ? null : TryFind(name) ?? throw new DiskImageException(
            DiskImageErrorKind.InvalidOption, $"There is no profile '{name}'. {KnownNames.Hint(name, All.Select(p => p.Name))}");

    /// <summary>The profile of a name, or null.</summary>
    public static ImageProfile? TryFind(string? name) => All.FirstOrDefault(p => p.Name.Equals(name, StringComparison.OrdinalIgnoreCase));

    /// <summary>The size of a disk for it that is to hold so many bytes.</summary>
    public long SizeOf(long length) => length % SizeUnit is var rest && rest == 0 ? length : checked(length - rest + SizeUnit);

    /// <summary>Throws if a new image's format or name contradicts the profile.</summary>
    /// <param name="path">Where the image is to be.</param>
    /// <param name="format">The format that it is to have.</param>
    /// <param name="parameter">The parameter that names a format.</param>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public void Require(string path, FormatDriver format, string parameter)
    {
        if (!format.Name.Equals(Format, StringComparison.Ordinal))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: profile {Name} stands for {Help}, so -{parameter} cannot be {format.Name}.",
                path);
        }
        if (!format.Extensions.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: profile {Name} stands for {Help}, whose name ends with "
                    + $"{string.Join(" or ", format.Extensions)}. Choose such a name.",
                path);
        }
    }

    private static IEnumerable<string> AzureObjections(OpenedImage image)
        => Facts(image) is VpcInfo info
            ? VpcProfile.AzureObjections(info, image.Node.Length, image.Node.Child("file")?.Length ?? 0)
            : [$"the format is {image.Format.Name}; Azure takes fixed VHDs"];

    private static IEnumerable<string> HyperVObjections(OpenedImage image)
    {
        if (Facts(image) is not (VpcInfo or VhdxInfo))
        {
            yield return $"the format is {image.Format.Name}; Hyper-V takes VHDX and VHD";
        }
        else if (!image.Format.Extensions.Contains(Path.GetExtension(image.Path), StringComparer.OrdinalIgnoreCase))
        {
            yield return $"the name does not end with {string.Join(" or ", image.Format.Extensions)}";
        }
        if (OperatingSystem.IsWindows() && File.Exists(image.Path) && File.GetAttributes(image.Path) is var attributes
            && (attributes & RefusedByHyperV) != 0)
        {
            yield return $"the file is marked {attributes & RefusedByHyperV} in its file system";
        }
    }

    private static Dictionary<string, object?> ForVmware(string subformat)
        => new(StringComparer.Ordinal)
        {
            ["subformat"] = subformat, ["adapter_type"] = "lsilogic", ["hwversion"] = VmdkProfile.HardwareVersion,
        };

    private static IEnumerable<string> VmwareObjections(OpenedImage image, string who, Func<VmdkInfo, long, IEnumerable<string>> objections)
        => Facts(image) is VmdkInfo info ? objections(info, image.Node.Length) : [$"the format is {image.Format.Name}; {who} takes VMDK"];

    private static object? Facts(OpenedImage image) => image.Node.As<IDescribed>()?.Describe().FormatSpecific;
}
