using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Entries of the block allocation table behind the last block of the disk that cannot be blocks: they lead outside the file, onto a
/// structure, or into another block. Those that have a place of their own are kept as blocks are, since another size
/// of the disk may mean them.
/// </summary>
/// <param name="Count">How many there are.</param>
/// <param name="Listed">The first of them, at most <see cref="CheckReport.MaxFindings"/>.</param>
internal sealed record VpcStaleEntries(long Count, IReadOnlyList<VpcStaleEntry> Listed)
{
    public static readonly VpcStaleEntries None = new(0, []);

    /// <summary>Finds them and takes them for unused in memory.</summary>
    /// <param name="bat">The table.</param>
    /// <param name="diskBlocks">Blocks of the disk.</param>
    /// <param name="layout">The structures.</param>
    /// <param name="limit">Where the blocks end.</param>
    public static VpcStaleEntries SetAside(BlockTable<BigBlockEntry> bat, int diskBlocks, VpcLayout layout, long limit)
    {
        if (bat.NextUsed(Math.Min(diskBlocks, bat.Count)) == bat.Count)
        {
            return None;
        }
        var live = new List<long>();
        var behind = new List<(long Place, int Block)>();
        foreach ((int block, BigBlockEntry entry) in bat.Used())
        {
            long place = VpcLayout.PlaceOf(entry).Value;
            if (block < diskBlocks)
            {
                live.Add(place);
            }
            else
            {
                behind.Add((place, block));
            }
        }
        live.Sort();
        behind.Sort();
        var listed = new List<VpcStaleEntry>();
        long count = 0, end = 0;
        foreach ((long place, int block) in behind)
        {
            string? what = place < VpcFooter.Length || layout.Span > limit - place ? "outside the file's blocks"
                : layout.Overlap(place, place + layout.Span) is { } structure ? $"where {structure} is"
                : place < end || IsLive(place) ? "where another block is"
                : null;
            if (what is null)
            {
                end = place + layout.Span;
                continue;
            }
            bat.SetAside(block);
            if (count++ < CheckReport.MaxFindings)
            {
                listed.Add(new VpcStaleEntry(block, place, what));
            }
        }
        return count == 0 ? None : new(count, listed);

        bool IsLive(long place) // a block of the disk begins less than a block before or after it
        {
            int next = live.BinarySearch(place - layout.Span + 1);
            next = next < 0 ? ~next : next;
            return next < live.Count && live[next] < place + layout.Span;
        }
    }
}

/// <summary>One of <see cref="VpcStaleEntries"/>.</summary>
/// <param name="Block">Its index.</param>
/// <param name="Place">Where it leads.</param>
/// <param name="What">What is there.</param>
internal readonly record struct VpcStaleEntry(int Block, long Place, string What);
