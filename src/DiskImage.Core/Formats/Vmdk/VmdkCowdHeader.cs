using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// The header of an ESX server sparse extent, also of a disk of VMware 3. Spec: Virtual Disk Format 5.0, "ESXi Host Sparse Extents".
/// </summary>
internal static class VmdkCowdHeader
{
    public const uint Magic = 0x4457_4F43; // "COWD"

    private const int HeaderBytes = 2048, TableEntries = 4096;
    private const int VersionAt = 4, FlagsAt = 8, CapacityAt = 12, GrainAt = 16, DirectoryAt = 20, EntriesAt = 24, FreeAt = 28;
    private const int UncleanAt = 1648;
    private const uint Root = 1;
    private const int MaxGrainSectors = (64 << 20) / VmdkHeader.SectorSize; // ours

    /// <summary>True if a file begins with such a header.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> bytes) => bytes.Length >= sizeof(uint) && LittleEndian.U32(bytes, 0) == Magic;

    /// <summary>What it says, in the terms of a hosted sparse extent, which differs by the place of its tables only.</summary>
    /// <exception cref="DiskImageException">Unsupported, Corrupt.</exception>
    public static async ValueTask<VmdkHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[HeaderBytes];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        uint version = LittleEndian.U32(bytes, VersionAt);
        if (version != 1)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported,
                $"{file.Name}: its ESX sparse extent has version {version}; known: 1", file.Name, VersionAt);
        }
        uint grain = LittleEndian.U32(bytes, GrainAt), entries = LittleEndian.U32(bytes, EntriesAt);
        if (grain is 0 or > MaxGrainSectors || !uint.IsPow2(grain))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{file.Name}: the grain size is {grain:#,0}; allowed: a power of two of sectors, up"
                    + $" to {MaxGrainSectors:#,0}", file.Name, GrainAt);
        }
        var header = new VmdkHeader
        {
            Version = version,
            Flags = VmdkFlags.None,
            Capacity = LittleEndian.U32(bytes, CapacityAt),
            GrainSectors = grain,
            TableEntries = TableEntries,
            DirectorySector = LittleEndian.U32(bytes, DirectoryAt),
            Overhead = 0,
            Bytes = HeaderBytes,
            FreeSector = LittleEndian.U32(bytes, FreeAt),
            IsRoot = (LittleEndian.U32(bytes, FlagsAt) & Root) != 0,
            IsUnclean = LittleEndian.U32(bytes, UncleanAt) != 0,
        };
        return header.DirectoryEntries <= entries
            ? header
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: the grain directory has {entries:#,0} entries, and {header.Capacity:#,0} sectors need"
                    + $" {header.DirectoryEntries:#,0}",
                file.Name,
                EntriesAt);
    }

    /// <summary>Writes what a session changes: the free sector and the mark that it is open. All else stays as it is in the file.</summary>
    public static async ValueTask WriteAsync(BlockNode file, VmdkHeader header)
    {
        byte[] bytes = new byte[HeaderBytes];
        await file.ReadAsync(0, bytes).ConfigureAwait(false);
        LittleEndian.U32(bytes, FreeAt, (uint)header.FreeSector);
        LittleEndian.U32(bytes, UncleanAt, header.IsUnclean ? 1u : 0);
        await file.WriteAsync(0, bytes).ConfigureAwait(false);
    }
}
