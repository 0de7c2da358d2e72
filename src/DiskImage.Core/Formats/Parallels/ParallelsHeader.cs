using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Parallels;

/// <summary>The header, the first 64 bytes of the file. Layout: see SPEC.md. All numbers are little-endian.</summary>
internal sealed record ParallelsHeader
{
    public const int Length = 64;

    /// <summary>Bytes of a sector.</summary>
    public const int SectorSize = 512;

    /// <summary>Sectors of a cluster at most: QEMU's limit, a cluster has less than 2 GiB.</summary>
    public const uint MaximumTracks = int.MaxValue / 513;

    /// <summary>Entries of the BAT at most: QEMU's limit, less what an array of .NET cannot hold.</summary>
    public const int MaximumEntries = 0x1FFF_FFF0;

    /// <summary>The mark of an image that a program has open for writing, or had when it ended.</summary>
    public const uint InUseMark = 0x746F_6E59;

    /// <summary>
    /// The mark of an image that was closed by a program that knows the format extension, and kept it. Without one, 0 says the same to
    /// every program; to ploop any other number is an image in use.
    /// </summary>
    public const uint KeptMark = 0x312E_3276;

    private const int MagicLength = 16, VersionAt = 16, HeadsAt = 20, CylindersAt = 24, TracksAt = 28, EntriesAt = 32, SectorsAt = 36;
    private const int InUseAt = 44, DataAt = 48, FlagsAt = 52, ExtensionAt = 56;

    private const uint Version = 2, EmptyFlag = 1;

    private const uint UsualHeads = 16, SectorsPerTrack = 32; // QEMU's geometry: nothing uses it

    /// <summary>True for "WithouFreSpacExt": the BAT counts in clusters. False for "WithoutFreeSpace": it counts in sectors.</summary>
    public bool IsExtended { get; init; } = true;

    /// <summary>Geometry for the guest.</summary>
    public uint Heads { get; init; }

    /// <summary>Geometry for the guest.</summary>
    public uint Cylinders { get; init; }

    /// <summary>Sectors of a cluster.</summary>
    public uint Tracks { get; init; }

    /// <summary>Entries of the BAT.</summary>
    public int Entries { get; init; }

    /// <summary>Sectors of the disk.</summary>
    public long Sectors { get; init; }

    /// <summary>Whether a program has it open: <see cref="InUseMark"/>, <see cref="KeptMark"/>, 0 from one that knows no
    /// extension.</summary>
    public uint InUse { get; init; }

    /// <summary>Where the data begin, in sectors, as it stands in the file; 0 where it follows from the BAT.</summary>
    public uint DataOffset { get; init; }

    public uint Flags { get; init; }

    /// <summary>Where the format extension is, in sectors; 0 for none.</summary>
    public ulong ExtensionOffset { get; init; }

    /// <summary>Bytes of a cluster: any number of sectors.</summary>
    public int ClusterSize => (int)Tracks * SectorSize;

    /// <summary>Bytes of the disk.</summary>
    public long DiskSize => Sectors * SectorSize;

    /// <summary>Bytes that one in an entry of the BAT stands for.</summary>
    public int EntryUnit => IsExtended ? ClusterSize : SectorSize;

    /// <summary>The byte behind the BAT.</summary>
    public long TableEnd => Length + ((long)Entries * sizeof(uint));

    /// <summary>Where the data can begin at the earliest.</summary>
    public long LeastDataStart => UnitsOf(TableEnd, EntryUnit) * EntryUnit;

    /// <summary>True if the field for the data's offset says what it may.</summary>
    public bool IsDataOffsetSound
        => DataOffset == 0 ? !IsExtended
            : (long)DataOffset * SectorSize is var at && at >= LeastDataStart && at % EntryUnit == 0
            && at <= Math.Max(FileLength, LeastDataStart);

    /// <summary>Bytes of the file when the header was read: data cannot begin behind them.</summary>
    public long FileLength { get; init; } = long.MaxValue;

    /// <summary>Where the data begin; where the field cannot be right, the earliest place.</summary>
    public long DataStart => DataOffset != 0 && IsDataOffsetSound ? (long)DataOffset * SectorSize : LeastDataStart;

    /// <summary>True if it was not closed.</summary>
    public bool IsInUse => InUse == InUseMark;

    /// <summary>True if it says that nothing was written to it yet.</summary>
    public bool IsEmpty => (Flags & EmptyFlag) != 0;

    private static ReadOnlySpan<byte> OldMagic => "WithoutFreeSpace"u8;

    private static ReadOnlySpan<byte> ExtendedMagic => "WithouFreSpacExt"u8;

    /// <summary>How many units cover a value.</summary>
    public static long UnitsOf(long value, long unit) => (value / unit) + (value % unit == 0 ? 0 : 1);

    /// <summary>True if a file's first bytes are such a disk's.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file) => file.StartsWith(ExtendedMagic) || file.StartsWith(OldMagic);

