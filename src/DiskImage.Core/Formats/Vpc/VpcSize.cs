using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// How large a disk is. A footer tells it twice, as a number of bytes and as a geometry, and the two differ: Virtual PC takes the
/// geometry, Hyper-V and its kin the bytes. The creator application tells which was meant. The rule is QEMU's; see SPEC.md.
/// </summary>
internal static class VpcSize
{
    /// <summary>The largest dynamic disk: 2040 GiB. Spec: "Dynamic Hard Disk Image".</summary>
    public const long Largest = 0xFF00_0000L * VpcGeometry.SectorSize;

    /// <summary>QEMU's mark for a disk whose size follows from its geometry.</summary>
    public const string QemuGeometry = "qemu";

    /// <summary>QEMU's mark for a disk whose size is its current size.</summary>
    public const string QemuCurrentSize = "qem2";

    /// <summary>Creators that mean the current size: QEMU with force_size, Hyper-V, Disk2vhd (both spellings), XenServer, XenConverter, Azure.</summary>
    private static readonly string[] ByCurrentSize = [QemuCurrentSize, "win ", "d2v ", "d2v\0", "tap\0", "CTXS", "wa\0\0"];

    /// <summary>True if the creator of a disk took the geometry for its size.</summary>
    public static bool IsByGeometry(string creator, VpcGeometry geometry)
        => geometry != VpcGeometry.Largest && !ByCurrentSize.Contains(creator, StringComparer.Ordinal);

    /// <summary>True if the size is to be taken from the geometry.</summary>
    public static bool IsByGeometry(VpcFooter footer, VpcSizeCalculation calculation) => calculation switch
    {
        VpcSizeCalculation.Chs => footer.Geometry != VpcGeometry.Largest,
        VpcSizeCalculation.CurrentSize => false,
        _ => IsByGeometry(footer.CreatorApplication, footer.Geometry),
    };

    /// <summary>The virtual size of a disk.</summary>
    public static long Of(VpcFooter footer, VpcSizeCalculation calculation)
    {
        long sectors = IsByGeometry(footer, calculation) ? footer.Geometry.Sectors : footer.CurrentSize / VpcGeometry.SectorSize;
        return sectors * VpcGeometry.SectorSize;
    }

    /// <summary>
    /// What a new or resized disk says of its size, so that everybody reads the same: the geometry where it says the size exactly,
    /// else the largest geometry, which nobody takes for a size.
    /// </summary>
    /// <param name="size">Bytes, a multiple of the sector.</param>
    /// <param name="creator">The creator application so far.</param>
    public static (VpcGeometry Geometry, string Creator) Exactly(long size, string creator)
    {
        long sectors = size / VpcGeometry.SectorSize;
        VpcGeometry covering = VpcGeometry.Covering(sectors);
        return covering.Sectors == sectors
            ? (covering, creator)
            : (VpcGeometry.Largest, IsByGeometry(creator, default) ? QemuCurrentSize : creator);
    }

    /// <summary>Refuses a size that a disk of the format cannot have.</summary>
    public static void Require(long size, string path)
    {
        if (size > Largest)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: a size of {size:#,0} bytes is too large for VHD, which holds up to {Largest:#,0} (2040 GiB). Choose VHDX.",
                path);
        }
    }
}
