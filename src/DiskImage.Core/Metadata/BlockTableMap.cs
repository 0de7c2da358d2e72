using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>What a table of one level says of the disk, as extents: where a block is, or that it is zero, or nowhere.</summary>
/// <remarks>The session's lock guards the table. A block that the file ends in is there as far as the file goes.</remarks>
internal sealed class BlockTableMap<TEntry>(BlockTable<TEntry> table, TableLayout<TEntry> layout)
    where TEntry : struct, IBlockEntry<TEntry>
{
    /// <summary>The extent at an offset, joined with those that carry it on, as far as is asked.</summary>
    /// <exception cref="DiskImageException">Corrupt: an entry leads out of the file.</exception>
    public BlockExtent RunOf(long offset, long length)
    {
        long end = Math.Min(layout.DiskSize, offset + length);
        BlockExtent run = ExtentOf(offset);
        while (run.End < end && ExtentOf(run.End) is var next && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run;
    }

    /// <summary>The runs of the disk whose entries can stand.</summary>
    public IReadOnlyList<(long Start, long End)> Readable()
    {
        var runs = new RunList();
        long size = layout.BlockBytes, length = layout.DiskSize;
        for (int block = 0; block < table.Count;)
        {
            int used = table.NextUsed(block);
            runs.Add(block * size, Math.Min(used * size, length));
            if (used < table.Count)
            {
                long there = layout.IsStored(table[used]) ? Math.Clamp(layout.File.Length - layout.PlaceOf(table[used]), 0, size) : size;
                runs.Add(used * size, Math.Min((used * size) + there, length));
            }
            block = used + 1;
        }
        return runs.Runs;
    }

    private BlockExtent ExtentOf(long offset)
    {
        BlockNode file = layout.File;
        long size = layout.BlockBytes, length = layout.DiskSize;
        int block = (int)(offset / size), used = table.NextUsed(block);
        if (used > block)
        {
            return new(offset, Math.Min(used * size, length) - offset, BlockStatus.None);
        }
        long within = offset - (block * size), count = Math.Min(size - within, length - offset);
        TEntry entry = table[block];
        if (!layout.IsStored(entry))
        {
            return new(offset, count, BlockStatus.Allocated | BlockStatus.Zero);
        }
        long place = layout.PlaceOf(entry);
        return place + within < file.Length
            ? new(offset, Math.Min(count, file.Length - place - within), BlockStatus.Allocated | BlockStatus.Data, file, place + within)
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: {layout.NameOf(block)} (guest offset {block * size:#,0}) is said to be at offset {place:#,0},"
                    + $" {size:#,0} bytes long, but the file has {file.Length:#,0} bytes."
                    + $" Look at all of it with {new Remedy(RemedyKind.Check)}.",
                file.Name,
                place);
    }
}
