using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vdi;

/// <summary>Where the blocks of a VDI lie: one behind the other from the header's data offset on.</summary>
internal sealed class VdiLayout(
    BlockNode file, VdiHeaderStore header, BlockTable<LittleBlockEntry> map) : TableLayout<LittleBlockEntry>(file, map)
{
    /// <summary>The entry of a block that reads as zeroes and is not in the file.</summary>
    public const uint Discarded = 0xFFFF_FFFE;

    public override IReadOnlyList<FileRange> Structures =>
    [
        new(0, VdiHeader.Length, "the header"),
        new(header.Current.MapOffset, header.Current.MapEnd, "the block map"),
        new(header.Current.MapEnd, header.Current.DataOffset, "the space before the data"),
    ];

    public override long BlockBytes => header.Current.BlockSize;

    public override long DiskSize => header.Current.DiskSize;

    public override long FirstPlace => header.Current.DataOffset;

    public override long LastPlace => PlaceOf(new(VdiHeader.MaximumBlocks - 1));

    public override LittleBlockEntry? ZeroEntry => new LittleBlockEntry(Discarded);

    protected override string BlockName => "block";

    public override bool IsStored(LittleBlockEntry entry) => entry.Value < Discarded;

    public override long PlaceOf(LittleBlockEntry entry) => header.Current.DataOffset + ((long)entry.Value * header.Current.BlockSize);

    public override LittleBlockEntry EntryOf(long place) => new(IndexOf(place));

    public uint IndexOf(long place) => (uint)((place - header.Current.DataOffset) / header.Current.BlockSize);

    public override ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        header.Reach(held, IndexOf(place));
        return base.RelinkAsync(held, index, place);
    }
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

    /// <summary>A block is about to be at a place: the next one goes behind it.</summary>
    public void Reach(MetadataSession.Held held, uint index)
    {
        if (index >= Current.Allocated)
        {
            Set(held, Current with { Allocated = (int)index + 1 });
        }
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        await File.WriteAsync(0, Current.ToBytes()).ConfigureAwait(false);
        _isChanged = false;
    }
}
