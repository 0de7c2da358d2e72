using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A run of the virtual disk that is stored in one way. Offsets and lengths are bytes.</summary>
/// <param name="Start">The first byte, in the virtual disk.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Depth">The layer that decides: 0 the image itself, 1 its backing image, and so on.</param>
/// <param name="Present">Some layer decides the run's contents.</param>
/// <param name="Zero">The run reads as zeroes.</param>
/// <param name="Data">The run's bytes are stored.</param>
/// <param name="Compressed">They are stored compressed.</param>
/// <param name="Offset">Where <paramref name="File"/> keeps the first byte; null if it has no such place.</param>
/// <param name="File">The file that holds the bytes; null if none does.</param>
public sealed record DiskImageExtent(
    long Start, long Length, int Depth, bool Present, bool Zero, bool Data, bool Compressed, long? Offset, string? File)
{
    internal static DiskImageExtent Of(in BlockExtent extent) => new(
        extent.Offset,
        extent.Length,
        extent.Depth,
        extent.IsAllocated,
        extent.IsZero,
        extent.IsData,
        extent.IsCompressed,
        extent.HostOffset,
        extent.HostOffset is null ? null : extent.Node?.Name);
}
