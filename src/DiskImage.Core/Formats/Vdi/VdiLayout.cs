using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vdi;

/// <summary>Where the blocks of a VDI lie: one behind the other from the header's data offset on.</summary>
internal sealed class VdiLayout(BlockNode file, VdiHeaderStore header, BlockTable<LittleBlockEntry> map) : IBlockLayout
{
    /// <summary>The entry of a block that reads as zeroes and is not in the file.</summary>
    public const uint Discarded = 0xFFFF_FFFE;

    public BlockNode File => file;

    public IReadOnlyList<FileRange> Structures =>
    [
        new(0, VdiHeader.Length, "the header"),
        new(header.Current.MapOffset, header.Current.MapEnd, "the block map"),
        new(header.Current.MapEnd, header.Current.DataOffset, "the space before the data"),
    ];

    public long Limit => file.Length;

    public long BlockBytes => header.Current.BlockSize;

    public long Alignment => 1; // a gap begins where a block does: blocks are counted from the data offset on

    public long PlaceOf(uint entry) => header.Current.DataOffset + ((long)entry * header.Current.BlockSize);

    public uint IndexOf(long place) => (uint)((place - header.Current.DataOffset) / header.Current.BlockSize);

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
    {
        foreach ((int block, LittleBlockEntry entry) in map.Used())
        {
            if (entry.Value != Discarded)
            {
                each(new(PlaceOf(entry.Value), header.Current.BlockSize, block));
            }
        }
        return default;
    }

    public (long Offset, long Length) GuestRange(long index)
    {
        long offset = index * header.Current.BlockSize;
        return (offset, Math.Clamp(header.Current.DiskSize - offset, 0, header.Current.BlockSize));
    }

    public string NameOf(long index) => $"block {index:#,0}";

    public ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        if (IndexOf(place) >= header.Current.Allocated)
        {
            header.Set(held, header.Current with { Allocated = (int)IndexOf(place) + 1 });
        }
        map.Set(held, (int)index, new(IndexOf(place)));
        return default;
    }

    public ValueTask DropAsync(MetadataSession.Held held, long index)
    {
        map.Set(held, (int)index, new(LittleBlockEntry.Nowhere));
        return default;
    }

    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(limit);
}

/// <summary>The header in memory, written back before the map.</summary>
internal sealed class VdiHeaderStore(WriteOrder order, VdiHeader header) : MetadataStore(order)
{
    private bool _isChanged;

    public VdiHeader Current { get; private set; } = header;

    public override bool IsDirty => _isChanged;

    /// <summary>Takes what the file has.</summary>
    public void Load(MetadataSession.Held held, VdiHeader value)
    {
        _ = held; // the proof is all that is wanted
        (Current, _isChanged) = (value, false);
    }

    public void Set(MetadataSession.Held held, VdiHeader value)
    {
        _ = held; // the proof is all that is wanted
        _isChanged |= value != Current;
        Current = value;
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        await File.WriteAsync(0, Current.ToBytes()).ConfigureAwait(false);
        _isChanged = false;
    }
}
