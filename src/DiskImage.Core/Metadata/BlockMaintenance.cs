using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Looking after a file of blocks: what is wrong with the places, putting it right, closing gaps, making room. Written once for the formats
/// that say how their blocks lie (<see cref="IBlockLayout"/>).
/// </summary>
/// <remarks>
/// <para>A block is moved in three steps: its bytes are copied and flushed, the table is pointed to the copy and flushed, and only then is the
/// old place anybody else's. So a crash leaves each block whole in one of its two places, and space leaked at most.</para>
/// <para>Memory: 24 bytes a stored block.</para>
/// </remarks>
internal sealed class BlockMaintenance(MetadataSession session, IBlockLayout layout)
{
    private const long MoveBytes = 64 << 20; // moved between two flushes. Ours
    private const int CopyBytes = 1 << 20;

    /// <summary>The blocks in the order of their places, and how many of them do not follow their predecessor.</summary>
    public async ValueTask<(StoredBlock[] Blocks, long Fragmented)> StoredAsync(CancellationToken cancellationToken)
    {
        var blocks = new List<StoredBlock>();
        long fragmented = 0, next = -1;
        await layout.EachStoredAsync(
            block =>
            {
                fragmented += next >= 0 && Math.Abs(block.Place - next) >= layout.Alignment ? 1 : 0;
                next = block.End;
                blocks.Add(block);
            },
            cancellationToken).ConfigureAwait(false);
        blocks.Sort(StoredBlock.ByPlace);
        return ([.. blocks], fragmented);
    }

