using DiskImage.Metadata;

namespace DiskImage.Formats.Qed;

/// <summary>
/// Closes the gaps of a file: the last block goes to the lowest gap that holds it, until there is none left, and the file is cut.
/// </summary>
/// <remarks>
/// <para>A cluster fits any gap. A table of several clusters may find none: then the first gap is widened, by moving what stands behind it
/// elsewhere, and the table goes there. Each such step makes the part of the file without gaps longer by a table, so it ends.</para>
/// <para>A block is copied and flushed before the entry that leads to it changes, and its old place is free only after the flush that makes
/// the change durable. So a crash leaves each block whole in one of its two places, and space leaked at most.</para>
/// </remarks>
internal sealed class QedCompactor(MetadataSession session, QedTables tables, QedLayout layout, BlockMaintenance maintenance)
{
    private const long MoveBytes = 64 << 20; // moved between two flushes. Ours

    private SpaceMap Space => (SpaceMap)session.Space!;

    private int Cluster => tables.Header.ClusterSize;

    /// <summary>Closes all gaps and cuts the file. Cancelled between two blocks, it leaves a whole disk.</summary>
    public async ValueTask RunAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        while (!await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false))
        {
            // A gap was widened, which moved blocks: look at them anew.
        }
        if (layout.Limit != Space.End)
        {
            await layout.SetLimitAsync(held, Space.End).ConfigureAwait(false);
        }
    }

    /// <summary>Gives up clusters of zeroes, and tables that lead to nothing then. There is no backing image, which would show.</summary>
    public async ValueTask DropZeroesAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, _) = await maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        foreach (StoredBlock block in blocks.Where(b => !QedLayout.IsTable(b.Index)).OrderBy(b => b.Index))
        {
            cancellationToken.ThrowIfCancellationRequested();
            (long offset, long length) = layout.GuestRange(block.Index);
            if (length == 0 || await StoredBytes.IsZeroAsync(layout.File, block.Place, length, cancellationToken).ConfigureAwait(false))
            {
                await tables.SetAsync(held, block.Index, QedTables.Nowhere).ConfigureAwait(false);
                Space.FreeAfterFlush(held, block.Place, block.Length);
            }
            bytes?.Report(offset + length);
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await DropTablesAsync(held, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask DropTablesAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        foreach ((int index, QedEntry table) in tables.L1.Used().ToArray())
        {
            if (await StoredBytes.IsZeroAsync(
                layout.File, (long)table.Value, tables.Header.TableBytes, cancellationToken).ConfigureAwait(false))
            {
                tables.DropTable(held, index);
            }
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>False if it has to be done again.</summary>
    private async ValueTask<bool> CloseGapsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long moved = 0;
        for (int i = blocks.Length - 1; i >= 0; i--)
        {
            cancellationToken.ThrowIfCancellationRequested();
            StoredBlock block = blocks[i];
            long place = Space.AllocateBelow(held, block.Length, block.Place);
            if (place < 0)
            {
                long gap = block.Length > Cluster ? Space.AllocateBelow(held, Cluster, block.Place) : -1;
                if (gap < 0)
                {
                    break; // nothing is free below
                }
                Space.Free(held, gap, Cluster);
                await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                await WidenAsync(held, [.. blocks[..(i + 1)]], gap, block.Length).ConfigureAwait(false);
                return false;
            }
            await MoveAsync(held, block, place).ConfigureAwait(false);
            moved += block.Length;
            if (moved >= MoveBytes)
            {
                await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                moved = 0;
            }
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        return true;
    }

    /// <summary>Makes a gap as long as the last block, which is put there.</summary>
    private async ValueTask WidenAsync(MetadataSession.Held held, StoredBlock[] blocks, long gap, long length)
    {
        long end = gap + length;
        StoredBlock last = blocks[^1];
        StoredBlock[] inTheWay = [.. blocks.Where(b => b.Place < end && b.End > gap)];
        _ = Space.TryMark(gap, length); // nothing else goes there meanwhile
        foreach (StoredBlock block in inTheWay)
        {
            long place = Space.Allocate(held, block.Length);
            if (layout.Limit < place + block.Length)
            {
                await layout.SetLimitAsync(held, place + block.Length).ConfigureAwait(false);
            }
            await MoveAsync(held, block, place).ConfigureAwait(false);
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false); // frees what was in the way
        Space.Free(held, gap, length);
        if (Array.Exists(inTheWay, b => b.Index == last.Index))
        {
            return; // the last block reached into its own new place: it comes back there when the gaps are looked at again
        }
        _ = Space.TryMark(gap, length);
        await MoveAsync(held, last, gap).ConfigureAwait(false);
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask MoveAsync(MetadataSession.Held held, StoredBlock block, long place)
    {
        if (QedLayout.IsTable(block.Index))
        {
            await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false); // the copy is made from the file
        }
        await StoredBytes.CopyAsync(layout.File, block.Place, place, block.Length, CancellationToken.None).ConfigureAwait(false);
        session.Order.DataWritten();
        await layout.RelinkAsync(held, block.Index, place).ConfigureAwait(false);
        Space.FreeAfterFlush(held, block.Place, block.Length);
    }
}
