using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>Where the parts of a volume lie. Spec: fatgen103, 3 (BPB) and 3.5 (the type follows from the number of clusters).</summary>
internal sealed record FatGeometry
{
    /// <summary>Bytes of a sector.</summary>
    public const int Sector = 512;

    /// <summary>Copies of the allocation table.</summary>
    public const int Tables = 2;

    /// <summary>The number of the first cluster.</summary>
    public const uint FirstCluster = 2;

    private const long MiB = 1 << 20;
    private const int PartitionAt = 2048; // sectors: a mebibyte, as partitioning programs have it
    private const int SpareSectors = 1; // behind the partition: what a file ends with is not taken for the end of a disk image
    private const int Waste = 4096; // sectors behind the volume that may be left where the disk's length is given
    private const int Margin = 16; // from the numbers of clusters at which the type changes; fatgen103 advises it
    private const long MostSectors = uint.MaxValue - 1;

    /// <summary>
    /// The kinds of hard disks' volumes, with the sectors up to which they are chosen. Spec: fatgen103, 3.5, the two tables.
    /// </summary>
    private static readonly (FatType Type, int PerCluster, long Most)[] s_kinds =
    [
        (FatType.Fat12, 4, 8400),
        (FatType.Fat16, 2, 32_680), (FatType.Fat16, 4, 262_144), (FatType.Fat16, 8, 524_288),
        (FatType.Fat16, 16, 1_048_576),
        (FatType.Fat32, 8, 16_777_216), (FatType.Fat32, 16, 33_554_432), (FatType.Fat32, 32, 67_108_864),
        (FatType.Fat32, 64, MostSectors),
    ];

    private static readonly int[] s_perCluster = [2, 4, 8, 16, 32, 64, 128];

    private static readonly FloppyKind[] s_floppies =
    [
        new(2880, 18, 0xF0, 1, 224), new(5760, 36, 0xF0, 2, 240), // the first that has the room is taken
        new(2400, 15, 0xF9, 1, 224), new(1440, 9, 0xF9, 2, 112), new(720, 9, 0xFD, 2, 112),
    ];

    /// <summary>The type of the allocation table; never <see cref="FatType.Auto"/>.</summary>
    public required FatType Type { get; init; }

    /// <summary>The disk's sectors.</summary>
    public required long DiskSectors { get; init; }

    /// <summary>Sectors before the volume; 0 for a floppy.</summary>
    public required int Start { get; init; }

    /// <summary>Sectors of the volume.</summary>
    public required long Sectors { get; init; }

    /// <summary>Sectors of a cluster.</summary>
    public required int SectorsPerCluster { get; init; }

    /// <summary>Sectors before the tables.</summary>
    public required int Reserved { get; init; }

    /// <summary>Sectors of one table.</summary>
    public required int TableSectors { get; init; }

    /// <summary>Entries of the top folder; 0 where it is a chain of clusters.</summary>
    public required int RootEntries { get; init; }

    /// <summary>Clusters.</summary>
    public required long Clusters { get; init; }

    /// <summary>What the first byte of the table and of the BPB says of the medium.</summary>
    public required byte Media { get; init; }

    /// <summary>Sectors of a track.</summary>
    public required int SectorsPerTrack { get; init; }

    /// <summary>Heads.</summary>
    public required int Heads { get; init; }

    /// <summary>Bytes of a cluster.</summary>
    public int ClusterBytes => SectorsPerCluster * Sector;

    /// <summary>Byte of the disk where the volume begins.</summary>
    public long VolumeAt => (long)Start * Sector;

    /// <summary>Byte of the disk where the first table begins.</summary>
    public long TableAt => VolumeAt + ((long)Reserved * Sector);

    /// <summary>Bytes of one table.</summary>
    public long TableBytes => (long)TableSectors * Sector;

    /// <summary>Byte of the disk where the top folder begins that is no chain.</summary>
    public long RootAt => TableAt + (Tables * TableBytes);

    /// <summary>Bytes of that; 0 where the top folder is a chain.</summary>
    public long RootBytes => (long)RootEntries * FatFolderBytes.EntryBytes;

    /// <summary>Byte of the disk where the first cluster begins.</summary>
    public long DataAt => RootAt + RootBytes;

    /// <summary>Byte behind the last cluster.</summary>
    public long DataEnd => DataAt + (Clusters * ClusterBytes);

    /// <summary>Bytes of the disk.</summary>
    public long DiskBytes => DiskSectors * Sector;

    /// <summary>Byte of the disk where a cluster begins.</summary>
    public long OffsetOf(uint cluster) => DataAt + ((cluster - FirstCluster) * (long)ClusterBytes);

