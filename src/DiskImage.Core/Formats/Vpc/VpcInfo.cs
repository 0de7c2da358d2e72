using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>What kind of disk a VHD holds. Spec: "Disk Type".</summary>
internal enum VpcDiskType
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The disk's bytes, then the footer.</summary>
    Fixed = 2,

    /// <summary>Blocks that are added as they are written to.</summary>
    Dynamic = 3,

    /// <summary>Like dynamic; sectors that were never written are the parent's.</summary>
    Differencing = 4,
}

/// <summary>One way that a differencing disk names its parent.</summary>
/// <param name="PlatformCode">W2ru, W2ku, Wi2r, Wi2k, MacX or Mac.</param>
/// <param name="Text">The path; null if it is not text or cannot be read.</param>
public readonly record struct VpcParentLocatorInfo(string PlatformCode, string? Text)
{
    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{PlatformCode}: {Text}");
}

/// <summary>What a VHD says beyond the facts that all formats share.</summary>
public readonly record struct VpcInfo()
{
    /// <summary>Fixed, dynamic or differencing.</summary>
    public required string DiskType { get; init; }

    /// <inheritdoc/>
    public override string ToString() => DiskType;

    /// <summary>The program that made the disk, four characters ("win ", "vpc ", "qemu" …).</summary>
    public required string CreatorApplication { get; init; }

    /// <summary>That program's version.</summary>
    public required Version CreatorVersion { get; init; }

    /// <summary>The system it ran on: "Wi2k" or "Mac ".</summary>
    public required string CreatorHostOs { get; init; }

    /// <summary>When the disk was made.</summary>
    public required DateTime Created { get; init; }

    /// <summary>The disk's identity, which its children record.</summary>
    public required Guid UniqueId { get; init; }

    /// <summary>Bytes when it was made.</summary>
    public required long OriginalSize { get; init; }

    /// <summary>Bytes now, as the footer says; see <see cref="IsSizeFromGeometry"/>.</summary>
    public required long CurrentSize { get; init; }

    /// <summary>Cylinders of the geometry.</summary>
    public required int Cylinders { get; init; }

    /// <summary>Heads of the geometry.</summary>
    public required int Heads { get; init; }

    /// <summary>Sectors per track of the geometry.</summary>
    public required int SectorsPerTrack { get; init; }

    /// <summary>The virtual size is the geometry's and not <see cref="CurrentSize"/>: the creator application took it so.</summary>
    public required bool IsSizeFromGeometry { get; init; }

    /// <summary>A virtual machine that uses the disk is saved.</summary>
    public required bool SavedState { get; init; }

    /// <summary>The footer at the file's end was damaged or missing, and the copy at the file's beginning was used.</summary>
    public required bool FooterRecovered { get; init; }

    /// <summary>The dynamic header's checksum is wrong: it is read, but not written to before it is repaired.</summary>
    public bool HeaderDamaged { get; init; }

    /// <summary>Bytes of a block; null for fixed disks.</summary>
    public long? BlockSize { get; init; }

    /// <summary>The parent's identity; null if there is no parent.</summary>
    public Guid? ParentUniqueId { get; init; }

    /// <summary>When the parent was last changed when this disk was made on it.</summary>
    public DateTime? ParentModified { get; init; }

    /// <summary>The parent's file name.</summary>
    public string? ParentName { get; init; }

    /// <summary>All ways in which the disk names its parent.</summary>
    public IReadOnlyList<VpcParentLocatorInfo> ParentLocators { get; init; } = [];

    internal static VpcInfo Of(VpcFooters footers, VpcSizeCalculation calculation)
    {
        VpcFooter footer = footers.Best;
        return new()
        {
            DiskType = footer.DiskType.ToString(),
            CreatorApplication = footer.CreatorApplication,
            CreatorVersion = new Version((int)(footer.CreatorVersion >> 16), (int)(footer.CreatorVersion & 0xFFFF)),
            CreatorHostOs = footer.CreatorHostOs,
            Created = VpcFooter.Time(footer.TimeStamp).UtcDateTime,
            UniqueId = footer.UniqueId,
            OriginalSize = footer.OriginalSize,
            CurrentSize = footer.CurrentSize,
            Cylinders = footer.Geometry.Cylinders,
            Heads = footer.Geometry.Heads,
            SectorsPerTrack = footer.Geometry.SectorsPerTrack,
            IsSizeFromGeometry = VpcSize.IsByGeometry(footer, calculation),
            SavedState = footer.SavedState,
            FooterRecovered = footers.End is null,
        };
    }
}
