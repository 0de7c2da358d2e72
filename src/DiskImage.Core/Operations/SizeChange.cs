using DiskImage.Block;

namespace DiskImage.Operations;

/// <summary>A new size: in bytes, or as what it is to grow or shrink by.</summary>
/// <param name="Bytes">Bytes; negative to shrink by so many.</param>
/// <param name="IsRelative">The bytes are added to the present size.</param>
public sealed record SizeChange(long Bytes, bool IsRelative)
{
    private const int Sector = 512; // disks are whole sectors

    /// <summary>The size that a disk of <paramref name="present"/> bytes gets, rounded up to whole sectors.</summary>
    /// <exception cref="DiskImageException">OutOfRange: below zero, or more than a disk can have.</exception>
    public long From(long present, string path)
    {
        Int128 size = (IsRelative ? (Int128)present : 0) + Bytes;
        Int128 rounded = (size + Sector - 1) / Sector * Sector;
        return size >= 0 && rounded <= long.MaxValue
            ? (long)rounded
            : throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{path}: a disk of {present:#,0} bytes cannot change by {Bytes:#,0} bytes", path);
    }

    /// <inheritdoc/>
    public override string ToString() => (IsRelative && Bytes >= 0 ? "+" : "") + Bytes.ToString("0", null);
}
