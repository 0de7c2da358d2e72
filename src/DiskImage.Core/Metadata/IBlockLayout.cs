using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>A block that is in the file.</summary>
/// <param name="Place">Its first byte in the file, be that inside the file or not.</param>
/// <param name="Length">Bytes that it takes there, with what belongs to it.</param>
/// <param name="Index">The table's index of its entry.</param>
internal readonly record struct StoredBlock(long Place, long Length, long Index)
{
    /// <summary>The byte behind its last.</summary>
    public long End => Place + Length;

    /// <summary>The order of places.</summary>
    public static int ByPlace(StoredBlock a, StoredBlock b) => a.Place != b.Place ? a.Place.CompareTo(b.Place) : a.Index.CompareTo(b.Index);
}

/// <summary>
/// How a format of blocks lies in its file: what <see cref="BlockMaintenance"/> has to know of it. A table and a block look the same to all
/// of them; where they may lie, and how an entry says it, is the format's.
/// </summary>
internal interface IBlockLayout
{
    /// <summary>The file.</summary>
    BlockNode File { get; }

    /// <summary>Everything but the blocks, in the order of places.</summary>
    IReadOnlyList<FileRange> Structures { get; }

    /// <summary>Where the space for blocks ends: the end of the file, or a structure that stands there.</summary>
    long Limit { get; }

    /// <summary>Bytes that a block takes in the file; a gap that is smaller is none.</summary>
    long BlockBytes { get; }

    /// <summary>The multiples at which blocks begin; what is between a block and the next of them is no gap.</summary>
    long Alignment { get; }

    /// <summary>
    /// The first offset at or after one where a block lies well: a multiple of <see cref="Alignment"/>, or more. A gap
    /// too small for that will do.
    /// </summary>
    long PlaceAt(long offset) => Round.Up(offset, Alignment);

    /// <summary>Gives every block that the table says is in the file, in the order of the table.</summary>
    ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken);

    /// <summary>What of the disk a block holds.</summary>
    (long Offset, long Length) GuestRange(long index);

    /// <summary>A block's name in messages: "block 5".</summary>
    string NameOf(long index);

    /// <summary>Makes the table say, in memory, that a block is somewhere else. Flushed by the session.</summary>
    ValueTask RelinkAsync(MetadataSession.Held held, long index, long place);

    /// <summary>Makes the table say, in memory, that a block is nowhere.</summary>
    ValueTask DropAsync(MetadataSession.Held held, long index);

    /// <summary>Cuts the file, or makes it longer, so that blocks may lie up to an offset. What is new reads as zeroes.</summary>
    ValueTask SetLimitAsync(MetadataSession.Held held, long limit);
}
