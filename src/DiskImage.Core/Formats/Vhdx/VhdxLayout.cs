using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Places and limits of the file as a whole. Spec: MS-VHDX 2.1, 2.2.</summary>
internal static class VhdxLayout
{
    /// <summary>Every region, the log and every block begins at a multiple of this.</summary>
    public const int MiB = 1 << 20;

    /// <summary>What the log updates at a time, and the grain of its entries. Spec: 2.3.</summary>
    public const int Sector = 4096;

    public const int HeaderSection = MiB;
    public const int RegionTable1At = 192 << 10, RegionTable2At = 256 << 10;
    public const int MinBlockSize = MiB, MaxBlockSize = 256 * MiB;
    public const long MaxVirtualSize = 64L << 40;

    /// <summary>A sector bitmap block always has this size. Spec: 2.4.</summary>
    public const int BitmapBlockSize = MiB;

    /// <summary>Sectors that one sector bitmap block describes. Spec: 2.4.</summary>
    public const int SectorsPerChunk = 1 << 23;

    /// <summary>Offsets past this are taken for damage: twice what the largest disk needs. Ours.</summary>
    public const long MaxFileSize = 128L << 40;

    /// <summary>The first bytes of every VHDX file. Spec: 2.2.1.</summary>
    public static ReadOnlySpan<byte> FileSignature => "vhdxfile"u8;

    /// <summary>The error for structures that contradict the specification or each other.</summary>
    public static DiskImageException Corrupt(string path, Wording what, long? offset = null)
        => new(DiskImageErrorKind.Corrupt, $"{path}: {what}. Look at all of it with {new Remedy(RemedyKind.Check)}.", path, offset);
}
