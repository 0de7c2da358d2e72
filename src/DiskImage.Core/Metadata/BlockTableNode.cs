using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// A disk of blocks that a table of one level leads to: reading, writing, zeroes, check, repair and compaction, written once for the
/// formats whose blocks follow each other in the file. A format says what its entries mean (<see cref="TableLayout{TEntry}"/>), keeps its
/// header, and resizes.
/// </summary>
/// <remarks>
/// <para>Places are handed out in order behind the last block, and none is given back but by compaction, which closes the gap at once.
/// Zeroes and discards leave a block its place and give the space behind it to the host.</para>
/// <para>Order of writes: the data and the file's length, then what the format declared before the table, then the table. A crash leaves a
/// place that nothing leads to at most.</para>
/// </remarks>
internal abstract class BlockTableNode<TEntry> : FormatNode, IRepairable, ITrialRepair, ICompactable, IReservable
    where TEntry : struct, IBlockEntry<TEntry>
{
    private const int MostAtOnce = 4 << 20; // bytes of new blocks in one step. Ours
    private const int SectorSize = 512;

    private readonly SerialPlaces _places;
    private readonly BlockTableMap<TEntry> _map;
    private readonly bool _forRepair;
    private long _zeroFrom; // from here on the file reads as zeroes

    /// <summary>Takes over the file and the backing image.</summary>
    /// <param name="backing">What shows through; null for none.</param>
    /// <param name="session">The session, with its stores declared: the table last.</param>
    /// <param name="table">The table, not loaded yet.</param>
    /// <param name="layout">How the blocks lie.</param>
    /// <param name="forRepair">True if nothing is looked at before the first write, and none comes before a repair.</param>
    /// <param name="others">Further children.</param>
    protected BlockTableNode(
        BlockNode? backing,
        MetadataSession session,
        BlockTable<TEntry> table,
        TableLayout<TEntry> layout,
        bool forRepair,
        params (string Role, BlockNode Node)[] others)
        : base(layout.File, backing, others)
    {
        (Session, Table, Layout, _forRepair) = (session, table, layout, forRepair);
        Maintenance = new BlockMaintenance(session, layout);
        _places = new SerialPlaces(File.Name);
        _map = new BlockTableMap<TEntry>(table, layout);
        _zeroFrom = SectorEnd(File.Length);
        IsReadOnly = File.IsReadOnly;
    }

    public override long Length => Layout.DiskSize;

    public override bool IsReadOnly { get; }

    protected override int AllocationUnit => (int)Layout.BlockBytes;

    // Blocks are holes until they are written.
    protected override bool DataMayBeSparse => true;

    /// <summary>The lock and the write order.</summary>
    protected MetadataSession Session { get; }

    /// <summary>The table.</summary>
    protected BlockTable<TEntry> Table { get; }

    /// <summary>How the blocks lie.</summary>
    protected TableLayout<TEntry> Layout { get; }

    /// <summary>Looks after the places.</summary>
    protected BlockMaintenance Maintenance { get; }

    /// <summary>True if the image says that it stands on another, be that open or not: what is nowhere is that one's.</summary>
    protected virtual bool IsOverlay => Backing is not null;

    /// <summary>True if blocks keep their places, whatever they hold.</summary>
    protected virtual bool KeepsPlaces => false;

    /// <summary>The lowest place that may be handed out, whatever the table says.</summary>
    protected virtual long LeastNext => Layout.FirstPlace;

    public virtual ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckedAsync(bytes, cancellationToken), cancellationToken);

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => StagedRepair.RunAsync(this, File, mode, CheckedAsync, bytes, cancellationToken), cancellationToken);

    long ITrialRepair.Grain => AllocationUnit;

    ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => OpenTrialAsync(file, forRepair, cancellationToken);

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken) => Session.RunAsync(
        async held =>
        {
            CheckReport before = await CheckAsync(cancellationToken).ConfigureAwait(false);
            if (before.Corruptions > 0 && mode == RepairMode.All)
            {
                await MendHeaderAsync(held).ConfigureAwait(false);
                _ = await Maintenance.RepairAsync(held, least: 0, cancellationToken).ConfigureAwait(false);
                await SettleAsync(held).ConfigureAwait(false);
            }
            if (before.Leaks > 0 && (before.Corruptions == 0 || mode == RepairMode.All))
            {
                await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false);
            }
            if (mode == RepairMode.All)
            {
                await FinishAsync(held, isMended: true).ConfigureAwait(false);
            }
            return await CheckAsync(cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
        => new(_map.Readable());

    ValueTask ITrialRepair.RequireUsableAsync() => default; // opening it for writing has done that

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => Session.RunAsync(
        async held =>
        {
            await ReloadAsync(held, cancellationToken).ConfigureAwait(false);
            await SettleAsync(held).ConfigureAwait(false);
        },
        cancellationToken);

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CompactAloneAsync(bytes, cancellationToken), cancellationToken);

    private async ValueTask<long> CompactAloneAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long before = File.Length;
        await Session.RunAsync(
            async held =>
            {
                await BeginChangesAsync(held).ConfigureAwait(false);
                if (!KeepsPlaces)
                {
                    await DropZeroesAsync(held, bytes, cancellationToken).ConfigureAwait(false);
                }
                await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    }

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await Session.EnterAsync(cancellationToken).ConfigureAwait(false);
        RequireWritable();
        for (int block = BlockOf(offset); block <= BlockOf(offset + length - 1); block++)
        {
            if (!Layout.IsStored(Table[block]))
            {
                _places.Reserve(block, Layout.BlockBytes, Layout.LastPlace);
            }
        }
    }

    /// <summary>Opens this layer alone on another node that shows its file, which is lent.</summary>
    protected abstract ValueTask<BlockNode> OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken);

    /// <summary>Reads header and table from the file, which has changed below.</summary>
    protected abstract ValueTask ReloadAsync(MetadataSession.Held held, CancellationToken cancellationToken);

    /// <summary>
    /// Called before the first byte of a change reaches the file, and before each further one. Default: nothing is noted.
    /// </summary>
    protected virtual ValueTask BeginChangesAsync(MetadataSession.Held held) => default;

    /// <summary>A place is about to be in the table. Default: nothing else has to know.</summary>
    protected virtual void Linked(MetadataSession.Held held, long place)
    {
    }

    /// <summary>The blocks lie without a gap again, up to an offset; the table is durable.</summary>
    protected virtual void Settled(MetadataSession.Held held, long end)
    {
    }

    /// <summary>Says what is wrong besides the places of blocks.</summary>
    protected virtual void CheckHeader(CheckFindings findings, StoredBlock[] blocks)
    {
    }

    /// <summary>Puts right what <see cref="CheckHeader"/> found, as far as the places of blocks must wait for it.</summary>
    protected virtual ValueTask MendHeaderAsync(MetadataSession.Held held) => default;

    /// <summary>The image is closed, or its repair is done: all that came before is durable.</summary>
    protected virtual ValueTask FinishAsync(MetadataSession.Held held, bool isMended) => default;

    /// <summary>True while <see cref="BeginChangesAsync"/> has something to do before a write.</summary>
    protected virtual bool MustBegin => false;

    protected override ValueTask BeforeChangeAsync(long offset, long length, CancellationToken cancellationToken)
        => MustBegin ? Session.RunAsync(BeginChangesAsync, cancellationToken) : default;

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await Session.EnterAsync(cancellationToken).ConfigureAwait(false);
        return _map.RunOf(offset, length);
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await Session.EnterAsync(cancellationToken).ConfigureAwait(false);
        RequireWritable();
        if (_map.RunOf(offset, length) is { IsData: true } run)
        {
            return WriteMapping.InPlace(offset, Math.Min(length, run.Length), File, run.HostOffset!.Value);
        }
        long size = Layout.BlockBytes;
        int first = BlockOf(offset);
        long wanted = Math.Min(BlockOf(offset + length - 1) - first + 1, Math.Max(1, MostAtOnce / size));
        if (!_places.Reserved.TryTake(first, wanted, size, out long place, out long count))
        {
            bool IsFree(int block) => !_places.HasSpare && !_places.Reserved.Has(block) && !Layout.IsStored(Table[block]);
            while (count < wanted && IsFree(first + (int)count))
            {
                count++;
            }
            place = _places.Take(count, size, Layout.LastPlace);
        }
        if (File.Length < place + (count * size))
        {
            try
            {
                await File.ResizeAsync(place + (count * size), cancellationToken: cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                _places.GiveUp(place, count, size);
                throw;
            }
        }
        long start = first * size;
        return new(
            offset,
            Math.Min(length, start + (count * size) - offset),
            File,
            place + (offset - start),
            IsNew: true,
            start,
            start + (count * size),
            HostReadsZero: place >= _zeroFrom);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await Session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        Session.Order.DataWritten(); // the file has its length, and what was copied, before an entry leads there
        for (long at = mapping.CopyStart; at < mapping.CopyEnd; at += Layout.BlockBytes)
        {
            long place = mapping.HostStart + (at - mapping.CopyStart);
            Linked(held, place);
            Table.Set(held, BlockOf(at), Layout.EntryOf(place));
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await Session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        long count = (mapping.CopyEnd - mapping.CopyStart) / Layout.BlockBytes;
        _places.GiveUp(mapping.HostStart, count, Layout.BlockBytes);
        _zeroFrom = Math.Max(_zeroFrom, mapping.HostStart + (count * Layout.BlockBytes)); // something may have been written there
    }

    /// <summary>
    /// Of blocks that are in the file the space goes back to the host, their place does not. What is nowhere is zero, or becomes it.
    /// </summary>
    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        BlockExtent extent = await MapAsync(offset, length, cancellationToken).ConfigureAwait(false);
        long count = Math.Min(length, extent.Length);
        if (extent.IsData)
        {
            await File.WriteZeroesAsync(extent.HostOffset!.Value, count, mode, cancellationToken).ConfigureAwait(false);
        }
        else if (extent.Status == BlockStatus.None && (IsOverlay || (mode == ZeroWriteMode.KeepAllocated && Layout.ZeroEntry is not null)))
        {
            if (Layout.ZeroEntry is not { } zero)
            {
                return 0;
            }
            using MetadataSession.Held held = await Session.EnterAsync(cancellationToken).ConfigureAwait(false);
            for (int block = BlockOf(offset); block <= BlockOf(offset + count - 1); block++)
            {
                Table.Set(held, block, zero);
            }
        }
        return count;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            BlockExtent extent = await MapAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            long count = Math.Min(end - offset, extent.Length);
            if (extent.IsData)
            {
                await File.DiscardAsync(extent.HostOffset!.Value, count, cancellationToken).ConfigureAwait(false);
            }
            offset += count;
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => Session.RunAsync(held => Session.FlushAsync(held, cancellationToken), cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await Session.RunAsync(
                    async held =>
                    {
                        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                        if (_places.HasGaps || LeavesGaps)
                        {
                            await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
                        }
                        if (!_forRepair)
                        {
                            await FinishAsync(held, isMended: false).ConfigureAwait(false);
                        }
                    },
                    CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            Session.Dispose();
        }
    }

    /// <summary>True if the format has given up space that closing has to close.</summary>
    protected virtual bool LeavesGaps => false;

    /// <summary>The block of an offset of the disk.</summary>
    protected int BlockOf(long offset) => (int)(offset / Layout.BlockBytes);

    /// <summary>Refuses to write where a write could hit something else; finds where the next block goes.</summary>
    protected async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await Maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        Maintenance.RequireSound(blocks);
        _places.Restart(Layout.PlaceAt(Math.Max(LeastNext, blocks.Length == 0 ? 0 : blocks[^1].End)));
    }

    /// <summary>Closes the gaps between blocks, cuts the file, and lets the header say what there is then.</summary>
    protected async ValueTask CloseGapsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        try
        {
            await Maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await SettleAsync(held).ConfigureAwait(false);
        }
    }

    /// <summary>Lets the header say what the table, which is durable first, says; the next place is behind the last block again.</summary>
    protected async ValueTask SettleAsync(MetadataSession.Held held)
    {
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        long end = Layout.FirstPlace;
        foreach ((_, TEntry entry) in Table.Used().Where(e => Layout.IsStored(e.Entry)))
        {
            end = Math.Max(end, Layout.PlaceOf(entry) + Layout.BlockBytes);
        }
        Settled(held, end);
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        _places.Restart(Layout.PlaceAt(end));
        _zeroFrom = Math.Max(Layout.PlaceAt(end), SectorEnd(File.Length));
    }

    /// <summary>
    /// What the last block holds behind the disk's end, left there by a shrink or another program, must not come up in new space.
    /// </summary>
    protected async ValueTask ZeroTailAsync(CancellationToken cancellationToken)
    {
        long end = Length, within = end % Layout.BlockBytes;
        if (within != 0 && Table[BlockOf(end)] is var entry && Layout.IsStored(entry))
        {
            long place = Layout.PlaceOf(entry) + within, count = Math.Min(Layout.BlockBytes - within, File.Length - place);
            if (count > 0)
            {
                await File.WriteZeroesAsync(place, count, cancellationToken: cancellationToken).ConfigureAwait(false);
                await File.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static long SectorEnd(long offset) => (offset + SectorSize - 1) / SectorSize * SectorSize;

    private void RequireWritable()
    {
        if (_forRepair)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Name}: opened for repair, so it is not written to before it is repaired", Name);
        }
    }

    private ValueTask<CheckReport> CheckedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => Session.CheckAsync(CheckAsync, bytes, Length, cancellationToken);

    private async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        (StoredBlock[] blocks, long fragmented) = await Maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Maintenance.Check(blocks, findings), File.Length);
        CheckHeader(findings, blocks);
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = Table.Count,
            AllocatedClusters = blocks.Length,
            FragmentedClusters = fragmented,
            CompressedClusters = 0,
            ImageEndOffset = end,
        };
    }

    /// <summary>Blocks that hold nothing but zeroes lose their place, as far as an entry can say so.</summary>
    private async ValueTask DropZeroesAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        if (IsOverlay && Layout.ZeroEntry is null)
        {
            return;
        }
        foreach ((int block, TEntry entry) in Table.Used().ToArray())
        {
            cancellationToken.ThrowIfCancellationRequested();
            (long offset, long length) = Layout.GuestRange(block);
            if (Layout.IsStored(entry)
                && await StoredBytes.IsZeroAsync(File, Layout.PlaceOf(entry), length, cancellationToken).ConfigureAwait(false))
            {
                if (IsOverlay)
                {
                    Table.Set(held, block, Layout.ZeroEntry!.Value);
                }
                else
                {
                    Table.Clear(held, block);
                }
            }
            bytes?.Report(offset + length);
        }
    }
}
