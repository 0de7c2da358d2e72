using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// How the blocks of a dynamic disk lie in its file: each with its bitmap before it, at any sector, and the footer behind the last.
/// </summary>
internal sealed class VpcBlocks(VpcDisk disk) : IBlockLayout
{
    public BlockNode File => disk.File;

    public IReadOnlyList<FileRange> Structures => disk.Layout.Structures;

    public long Limit => disk.FooterOffset;

    public long BlockBytes => disk.Layout.Span;

    public long Alignment => VpcGeometry.SectorSize;

    public long PlaceAt(long offset) => disk.Layout.PlaceAt(offset);

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
    {
        foreach ((int block, BigBlockEntry entry) in disk.Bat.Used())
        {
            each(new(VpcLayout.PlaceOf(entry).Value, disk.Layout.Span, block));
        }
        return default;
    }

    public (long Offset, long Length) GuestRange(long index) => (index * disk.Layout.BlockSize, disk.Layout.BlockSize);

    public string NameOf(long index) => $"block {index:#,0}";

    /// <summary>The bitmap has been copied with the block, so there must be no changes of it in memory.</summary>
    public ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        disk.Bitmaps.Forget(VpcLayout.PlaceOf(disk.Bat[(int)index]).Value, disk.Layout.BitmapBytes);
        disk.Bitmaps.Forget(place, disk.Layout.BitmapBytes);
        disk.Bat.Set(held, (int)index, VpcLayout.EntryOf(new(place)));
        return default;
    }

    public ValueTask DropAsync(MetadataSession.Held held, long index)
    {
        disk.Forget(held, (int)index);
        return default;
    }

    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => disk.MoveFooterAsync(Round.Up(limit, VpcGeometry.SectorSize));
}
