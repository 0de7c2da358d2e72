namespace DiskImage.Formats.Vpc;

/// <summary>Cylinders, heads and sectors per track. Spec: "Disk Geometry" and the appendix "CHS Calculation".</summary>
internal readonly record struct VpcGeometry(ushort Cylinders, byte Heads, byte SectorsPerTrack)
{
    /// <summary>Bytes of a sector, always.</summary>
    public const int SectorSize = 512;

    /// <summary>The largest geometry. A disk that bears it is larger than it can say, or its size is not meant to follow from it.</summary>
    public static readonly VpcGeometry Largest = new(65535, 16, 255);

    /// <summary>Sectors that the geometry addresses.</summary>
    public long Sectors => (long)Cylinders * Heads * SectorsPerTrack;

    /// <summary>The specification's geometry for a number of sectors. It addresses at most as many, often fewer.</summary>
    public static VpcGeometry Of(long sectors)
    {
        sectors = Math.Min(sectors, Largest.Sectors);
        if (sectors >= 65535L * 16 * 63)
        {
            return Split(sectors, 16, 255);
        }
        long tracks = sectors / 17;
        long heads = Math.Max(4, (tracks + 1023) / 1024);
        if (heads <= 16 && tracks < heads * 1024)
        {
            return Split(sectors, heads, 17);
        }
        return sectors / 31 < 16 * 1024 ? Split(sectors, 16, 31) : Split(sectors, 16, 63);
    }

    /// <summary>
    /// The first geometry, counting sectors up from <paramref name="sectors"/>, that addresses at least as many: QEMU's rounding.
    /// </summary>
    public static VpcGeometry Covering(long sectors)
    {
        long wanted = Math.Min(sectors, Largest.Sectors);
        VpcGeometry geometry = default;
        for (long more = 0; geometry.Sectors < wanted; more++)
        {
            geometry = Of(wanted + more);
        }
        return geometry;
    }

    private static VpcGeometry Split(long sectors, long heads, int perTrack)
        => new((ushort)(sectors / perTrack / heads), (byte)heads, (byte)perTrack);
}