    /// <summary>The header of a new image, as QEMU makes it: the data begin at a whole cluster.</summary>
    /// <param name="sectors">Sectors of the disk.</param>
    /// <param name="clusterSize">Bytes of a cluster, rounded up to whole sectors.</param>
    /// <param name="name">The image, for the error.</param>
    /// <exception cref="DiskImageException">InvalidOption: the disk would have too many clusters.</exception>
    public static ParallelsHeader New(long sectors, long clusterSize, string name)
    {
        long tracks = UnitsOf(clusterSize, SectorSize), entries = UnitsOf(sectors, tracks);
        var header = new ParallelsHeader
        {
            Heads = UsualHeads,
            Cylinders = (uint)Math.Min(uint.MaxValue, sectors / (UsualHeads * SectorsPerTrack)),
            Tracks = (uint)tracks,
            Entries = (int)Math.Min(entries, int.MaxValue),
            Sectors = sectors,
        };
        return entries <= MaximumEntries
            ? header with { DataOffset = header.SoundDataOffset }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a Parallels disk with clusters of {header.ClusterSize:#,0} bytes cannot have more than "
                    + $"{(long)MaximumEntries * header.ClusterSize:#,0} bytes. Choose a larger cluster_size.",
                name);
    }

    /// <summary>Writes a new image without contents into an empty file.</summary>
    public async ValueTask WriteNewAsync(BlockNode file, CancellationToken cancellationToken)
    {
        await file.ResizeAsync(DataStart, cancellationToken: cancellationToken).ConfigureAwait(false); // the BAT is all zero
        await file.WriteAsync(0, ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Reads the header and checks every field by itself and against the others and the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<ParallelsHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: not a Parallels image: the signature at offset 0 is missing",
                file.Name,
                0);
        }
        uint version = LittleEndian.U32(bytes, VersionAt), tracks = LittleEndian.U32(bytes, TracksAt);
        uint entries = LittleEndian.U32(bytes, EntriesAt);
        if (version != Version)
        {
            throw Wrong(DiskImageErrorKind.Unsupported, VersionAt, $"the version {version}; supported: {Version}");
        }
        bool isExtended = bytes.AsSpan().StartsWith(ExtendedMagic);
        ulong sectors = LittleEndian.U64(bytes, SectorsAt);
        if (!isExtended)
        {
            sectors = (uint)sectors; // spec: only the lowest 4 bytes are used
        }
        if (tracks is 0 or > MaximumTracks)
        {
            throw Wrong(DiskImageErrorKind.Corrupt, TracksAt, $"clusters of {tracks:#,0} sectors; allowed: 1 to {MaximumTracks:#,0}");
        }
        if (entries > MaximumEntries || sectors > (ulong)entries * tracks)
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt,
                EntriesAt,
                $"a BAT of {entries:#,0} clusters of {tracks:#,0} sectors for a disk of {sectors:#,0} sectors;"
                    + $" allowed: as many as hold it, at most {MaximumEntries:#,0}");
        }
        var header = new ParallelsHeader
        {
            IsExtended = isExtended,
            Heads = LittleEndian.U32(bytes, HeadsAt),
            Cylinders = LittleEndian.U32(bytes, CylindersAt),
            Tracks = tracks,
            Entries = (int)entries,
            Sectors = (long)sectors,
            InUse = LittleEndian.U32(bytes, InUseAt),
            DataOffset = LittleEndian.U32(bytes, DataAt),
            Flags = LittleEndian.U32(bytes, FlagsAt),
            ExtensionOffset = LittleEndian.U64(bytes, ExtensionAt),
            FileLength = file.Length,
        };
        return header.TableEnd <= file.Length
            ? header
            : throw Wrong(
                DiskImageErrorKind.Corrupt,
                EntriesAt,
                $"a BAT that ends at {header.TableEnd:#,0}, past the end of the file's {file.Length:#,0} bytes");

        DiskImageException Wrong(DiskImageErrorKind kind, long offset, string what)
            => new(kind, $"{file.Name}: the header at offset {offset:#,0} says {what}", file.Name, offset);
    }

    /// <summary>The header of a program that has begun to write: in use, not empty, without an extension, with a place for the data that
    /// can be.</summary>
    public ParallelsHeader Opened()
        => this with { InUse = InUseMark, Flags = Flags & ~EmptyFlag, ExtensionOffset = 0, DataOffset = SoundDataOffset };

    /// <summary>What the field for the data's offset is to say.</summary>
    public uint SoundDataOffset => IsDataOffsetSound ? DataOffset : (uint)(LeastDataStart / SectorSize);

    /// <summary>The header as it stands in the file: in one sector, so that writing it is one step.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Length];
        (IsExtended ? ExtendedMagic : OldMagic).CopyTo(bytes.AsSpan(0, MagicLength));
        LittleEndian.U32(bytes, VersionAt, Version);
        LittleEndian.U32(bytes, HeadsAt, Heads);
        LittleEndian.U32(bytes, CylindersAt, Cylinders);
        LittleEndian.U32(bytes, TracksAt, Tracks);
        LittleEndian.U32(bytes, EntriesAt, (uint)Entries);
        LittleEndian.U64(bytes, SectorsAt, (ulong)Sectors);
        LittleEndian.U32(bytes, InUseAt, InUse);
        LittleEndian.U32(bytes, DataAt, DataOffset);
        LittleEndian.U32(bytes, FlagsAt, Flags);
        LittleEndian.U64(bytes, ExtensionAt, ExtensionOffset);
        return bytes;
    }
}