    /// <summary>Finds blocks that lie outside the file or on something else, and space that nothing uses. Returns where what is used ends.</summary>
    /// <param name="blocks">The blocks in the order of their places.</param>
    /// <param name="findings">Where it is said.</param>
    public long Check(StoredBlock[] blocks, CheckFindings findings)
    {
        long limit = layout.Limit;
        for (int i = 0; i < blocks.Length; i++)
        {
            StoredBlock block = blocks[i];
            (long guest, long guestLength) = layout.GuestRange(block.Index);
            string name = layout.NameOf(block.Index);
            if (block.Place >= limit || block.Place < 0)
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
            if (Obstacle(blocks, i) is { } what)
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
        long at = 0;
        foreach (FileRange used in Used(blocks))
        {
            Unused(at, Math.Min(used.Start, limit));
            at = Math.Max(at, used.End);
        }
        Unused(at, limit);
        return Math.Min(at, limit);

        void Unused(long start, long end)
        {
            start = Round.Up(start, layout.Alignment);
            if (end - start >= layout.BlockBytes)
            {
                findings.Leak(
                    $"{end - start:#,0} bytes at offset {start:#,0} are not used", "move blocks into the gap and cut the file", start, (end - start) / layout.BlockBytes);
            }
        }
    }

    /// <summary>
    /// Forgets blocks that are not in the file, makes the file longer for one that was cut, and copies those that lie on something else to
    /// places of their own behind everything, so that each reads as before and none is written through another.
    /// </summary>
    public async ValueTask RepairAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await StoredAsync(cancellationToken).ConfigureAwait(false);
        long limit = layout.Limit, end = layout.Structures.Count == 0 ? 0 : layout.Structures.Max(s => s.End);
        var homeless = new List<StoredBlock>();
        foreach ((StoredBlock block, int i) in blocks.Select((b, i) => (b, i)).ToArray())
        {
            if (block.Place >= limit || block.Place < 0)
            {
                await layout.DropAsync(held, block.Index).ConfigureAwait(false);
                continue;
            }
            if (Obstacle(blocks, i) is not null)
            {
                homeless.Add(block);
            }
            end = Math.Max(end, block.End);
        }
        end = Round.Up(end, layout.Alignment);
        StagedRepair.RequireFewCopies(layout.File, homeless.Count, Round.Up(layout.BlockBytes, layout.Alignment));
        long reach = end + (homeless.Count * Round.Up(layout.BlockBytes, layout.Alignment));
        if (reach > limit)
        {
            await layout.SetLimitAsync(held, reach).ConfigureAwait(false);
        }
        foreach (StoredBlock block in homeless)
        {
            await CopyAsync(block.Place, end, block.Length, CancellationToken.None).ConfigureAwait(false);
            await layout.RelinkAsync(held, block.Index, end).ConfigureAwait(false);
            end = Round.Up(end + block.Length, layout.Alignment);
        }
        session.Order.DataWritten();
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Moves the last blocks into the gaps before them and cuts the file. Cancelled between two blocks, it leaves a whole disk.</summary>
    public async ValueTask CompactAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, _) = await StoredAsync(cancellationToken).ConfigureAwait(false);
        var places = new List<FileRange>(Used(blocks));
        int last = blocks.Length - 1;
        long at = 0, moved = 0;
        foreach (FileRange used in places)
        {
            for (long place = Round.Up(at, layout.Alignment);
                last >= 0 && blocks[last].Place > place && used.Start - place >= blocks[last].Length;
                place = Round.Up(at, layout.Alignment))
            {
                cancellationToken.ThrowIfCancellationRequested();
                StoredBlock block = blocks[last];
                await CopyAsync(block.Place, place, block.Length, CancellationToken.None).ConfigureAwait(false);
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
        long place = Round.Up(Math.Max(end, Used(blocks).Max(u => u.End)), layout.Alignment);
        await layout.SetLimitAsync(held, place + (inTheWay.Length * Round.Up(layout.BlockBytes, layout.Alignment))).ConfigureAwait(false);
        foreach (StoredBlock block in inTheWay)
        {
            cancellationToken.ThrowIfCancellationRequested();
            await CopyAsync(block.Place, place, block.Length, CancellationToken.None).ConfigureAwait(false);
            session.Order.DataWritten();
            await layout.RelinkAsync(held, block.Index, place).ConfigureAwait(false);
            place = Round.Up(place + block.Length, layout.Alignment);
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>True if a range of the file holds nothing but zeroes; holes are not read.</summary>
    public async ValueTask<bool> IsZeroAsync(long offset, long length, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(CopyBytes);
        try
        {
            for (long end = Math.Min(offset + length, layout.File.Length); offset < end;)
            {
                BlockExtent extent = await layout.File.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
                long count = extent.Length;
                if (!extent.IsZero)
                {
                    count = Math.Min(count, CopyBytes);
                    await layout.File.ReadAsync(offset, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                    if (!ZeroDetection.IsZero(buffer.AsSpan(0, (int)count)))
                    {
                        return false;
                    }
                }
                offset += count;
            }
            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Copies a range of the file; holes stay holes, and what lies past the end is zeroes.</summary>
    public async ValueTask CopyAsync(long from, long to, long length, CancellationToken cancellationToken)
    {
        BlockNode file = layout.File;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(CopyBytes);
        try
        {
            for (long done = 0; done < length;)
            {
                long at = from + done, count = length - done;
                bool isZero = at >= file.Length;
                if (!isZero)
                {
                    BlockExtent extent = await file.GetExtentAsync(at, Math.Min(count, file.Length - at), cancellationToken).ConfigureAwait(false);
                    (count, isZero) = (extent.Length, extent.IsZero);
                }
                if (isZero)
                {
                    await file.WriteZeroesAsync(to + done, count, cancellationToken: cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    count = Math.Min(count, CopyBytes);
                    await file.ReadAsync(at, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                    await file.WriteAsync(to + done, buffer.AsMemory(0, (int)count), cancellationToken).ConfigureAwait(false);
                }
                done += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Everything that is used, in the order of places.</summary>
    private IEnumerable<FileRange> Used(StoredBlock[] blocks)
        => blocks.Where(b => b.Place >= 0).Select(b => new FileRange(b.Place, b.End)).Concat(layout.Structures).OrderBy(r => r.Start);

    /// <summary>What a block lies on that comes before it: a structure, or a block that lies lower; null if nothing.</summary>
    private string? Obstacle(StoredBlock[] blocks, int i)
    {
        StoredBlock block = blocks[i];
        FileRange structure = layout.Structures.FirstOrDefault(s => s.Meets(block.Place, block.End));
        return structure.Length > 0 ? structure.What
            : i > 0 && blocks[i - 1].End > block.Place ? $"{layout.NameOf(blocks[i - 1].Index)} at offset {blocks[i - 1].Place:#,0}"
            : null;
    }
}
