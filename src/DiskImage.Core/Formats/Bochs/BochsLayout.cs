using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Bochs;

/// <summary>Where the extents of a redolog lie, each with its bitmap: one behind the other from the end of the catalog on.</summary>
internal sealed class BochsLayout(BlockNode file, BochsHeader header, BlockTable<LittleBlockEntry> catalog, Action<long> moved)
    : IBlockLayout
{
    public BlockNode File => file;

    public IReadOnlyList<FileRange> Structures =>
    [
        new(0, header.CatalogOffset, "the header"),
        new(header.CatalogOffset, header.DataOffset, "the catalog"),
    ];

    public long Limit => file.Length;

    public long BlockBytes => header.BlockBytes;

    public long Alignment => 1; // a gap begins where an extent does: extents are counted from the catalog's end on

    public long PlaceOf(uint entry) => header.DataOffset + ((long)entry * header.BlockBytes);

    public uint IndexOf(long place) => (uint)((place - header.DataOffset) / header.BlockBytes);

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
    {
        foreach ((int block, LittleBlockEntry entry) in catalog.Used())
        {
            if (entry.Value != LittleBlockEntry.Nowhere)
            {
                each(new(PlaceOf(entry.Value), header.BlockBytes, block));
            }
        }
        return default;
    }

    public (long Offset, long Length) GuestRange(long index)
    {
        long offset = index * header.Extent;
        return (offset, Math.Clamp(header.DiskSize - offset, 0, header.Extent));
    }

    public string NameOf(long index) => $"extent {index:#,0}";

    public ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        moved(PlaceOf(catalog[(int)index].Value));
        moved(place);
        catalog.Set(held, (int)index, new(IndexOf(place)));
        return default;
    }

    public ValueTask DropAsync(MetadataSession.Held held, long index)
    {
        catalog.Set(held, (int)index, new(LittleBlockEntry.Nowhere));
        return default;
    }

    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(limit);
}
