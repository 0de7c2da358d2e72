using DiskImage.Options;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>How many bits an entry of the allocation table has.</summary>
internal enum FatType
{
    /// <summary>By the size of the volume.</summary>
    [OptionText("auto", "0")]
    Auto = 0,

    /// <summary>12 bits: up to 4084 clusters.</summary>
    [OptionText("12")]
    Fat12 = 12,

    /// <summary>16 bits: up to 65524 clusters.</summary>
    [OptionText("16")]
    Fat16 = 16,

    /// <summary>28 bits of 32.</summary>
    [OptionText("32")]
    Fat32 = 32,
}

/// <summary>Options when a folder is opened as a disk. The names are QEMU's, but for the last two.</summary>
internal sealed record VirtualFatOptions
{
    /// <summary>QEMU's label.</summary>
    public const string DefaultLabel = "QEMU VVFAT";

    private const long LongestDisk = 2L << 40; // what a partition table can tell of, in sectors of 512 bytes

    /// <summary>The folder.</summary>
    [DriverOption("dir", "The folder whose files are on the disk")]
    public string Dir { get; init; } = "";

    /// <summary>The kind of allocation table.</summary>
    [DriverOption("fat-type", "Bits of an entry of the allocation table; auto: by the size")]
    public FatType FatType { get; init; }

    /// <summary>A floppy disk instead of a hard disk.</summary>
    [DriverOption("floppy", "A floppy disk: no partition table, and one of the sizes of floppy disks")]
    public bool Floppy { get; init; }

    /// <summary>The volume's label.</summary>
    [DriverOption("label", "The volume's label, up to 11 characters")]
    public string Label { get; init; } = DefaultLabel;

    /// <summary>What is written goes into the folder.</summary>
    [DriverOption("rw", "What is written to the disk is brought into the folder when it is flushed and closed")]
    public bool ReadWrite { get; init; }

    /// <summary>The disk's length.</summary>
    [DriverOption("size", "Bytes of the disk; 0: what its files take", IsSize = true, Minimum = 0, Maximum = LongestDisk)]
    public long Size { get; init; }

    /// <summary>Room that is left.</summary>
    [DriverOption("free", "Bytes that are free on the volume at least; with rw and no size 512M", IsSize = true, Minimum = 0,
        Maximum = LongestDisk)]
    public long? Free { get; init; }
}
