using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>What a descriptor says after some of its options were changed.</summary>
internal static class VmdkAmendment
{
    /// <summary>The changed descriptor.</summary>
    /// <param name="descriptor">What it says.</param>
    /// <param name="options">What is to be changed.</param>
    /// <param name="length">The disk's length, for a new identifier.</param>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static VmdkDescriptor Of(VmdkDescriptor descriptor, VmdkAmendOptions options, long length)
    {
        VmdkDescriptor changed = descriptor;
        if (options.AdapterType is { } adapter)
        {
            changed = changed.With(VmdkText.AdapterKey, VmdkText.Of(adapter), isQuoted: true);
        }
        if (options.HardwareVersion is int hardware)
        {
            changed = changed.With(VmdkText.HardwareKey, hardware.ToString(CultureInfo.InvariantCulture), isQuoted: true);
        }
        if (options.ToolsVersion is long tools)
        {
            changed = changed.With(VmdkText.ToolsKey, tools.ToString(CultureInfo.InvariantCulture), isQuoted: true);
        }
        if (options.ParentPath is { } path)
        {
            changed = !changed.HasParent
                ? throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption, $"{descriptor.ImageName}: has no parent, so parent_path={path} is not possible."
                        + $" Give it one with {new Remedy(RemedyKind.SetBacking)}.", descriptor.ImageName)
                : changed.WithParent(changed.ParentCid, path, changed.ComingParentCid);
        }
        return options.Cid is { } cid ? changed.WithCid(CidOf(descriptor, cid, length)) : changed;
    }

    private static uint CidOf(VmdkDescriptor descriptor, string value, long length)
        => value.Equals("new", StringComparison.OrdinalIgnoreCase) ? VmdkParent.NewCid(descriptor.Cid, length, Guid.NewGuid())
            : value.Length == 8 && uint.TryParse(value, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint cid)
                && cid != VmdkDescriptor.NoParent ? cid
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{descriptor.ImageName}: cid={value} is not possible; allowed: 8 hexadecimal digits"
                    + " other than ffffffff, or new.", descriptor.ImageName);
}
