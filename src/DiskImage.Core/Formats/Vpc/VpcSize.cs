using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// How large a disk is. A footer tells it twice, as a number of bytes and as a geometry, and the two differ: Virtual PC takes the
/// geometry, Hyper-V and its kin the bytes. The creator application tells which was meant; one that nobody has listed means the bytes,
/// since a geometry can say few sizes and many makers cap it. Whichever counts, nothing below the larger one is unused; see SPEC.md.
/// </summary>
internal static class VpcSize
{
    /// <summary>
    /// The largest dynamic disk: 2040 GiB. Spec: "Dynamic Hard Disk Image". Hyper-V makes no larger fixed ones, and QEMU opens none.
    /// </summary>
    public const long LargestDynamic = 0xFF00_0000L * VpcGeometry.SectorSize;

    /// <summary>
    /// The largest fixed disk that is made: 64 TiB, as VHDX. Ours: the format's field has 64 bits. Azure takes up to 32,767 GiB.
    /// </summary>
    public const long LargestFixed = 64L << 40;

    /// <summary>QEMU's mark for a disk whose size follows from its geometry.</summary>
    public const string QemuGeometry = "qemu";

    /// <summary>QEMU's mark for a disk whose size is its current size.</summary>
    public const string QemuCurrentSize = "qem2";

    /// <summary>Creators that mean the geometry: Virtual PC, Virtual Server, QEMU without force_size.</summary>
    private static readonly string[] ByGeometry = ["vpc ", "vs  ", QemuGeometry];

    /// <summary>True if the creator of a disk took the geometry for its size.</summary>
    public static bool IsByGeometry(string creator, VpcGeometry geometry)
        => geometry != VpcGeometry.Largest && ByGeometry.Contains(creator, StringComparer.Ordinal);

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

    /// <summary>
    /// What to know of a disk whose creator means the geometry where the footer's current size is another; null if there is nothing.
    /// </summary>
    public static string? Warning(VpcFooter footer, VpcSizeCalculation calculation)
    {
        long current = Round.Down(footer.CurrentSize, VpcGeometry.SectorSize), length = Of(footer, calculation);
        return calculation != VpcSizeCalculation.Auto || !IsByGeometry(footer, calculation) || current == length ? null
            : $"the footer tells two sizes, {length:#,0} bytes by the geometry ({footer.Geometry.Cylinders} × "
                + $"{footer.Geometry.Heads} × {footer.Geometry.SectorsPerTrack})"
                + $" and {current:#,0} as current size. Its creator '{footer.CreatorApplication}' means the "
                + $"geometry, so the disk has {length:#,0} here;"
                + $" if a part is missing, take the other with the open option {VpcOpenOptions.SizeOption}=current_size";
    }

    /// <summary>The error of a change that would show or lose what is stored behind the end of a disk.</summary>
    public static DiskImageException Behind(string path, string what, long length, long current, long offset)
        => new(
            DiskImageErrorKind.Unsupported,
            $"{path}: is not {what}, since there is data at guest offset {offset:#,0}, behind the end of the disk at {length:#,0}; the "
                + $"footer's current size is {current:#,0}. "
                + (current > length && offset < current
                    ? $"If that is the disk's size, give the open option {VpcOpenOptions.SizeOption}=current_size; else "
                        + $"convert the disk, which takes what it shows."
                    : "Convert the disk, which takes what it shows, and change that one."),
            path,
            offset);

    /// <summary>Refuses a size that a disk of the format cannot have.</summary>
    public static void Require(long size, bool isFixed, string path)
    {
        if (size > (isFixed ? LargestFixed : LargestDynamic))
        {
            string limit = isFixed
                ? $"a fixed VHD, which holds up to {LargestFixed:#,0} (64 TiB)"
                : $"a dynamic or differencing VHD, which holds up to {LargestDynamic:#,0} (2040 GiB); a fixed one can be larger";
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{path}: a size of {size:#,0} bytes is too large for {limit}. Choose VHDX.", path);
        }
    }
}
