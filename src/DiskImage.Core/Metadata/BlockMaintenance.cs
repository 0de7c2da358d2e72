using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Looking after a file of blocks: what is wrong with the places, putting it right, closing gaps, making room. Written once for the formats
/// that say how their blocks lie (<see cref="IBlockLayout"/>).
/// </summary>
/// <remarks>
/// <para>A block is moved in three steps: its bytes are copied and flushed, the table is pointed to the copy and flushed, and only then is
/// the old place anybody else's. So a crash leaves each block whole in one of its two places, and space leaked at most.</para>
/// <para>Memory: 24 bytes a stored block.</para>
/// </remarks>
internal sealed class BlockMaintenance(MetadataSession session, IBlockLayout layout)
{
    private const long MoveBytes = 64 << 20; // moved between two flushes. Ours

    /// <summary>The blocks in the order of their places, and how many of them do not follow their predecessor.</summary>
    public async ValueTask<(StoredBlock[] Blocks, long Fragmented)> StoredAsync(CancellationToken cancellationToken)
    {
        var blocks = new List<StoredBlock>();
        long fragmented = 0, next = -1;
        await layout.EachStoredAsync(
            block =>
            {
                fragmented += next >= 0 && (block.Place < next || block.Place > layout.PlaceAt(next)) ? 1 : 0;
                next = block.End;
                blocks.Add(block);
            },
            cancellationToken).ConfigureAwait(false);
        blocks.Sort(StoredBlock.ByPlace);
        return ([.. blocks], fragmented);
    }

    /// <summary>
    /// Finds blocks that lie outside the file or on something else, and space that nothing uses. Returns where what is used ends.
    /// </summary>
    /// <param name="blocks">The blocks in the order of their places.</param>
    /// <param name="findings">Where it is said.</param>
    /// <param name="isLimitKnown">False if nothing shows where the blocks end, so that what is behind them is not called unused.</param>
    public long Check(StoredBlock[] blocks, CheckFindings findings, bool isLimitKnown = true)
    {
        long limit = layout.Limit;
        for (int i = 0; i < blocks.Length; i++)
        {
            StoredBlock block = blocks[i];
            (long guest, long guestLength) = layout.GuestRange(block.Index);
            string name = layout.NameOf(block.Index);
            if (IsOutside(block, limit))
            {
                findings.Corruption(
                    "OutOfFile",
                    $"{name} is said to be at offset {block.Place:#,0}, past the end of the blocks at {limit:#,0}",
                    "forget the block: its data is not there",
                    guest,
                    guestLength,
                    block.Place);
                continue;
            }
            if (block.End > limit)
            {
                findings.Corruption(
                    "Truncated",
                    $"{name} at offset {block.Place:#,0} is cut off: {limit - block.Place:#,0} of its {block.Length:#,0} bytes are there",
                    "make the file longer; what is missing becomes zeroes",
                    guest,
                    guestLength,
                    block.Place);
            }
            foreach (string what in Obstacles(blocks, i))
            {
                findings.Corruption(
                    "Overlap",
                    $"{name} at offset {block.Place:#,0} overlaps {what}",
                    "give the block a place of its own, with what it reads as now",
                    guest,
                    guestLength,
                    block.Place);
            }
        }
        foreach (FileRange gap in Gaps(blocks))
        {
            long start = Round.Up(gap.Start, layout.Alignment);
            if (gap.End - start >= layout.BlockBytes && (isLimitKnown || gap.End < limit))
            {
                findings.Leak(
                    $"{gap.End - start:#,0} bytes at offset {start:#,0} are not used",
                    "move blocks into the gap and cut the file",
                    start,
                    (gap.End - start) / layout.BlockBytes);
            }
        }
        return Used(blocks.Where(b => !IsOutside(b, limit))).Select(u => u.End).DefaultIfEmpty(0).Max();
    }

