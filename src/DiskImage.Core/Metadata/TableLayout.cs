using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Where the blocks of a file lie whose table has one level and is in memory. What an entry says of a place is the format's.
/// </summary>
internal abstract class TableLayout<TEntry>(BlockNode file, BlockTable<TEntry> table) : IBlockLayout
    where TEntry : struct, IBlockEntry<TEntry>
{
    public BlockNode File => file;

    public abstract IReadOnlyList<FileRange> Structures { get; }

    public virtual long Limit => file.Length;

    public abstract long BlockBytes { get; }

    public long Alignment => 1; // a gap begins where a block does: blocks are counted from the first one's place on

    /// <summary>Bytes of the disk.</summary>
    public abstract long DiskSize { get; }

    /// <summary>Where the first block may begin.</summary>
    public abstract long FirstPlace { get; }

    /// <summary>The highest place that an entry can say.</summary>
    public abstract long LastPlace { get; }

    /// <summary>
    /// The entry of a block that reads as zeroes, is nowhere in the file, and is not the backing image's; null if the format has none.
    /// </summary>
    public virtual TEntry? ZeroEntry => null;

    /// <summary>What a block is called in messages.</summary>
    protected abstract string BlockName { get; }

    /// <summary>The table.</summary>
    protected BlockTable<TEntry> Table => table;

    /// <summary>True for an entry that is a place.</summary>
    public abstract bool IsStored(TEntry entry);

    /// <summary>The place that an entry says.</summary>
    public abstract long PlaceOf(TEntry entry);

    /// <summary>The entry that says a place.</summary>
    public abstract TEntry EntryOf(long place);

    public virtual long PlaceAt(long offset) => offset;

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
    {
        foreach ((int block, TEntry entry) in table.Used())
        {
            if (IsStored(entry))
            {
                each(new(PlaceOf(entry), BlockBytes, block));
            }
        }
        return default;
    }

    public (long Offset, long Length) GuestRange(long index)
    {
        long offset = index * BlockBytes;
        return (offset, Math.Clamp(DiskSize - offset, 0, BlockBytes));
    }

    public string NameOf(long index) => $"{BlockName} {index:#,0}";

    public virtual ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
    {
        table.Set(held, (int)index, EntryOf(place));
        return default;
    }

    public ValueTask DropAsync(MetadataSession.Held held, long index)
    {
        table.Clear(held, (int)index);
        return default;
    }

    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(limit);
}