    /// <summary>True for the number of a cluster that there is.</summary>
    public bool Has(uint cluster) => cluster >= FirstCluster && cluster - FirstCluster < Clusters;

    /// <summary>Chooses what a tree fits on.</summary>
    /// <param name="options">What is asked for.</param>
    /// <param name="rootEntries">Entries of the top folder.</param>
    /// <param name="needed">Clusters that all of the tree needs, the top folder's among them where it is a chain.</param>
    /// <exception cref="DiskImageException">OutOfRange: it fits on nothing that is allowed; InvalidOption.</exception>
    public static FatGeometry Choose(VirtualFatOptions options, int rootEntries, Func<FatType, int, long> needed)
    {
        if (options is { Size: > 0, Free: > 0 })
        {
            throw Invalid(options, "the options 'size' and 'free' are both given; one follows from the other. Give one");
        }
        return options.Floppy ? ChooseFloppy(options, rootEntries, needed) : ChooseHardDisk(options, rootEntries, needed);
    }

    private static FatGeometry ChooseHardDisk(VirtualFatOptions options, int rootEntries, Func<FatType, int, long> needed)
    {
        if (options.Size % Sector != 0)
        {
            throw Invalid(options, $"the option 'size' is {options.Size:#,0}; allowed: multiples of {Sector} bytes");
        }
        long free = options.Free ?? (options is { ReadWrite: true, Size: 0 } ? 512 * MiB : 0);
        long room = (options.Size / Sector) - PartitionAt - SpareSectors; // of the volume, where the disk's length is given
        foreach ((FatType type, int perCluster, long most) in Kinds(options.FatType))
        {
            (long fewest, long largest) = Range(type);
            long clusters = needed(type, perCluster) + Up(free, perCluster * Sector);
            FatGeometry least = Make(type, perCluster, rootEntries, Math.Max(clusters, fewest));
            FatGeometry made = options.Size > 0
                ? Filling(least, room, rootEntries, largest)
                : Filling(least, RoundedUp(least.Sectors), rootEntries, largest);
            if (clusters <= largest && made.Clusters >= Math.Max(clusters, fewest) && made.Sectors <= most
                && (options.Size == 0 || room - made.Sectors < Waste))
            {
                return made with { DiskSectors = options.Size > 0 ? options.Size / Sector : made.DiskSectors };
            }
        }
        long bytes = needed(FatType.Fat32, 8) * 8 * Sector;
        string type32 = options.FatType is FatType.Auto ? "" : $" with FAT{(int)options.FatType}";
        throw new DiskImageException(
            DiskImageErrorKind.OutOfRange,
            options.Size > 0
                ? $"{options.Dir}: a disk of {options.Size:#,0} bytes{type32} is not possible for it: its files and folders take about "
                    + $"{bytes:#,0} bytes, FAT12 has up to 4,084 clusters, FAT16 4,085 to 65,524, and FAT32 from 65,525 on. Choose "
                    + $"another 'size', or none, or another 'fat-type'."
                : $"{options.Dir}: its files and folders take about {bytes:#,0} bytes, and {free:#,0} are to be free: more than a volume"
                    + $"{type32} can hold. Leave the type out, or take a part of the folder.",
            options.Dir);
    }

    private static FatGeometry ChooseFloppy(VirtualFatOptions options, int rootEntries, Func<FatType, int, long> needed)
    {
        if (options.FatType == FatType.Fat32)
        {
            throw Invalid(options, "no floppy disk has FAT32; allowed: 12, and 16 on one of 2.88 MB");
        }
        if (options.Size > 0 && !Array.Exists(s_floppies, k => k.Sectors * (long)Sector == options.Size))
        {
            string sizes = string.Join(", ", s_floppies.Select(
                k => (k.Sectors * Sector).ToString(CultureInfo.InvariantCulture)).Order(StringComparer.Ordinal));
            throw Invalid(options, $"no floppy disk has the size {options.Size:#,0}; allowed: {sizes}");
        }
        FatType type = options.FatType == FatType.Fat16 ? FatType.Fat16 : FatType.Fat12;
        long most = 0;
        foreach (FloppyKind kind in s_floppies.Where(k => options.Size == 0 ? k.Sectors >= 2880 : k.Sectors * (long)Sector == options.Size))
        {
            int perCluster = type == FatType.Fat16 ? 1 : kind.PerCluster;
            FatGeometry made = Filling(
                Make(type, perCluster, Math.Max(rootEntries, kind.RootEntries), 1, isFloppy: true),
                kind.Sectors,
                Math.Max(rootEntries, kind.RootEntries),
                Range(type).Most) with
            {
                Sectors = kind.Sectors, DiskSectors = kind.Sectors, Media = kind.Media, SectorsPerTrack = kind.SectorsPerTrack, Heads = 2,
            };
            if (made.Clusters >= Range(type).Fewest && needed(type, perCluster) + Up(options.Free ?? 0, made.ClusterBytes) <= made.Clusters)
            {
                return made;
            }
            most = made.Clusters * made.ClusterBytes;
        }
        throw new DiskImageException(
            DiskImageErrorKind.OutOfRange,
            $"{options.Dir}: its files and folders take about {needed(FatType.Fat12, 1) * Sector:#,0} bytes, which is more than a floppy "
                + $"disk of that kind has ({most:#,0}). Use a hard disk (without 'floppy').",
            options.Dir);
    }