    /// <summary>Refuses to go on where a write could hit something else.</summary>
    /// <exception cref="DiskImageException">Corrupt: a block lies outside the file, or on something else.</exception>
    public void RequireSound(StoredBlock[] blocks)
    {
        var findings = new CheckFindings();
        _ = Check(blocks, findings);
        if (findings.Corruptions > 0)
        {
            CheckFinding first = findings.List.First(f => f.Severity == CheckSeverity.Corruption);
            string file = layout.File.Name;
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file}: {first.Message}, so nothing can be written safely. Repair it with {new Remedy(RemedyKind.Repair)}.",
                file,
                first.HostOffset);
        }
    }

    /// <summary>What nothing uses, up to the end of the space for blocks, in the order of places.</summary>
    public IEnumerable<FileRange> Gaps(StoredBlock[] blocks)
    {
        long at = 0, limit = layout.Limit;
        foreach (FileRange used in Used(blocks))
        {
            if (Math.Min(used.Start, limit) > at)
            {
                yield return new(at, Math.Min(used.Start, limit));
            }
            at = Math.Max(at, used.End);
        }
        if (at < limit)
        {
            yield return new(at, limit);
        }
    }

    /// <summary>
    /// Forgets blocks that are not in the file, makes the file longer for one that was cut, and copies those that lie on something else to
    /// places of their own behind everything, so that each reads as before and none is written through another.
    /// </summary>
    /// <param name="held">The lock.</param>
    /// <param name="least">Where the copies may begin: what lies before is left as it is, be it used or not.</param>
    /// <param name="cancellationToken">Stops the looking.</param>
    /// <returns>True if an entry was wrong, so that what it meant may be in the file without anything that leads there.</returns>
    public async ValueTask<bool> RepairAsync(MetadataSession.Held held, long least, CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await StoredAsync(cancellationToken).ConfigureAwait(false);
        long limit = layout.Limit, end = Math.Max(least, layout.Structures.Count == 0 ? 0 : layout.Structures.Max(s => s.End));
        bool isForgotten = false;
        var homeless = new List<StoredBlock>();
        for (int i = 0; i < blocks.Length; i++)
        {
            StoredBlock block = blocks[i];
            if (IsOutside(block, limit))
            {
                await layout.DropAsync(held, block.Index).ConfigureAwait(false);
                isForgotten = true;
                continue;
            }
            if (Obstacles(blocks, i).Any())
            {
                homeless.Add(block);
            }
            end = Math.Max(end, block.End);
        }
        StagedRepair.RequireFewCopies(layout.File, homeless.Count, Round.Up(layout.BlockBytes, layout.Alignment));
        end = Round.Up(end, layout.Alignment);
        var places = new List<long>(homeless.Count);
        foreach (StoredBlock block in homeless)
        {
            places.Add(layout.PlaceAt(end));
            end = places[^1] + block.Length;
        }
        if (end > limit)
        {
            await layout.SetLimitAsync(held, end).ConfigureAwait(false);
        }
        for (int i = 0; i < homeless.Count; i++)
        {
            await StoredBytes.CopyAsync(
                layout.File, homeless[i].Place, places[i], homeless[i].Length, CancellationToken.None).ConfigureAwait(false);
            await layout.RelinkAsync(held, homeless[i].Index, places[i]).ConfigureAwait(false);
        }
        session.Order.DataWritten();
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        return isForgotten || homeless.Count > 0;
    }

    /// <summary>
    /// Moves the last blocks into the gaps before them and cuts the file. Cancelled between two blocks, it leaves a whole disk.
    /// </summary>
    public async ValueTask CompactAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, _) = await StoredAsync(cancellationToken).ConfigureAwait(false);
        var places = new List<FileRange>(Used(blocks));
        int last = blocks.Length - 1;
        long at = 0, moved = 0;
        foreach (FileRange used in places)
        {
            for (long place = PlaceIn(at, used.Start);
                last >= 0 && blocks[last].Place > place && used.Start - place >= blocks[last].Length;
                place = PlaceIn(at, used.Start))
            {
                cancellationToken.ThrowIfCancellationRequested();
                StoredBlock block = blocks[last];
                await StoredBytes.CopyAsync(layout.File, block.Place, place, block.Length, CancellationToken.None).ConfigureAwait(false);
                session.Order.DataWritten();
                await layout.RelinkAsync(held, block.Index, place).ConfigureAwait(false);
                blocks[last--] = block with { Place = place };
                at = place + block.Length;
                moved += block.Length;
                if (moved >= MoveBytes)
                {
                    await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                    moved = 0;
                }
            }
            if (last < 0 || blocks[last].Place < used.Start)
            {
                break; // all that lies behind has been moved
            }
            at = Math.Max(at, used.End);
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        long end = Math.Max(
            layout.Structures.Where(s => s.End <= layout.Limit).Select(s => s.End).DefaultIfEmpty(0).Max(),
            blocks.Select(b => b.End).DefaultIfEmpty(0).Max());
        if (end < layout.Limit)
        {
            await layout.SetLimitAsync(held, end).ConfigureAwait(false);
        }

        long PlaceIn(long start, long stop) // the good one, if a block fits there
            => layout.PlaceAt(start) is var good && good + layout.BlockBytes <= stop ? good : Round.Up(start, layout.Alignment);
    }

    /// <summary>Moves the blocks that touch a range behind everything else, so that a structure can have it.</summary>
    public async ValueTask ClearAsync(MetadataSession.Held held, long start, long end, CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await StoredAsync(cancellationToken).ConfigureAwait(false);
        StoredBlock[] inTheWay = [.. blocks.Where(b => b.Place < end && b.End > start)];
        if (inTheWay.Length == 0)
        {
            return;
        }
        long place = layout.PlaceAt(Math.Max(end, Used(blocks).Max(u => u.End)));
        long reach = place;
        foreach (StoredBlock block in inTheWay)
        {
            reach = layout.PlaceAt(reach) + block.Length;
        }
        await layout.SetLimitAsync(held, reach).ConfigureAwait(false);
        foreach (StoredBlock block in inTheWay)
        {
            cancellationToken.ThrowIfCancellationRequested();
            await StoredBytes.CopyAsync(layout.File, block.Place, place, block.Length, CancellationToken.None).ConfigureAwait(false);
            session.Order.DataWritten();
            await layout.RelinkAsync(held, block.Index, place).ConfigureAwait(false);
            place = layout.PlaceAt(place + block.Length);
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Everything that is used, in the order of places.</summary>
    private IEnumerable<FileRange> Used(IEnumerable<StoredBlock> blocks)
        => blocks.Where(b => b.Place >= 0).Select(b => new FileRange(b.Place, b.End)).Concat(layout.Structures).OrderBy(r => r.Start);

    private static bool IsOutside(StoredBlock block, long limit) => block.Place >= limit || block.Place < 0;

    /// <summary>What a block lies on that comes before it: a structure, a block that lies lower.</summary>
    private IEnumerable<string> Obstacles(StoredBlock[] blocks, int i)
    {
        StoredBlock block = blocks[i];
        foreach (FileRange structure in layout.Structures)
        {
            if (structure.Meets(block.Place, block.End))
            {
                yield return structure.What ?? "a structure";
                break;
            }
        }
        if (i > 0 && blocks[i - 1].End > block.Place)
        {
            yield return $"{layout.NameOf(blocks[i - 1].Index)} at offset {blocks[i - 1].Place:#,0}";
        }
    }
}
