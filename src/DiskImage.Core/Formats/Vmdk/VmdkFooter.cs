using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// The end of a stream: a marker, the header with the place of the grain directory, the marker of the end. Spec: "Footer".
/// </summary>
internal static class VmdkFooter
{
    /// <summary>Types of markers that stand for tables.</summary>
    public const uint EndOfStream = 0, GrainTable = 1, GrainDirectory = 2, Footer = 3;

    private const int SearchBytes = 64 << 10; // programs may pad what they transfer. Ours

    /// <summary>The header of a sparse extent, from its footer if it says that it is there.</summary>
    /// <param name="file">The file.</param>
    /// <param name="bytes">Its first sector.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Corrupt: there is no footer; what the header says.</exception>
    public static async ValueTask<VmdkHeader> ReadHeaderAsync(BlockNode file, byte[] bytes, CancellationToken cancellationToken)
    {
        VmdkHeader header = VmdkHeader.Parse(bytes, file.Name, 0);
        return !header.IsStream ? header : await FindAsync(file, header, cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(
            DiskImageErrorKind.Corrupt,
            $"{file.Name}: is a stream without its end: the footer with the place of the grain directory is not in the last"
                + $" {SearchBytes:#,0} bytes. It was cut off, or is being written."
                + $" If it is complete but for its end, repair it with {new Remedy(RemedyKind.Repair)}.",
            file.Name,
            Math.Max(0, file.Length - 1024));
    }

    /// <summary>The footer of a stream; null if there is none.</summary>
    public static async ValueTask<VmdkHeader?> FindAsync(BlockNode file, VmdkHeader header, CancellationToken cancellationToken)
    {
        int length = (int)Math.Min(SearchBytes, Round.Down(file.Length, VmdkHeader.SectorSize));
        byte[] tail = new byte[length];
        long start = Round.Down(file.Length, VmdkHeader.SectorSize) - length;
        await file.ReadAsync(start, tail, cancellationToken).ConfigureAwait(false);
        for (int at = length - VmdkHeader.SectorSize; at >= 0 && start + at > 0; at -= VmdkHeader.SectorSize)
        {
            ReadOnlySpan<byte> sector = tail.AsSpan(at, VmdkHeader.SectorSize);
            if (VmdkHeader.IsSigned(sector) && LittleEndian.U64(sector, 56) != VmdkHeader.AtEnd)
            {
                VmdkHeader footer = VmdkHeader.Parse(sector, file.Name, start + at);
                if (footer.Capacity == header.Capacity && footer.GrainSectors == header.GrainSectors
                    && footer.TableEntries == header.TableEntries)
                {
                    return header with { DirectorySector = footer.DirectorySector };
                }
            }
        }
        return null;
    }

    /// <summary>The end of a stream: directory, footer, mark of the end.</summary>
    /// <param name="header">The header.</param>
    /// <param name="directory">The directory, in whole sectors.</param>
    /// <param name="position">Where it comes.</param>
    /// <param name="name">The file, for errors.</param>
    /// <exception cref="DiskImageException">NoSpace: it is out of reach.</exception>
    public static byte[] EndOf(VmdkHeader header, byte[] directory, long position, string name)
        =>
        [
            .. Marker(directory.Length / VmdkHeader.SectorSize, GrainDirectory),
            .. directory,
            .. Marker(1, Footer),
            .. (header with { DirectorySector = Sector(position + VmdkHeader.SectorSize, name) }).ToBytes(),
            .. Marker(0, EndOfStream),
        ];

    /// <summary>The sector at an offset, as tables have it.</summary>
    /// <exception cref="DiskImageException">NoSpace: it is out of reach.</exception>
    public static uint Sector(long place, string name)
        => place / VmdkHeader.SectorSize is var sector && sector <= uint.MaxValue ? (uint)sector : throw new DiskImageException(
            DiskImageErrorKind.NoSpace, $"{name}: a stream of {place:#,0} bytes is out of reach for its grain tables, which reach 2"
                + " TiB", name, place);

    /// <summary>A marker before something that is no grain.</summary>
    /// <param name="sectors">Sectors that follow.</param>
    /// <param name="type">What follows.</param>
    public static byte[] Marker(long sectors, uint type)
    {
        byte[] bytes = new byte[VmdkHeader.SectorSize];
        LittleEndian.U64(bytes, 0, (ulong)sectors);
        LittleEndian.U32(bytes, 12, type);
        return bytes;
    }
}