    private static IEnumerable<(FatType Type, int PerCluster, long Most)> Kinds(FatType type) => type switch
    {
        FatType.Auto => s_kinds,
        FatType.Fat32 => s_kinds.Where(k => k.Type == FatType.Fat32).Prepend((FatType.Fat32, 1, 532_480)),
        _ => s_perCluster.Select(s => (type, s, MostSectors)), // the number of clusters bounds them
    };

    private static (long Fewest, long Most) Range(FatType type) => type switch
    {
        FatType.Fat12 => (1, 4084 - Margin),
        FatType.Fat16 => (4085 + Margin, 65_524 - Margin),
        _ => (65_525 + Margin, 0x0FFF_FFF4),
    };

    /// <summary>A volume of so many clusters.</summary>
    private static FatGeometry Make(FatType type, int perCluster, int rootEntries, long clusters, bool isFloppy = false)
    {
        const int EntriesInSector = Sector / FatFolderBytes.EntryBytes;
        int atLeast = isFloppy ? rootEntries : Math.Max(rootEntries, 512);
        int root = type == FatType.Fat32 ? 0 : (int)Up(atLeast, EntriesInSector) * EntriesInSector;
        long table = Up(Up((clusters + FirstCluster) * (int)type, 8), Sector);
        long reserved = type == FatType.Fat32 ? 32 : 1, before = reserved + (Tables * table) + (root / EntriesInSector);
        long padding = isFloppy ? 0 : (Up(before, perCluster) * perCluster) - before; // clusters lie at multiples of their size
        int start = isFloppy ? 0 : PartitionAt;
        long sectors = before + padding + (clusters * perCluster);
        return new FatGeometry
        {
            Type = type,
            Start = start,
            Sectors = sectors,
            DiskSectors = start + sectors + (isFloppy ? 0 : SpareSectors),
            SectorsPerCluster = perCluster,
            Reserved = (int)(reserved + padding),
            TableSectors = (int)table,
            RootEntries = root,
            Clusters = clusters,
            Media = 0xF8,
            SectorsPerTrack = 63,
            Heads = 255,
        };
    }

    /// <summary>The same with as many clusters as there is room for.</summary>
    private static FatGeometry Filling(FatGeometry geometry, long room, int rootEntries, long most)
    {
        bool isFloppy = geometry.Start == 0;
        long low = 0, high = Math.Clamp(room / geometry.SectorsPerCluster, 0, most);
        while (low < high)
        {
            long middle = low + ((high - low + 1) / 2);
            bool fits = Make(geometry.Type, geometry.SectorsPerCluster, rootEntries, middle, isFloppy).Sectors <= room;
            (low, high) = fits ? (middle, high) : (low, middle - 1);
        }
        FatGeometry made = Make(geometry.Type, geometry.SectorsPerCluster, rootEntries, low, isFloppy);
        return isFloppy ? made : made with { DiskSectors = RoundedUp(made.Sectors) + PartitionAt + SpareSectors };
    }

    /// <summary>Sectors of a volume with which the disk is of whole mebibytes.</summary>
    private static long RoundedUp(long sectors)
        => (Up((sectors + PartitionAt + SpareSectors) * Sector, MiB) * MiB / Sector) - PartitionAt - SpareSectors;

    private static long Up(long value, long unit) => (value + unit - 1) / unit;

    private static DiskImageException Invalid(VirtualFatOptions options, Wording what)
        => new(DiskImageErrorKind.InvalidOption, $"{options.Dir}: {what}.", options.Dir);

    /// <summary>A floppy disk as there are.</summary>
    private sealed record FloppyKind(int Sectors, int SectorsPerTrack, byte Media, int PerCluster, int RootEntries);
}
