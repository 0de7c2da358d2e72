using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Operations;

/// <summary>A range of a disk as a disk of its own: a raw disk can be a range of what is below it, which may be a disk itself.</summary>
public static class DiskRange
{
    /// <summary>The range of blocks that is copied out of a disk.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="blockSize">Bytes of a block.</param>
    /// <param name="skip">Blocks that are left out at the beginning.</param>
    /// <param name="count">Blocks at most; null for all.</param>
    /// <exception cref="DiskImageException">OutOfRange: what is left out reaches past the end.</exception>
    public static (long Offset, long Length) Of(BlockNode disk, long blockSize, long skip, long? count)
    {
        ArgumentNullException.ThrowIfNull(disk);
        if (skip > disk.Length / blockSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: {skip:#,0} blocks of {blockSize:#,0} bytes reach past its {disk.Length:#,0} bytes",
                disk.Name);
        }
        long offset = skip * blockSize, room = disk.Length - offset;
        return (offset, count is long most && most <= room / blockSize ? most * blockSize : room);
    }

    /// <summary>Opens a range. It borrows the disk: closing it leaves that open.</summary>
    public static ValueTask<BlockNode> OpenAsync(
        DriverRegistry registry, BlockNode disk, long offset, long length, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(registry);
        FormatDriver raw = registry.Format("raw");
        return raw.OpenAsync(
            new FormatOpenContext(
                new BorrowedNode(disk, isReadOnly: true),
                raw.Bind([new("offset", offset), new("size", length)]),
                OpenBacking: null,
                (_, _, _) => throw new DiskImageException(DiskImageErrorKind.Unsupported, "A range names nothing.")),
            cancellationToken);
    }
}
