using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vdi;

/// <summary>A VDI disk: guest offset → block map → block of the file.</summary>
/// <remarks>
/// <para>The header says how many blocks the file has, and every program puts the next one there. So the blocks lie without a gap, places are
/// handed out in order, and none is given back but by compacting, which closes the gap at once.</para>
/// <para>Order of writes: the header's number, then the map. A crash between the two leaves a block that nothing refers to; the other way
/// round the next block would be put on one that is in use. Numbers fall only after the map is durable.</para>
/// </remarks>
internal sealed class VdiNode : FormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable
{
    private readonly MetadataSession _session;
    private readonly VdiHeaderStore _header;
    private readonly BlockTable<LittleBlockEntry> _map;
    private readonly VdiLayout _layout;
    private readonly BlockMaintenance _maintenance;
    private readonly SortedSet<int> _spare = []; // places that were handed out and not used after all
    private int _next; // the place behind all that were handed out
    private long _zeroFrom; // from here on the file reads as zeroes

    private VdiNode(BlockNode file, VdiHeader header)
        : base(file, backing: null)
    {
        _session = new MetadataSession(file);
        _header = new VdiHeaderStore(_session.Order, header);
        _map = new BlockTable<LittleBlockEntry>(_session.Order);
        _layout = new VdiLayout(file, _header, _map);
        _maintenance = new BlockMaintenance(_session, _layout);
        _zeroFrom = Round.Up(file.Length, VdiHeader.SectorSize);
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => _header.Current.DiskSize;

    public override bool IsReadOnly { get; }

    protected override int AllocationUnit => _header.Current.BlockSize;

    // Blocks are holes until they are written.
    protected override bool DataMayBeSparse => true;

    /// <summary>Reads the map. The file is the node's on success.</summary>
    public static async ValueTask<VdiNode> OpenAsync(BlockNode file, VdiHeader header, bool forRepair, CancellationToken cancellationToken)
    {
        var node = new VdiNode(file, header);
        await node._map.LoadAsync(header.MapOffset, header.Blocks, cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly && !forRepair)
        {
            await node.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = VdiDriver.FormatName,
        ClusterSize = _header.Current.BlockSize,
        FormatSpecific = new VdiInfo
        {
            ImageType = _header.Current.Type.ToString(),
            AllocatedBlocks = _header.Current.Allocated,
            ImageId = _header.Current.ImageId,
            LastSnapshotId = _header.Current.SnapshotId,
            Comment = _header.Current.Comment,
        },
    };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckedAsync(bytes, cancellationToken));

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => StagedRepair.RunAsync(this, File, mode, CheckedAsync, bytes, cancellationToken));

    long ITrialRepair.Grain => AllocationUnit;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => await OpenAsync(file, await VdiHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false), forRepair, cancellationToken).ConfigureAwait(false);

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            CheckReport before = await CheckAsync(cancellationToken).ConfigureAwait(false);
            if (before.Corruptions > 0 && mode == RepairMode.All)
            {
                _ = await _maintenance.RepairAsync(held, least: 0, cancellationToken).ConfigureAwait(false);
                await SettleAsync(held).ConfigureAwait(false);
            }
            if (before.Leaks > 0 && (before.Corruptions == 0 || mode == RepairMode.All))
            {
                await CompactAsync(held, cancellationToken).ConfigureAwait(false);
            }
            return await CheckAsync(cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        for (int block = 0; block < _header.Current.Blocks;)
        {
            int used = _map.NextUsed(block);
            runs.Add((long)block * AllocationUnit, Math.Min((long)used * AllocationUnit, Length));
            if (used < _header.Current.Blocks && (_map[used].Value == VdiLayout.Discarded || _layout.PlaceOf(_map[used].Value) + AllocationUnit <= File.Length))
            {
                runs.Add((long)used * AllocationUnit, Math.Min(((long)used + 1) * AllocationUnit, Length));
            }
            block = used + 1;
        }
        return new(runs.Runs);
    }

    ValueTask ITrialRepair.RequireUsableAsync() => default; // opening it for writing has done that

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            _header.Load(held, await VdiHeader.ReadAsync(File, cancellationToken).ConfigureAwait(false));
            await _map.LoadAsync(_header.Current.MapOffset, _header.Current.Blocks, cancellationToken).ConfigureAwait(false);
            await SettleAsync(held).ConfigureAwait(false);
        },
        cancellationToken);

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        long before = File.Length;
        await _session.RunAsync(
            async held =>
            {
                if (_header.Current.Type == VdiImageType.Dynamic)
                {
                    await DropZeroesAsync(held, bytes, cancellationToken).ConfigureAwait(false);
                }
                await CompactAsync(held, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    });

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = ExtentOf(offset);
        while (run.End < end && ExtentOf(run.End) is var next && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run;
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        BlockExtent extent = ExtentOf(offset);
        int size = AllocationUnit;
        long start = Round.Down(offset, size), count = Math.Min(length, start + size - offset);
        if (extent.IsData)
        {
            return WriteMapping.InPlace(offset, count, File, extent.HostOffset!.Value);
        }
        int index = _spare.Count > 0 ? _spare.Min : _next;
        if (index > VdiHeader.MaximumBlocks - 1)
        {
            throw new DiskImageException(DiskImageErrorKind.NoSpace, $"{Name}: a VDI has at most {VdiHeader.MaximumBlocks:#,0} blocks in its file", Name);
        }
        long place = _layout.PlaceOf((uint)index);
        if (File.Length < place + size)
        {
            await File.ResizeAsync(place + size, cancellationToken: cancellationToken).ConfigureAwait(false);
        }
        _ = _spare.Remove(index);
        _next = Math.Max(_next, index + 1);
        return new(offset, count, File, place + (offset - start), IsNew: true, start, start + size, HostReadsZero: place >= _zeroFrom);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        uint index = _layout.IndexOf(mapping.HostStart);
        _map.Set(held, BlockOf(mapping.Offset), new(index));
        if (index >= _header.Current.Allocated)
        {
            _header.Set(held, _header.Current with { Allocated = (int)index + 1 });
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        _ = _spare.Add((int)_layout.IndexOf(mapping.HostStart));
        _zeroFrom = Math.Max(_zeroFrom, mapping.HostStart + AllocationUnit); // something may have been written there
    }

    /// <summary>Blocks that are nowhere read as zeroes already; of the others the space goes back to the host, their place does not.</summary>
    protected override async ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        BlockExtent extent = await MapAsync(offset, length, cancellationToken).ConfigureAwait(false);
        long count = Math.Min(length, extent.Length);
        if (extent.IsData)
        {
            await File.WriteZeroesAsync(extent.HostOffset!.Value, count, mode, cancellationToken).ConfigureAwait(false);
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
        => _session.RunAsync(held => _session.FlushAsync(held, cancellationToken), cancellationToken);

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: a VDI grows without preallocation only; allowed: off", Name);
        }
        length = Round.Up(length, VdiHeader.SectorSize);
        long blocks = Round.Units(length, AllocationUnit);
        if (blocks > VdiHeader.MaximumBlocks)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: a VDI cannot have {length:#,0} bytes; allowed: up to {(long)VdiHeader.MaximumBlocks * AllocationUnit:#,0}", Name);
        }
        return AloneAsync(() => _session.RunAsync(held => ResizeAsync(held, length, (int)blocks, cancellationToken), cancellationToken));
    }

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(
                    async held =>
                    {
                        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                        if (_spare.Any(s => s < _header.Current.Allocated))
                        {
                            await CompactAsync(held, CancellationToken.None).ConfigureAwait(false);
                        }
                    },
                    CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
        }
    }

    private int BlockOf(long offset) => (int)(offset / AllocationUnit);

    private BlockExtent ExtentOf(long offset)
    {
        int size = AllocationUnit, block = BlockOf(offset);
        long within = offset & (size - 1), count = Math.Min(size - within, Length - offset);
        uint entry = _map[block].Value;
        if (entry == LittleBlockEntry.Nowhere)
        {
            long next = (long)_map.NextUsed(block) * size;
            return new(offset, Math.Min(next, Length) - offset, BlockStatus.None);
        }
        if (entry == VdiLayout.Discarded)
        {
            return new(offset, count, BlockStatus.Allocated | BlockStatus.Zero);
        }
        long place = _layout.PlaceOf(entry);
        return place + size <= File.Length
            ? new(offset, count, BlockStatus.Allocated | BlockStatus.Data, File, place + within)
            : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: block {block:#,0} (guest offset {(long)block * size:#,0}) is said to be at offset {place:#,0}, {size:#,0} bytes long,"
                    + $" but the file has {File.Length:#,0} bytes. Look at all of it with Test-DiskImage.",
                Name,
                place);
    }

    /// <summary>Refuses to write where a write could hit something else; finds where the next block goes.</summary>
    private async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        _maintenance.RequireSound(blocks);
        _next = Math.Max(_header.Current.Allocated, blocks.Length == 0 ? 0 : (int)_layout.IndexOf(blocks[^1].Place) + 1);
    }

    private ValueTask<CheckReport> CheckedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => _session.CheckAsync(CheckAsync, bytes, Length, cancellationToken);

    private async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        (StoredBlock[] blocks, long fragmented) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(_maintenance.Check(blocks, findings), File.Length);
        if (_header.Current.Allocated != blocks.Length)
        {
            findings.Corruption(
                "AllocatedCount",
                $"the header says that {_header.Current.Allocated:#,0} blocks are in the file, and the map names {blocks.Length:#,0}; the next block goes to that place",
                "close the gaps and write the right number",
                host: 0);
        }
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = _header.Current.Blocks,
            AllocatedClusters = blocks.Length,
            FragmentedClusters = fragmented,
            CompressedClusters = 0,
            ImageEndOffset = end,
        };
    }

    private async ValueTask DropZeroesAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        foreach ((int block, LittleBlockEntry entry) in _map.Used().ToArray())
        {
            cancellationToken.ThrowIfCancellationRequested();
            (long offset, long length) = _layout.GuestRange(block);
            if (entry.Value != VdiLayout.Discarded
                && await StoredBytes.IsZeroAsync(File, _layout.PlaceOf(entry.Value), length, cancellationToken).ConfigureAwait(false))
            {
                await _layout.DropAsync(held, block).ConfigureAwait(false);
            }
            bytes?.Report(offset + length);
        }
    }

    /// <summary>Closes the gaps between blocks, cuts the file, and lets the header's number fall to what there is then.</summary>
    private async ValueTask CompactAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        try
        {
            await _maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await SettleAsync(held).ConfigureAwait(false);
        }
    }

    /// <summary>Lets the header say what the map, which is durable first, says.</summary>
    private async ValueTask SettleAsync(MetadataSession.Held held)
    {
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        int count = 0, end = 0;
        foreach ((_, LittleBlockEntry entry) in _map.Used().Where(e => e.Entry.Value != VdiLayout.Discarded))
        {
            count++;
            end = Math.Max(end, (int)entry.Value + 1);
        }
        _header.Set(held, _header.Current with { Allocated = end }); // equal to the count where there is no gap left
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        (_next, _zeroFrom) = (end, Math.Max(_layout.PlaceOf((uint)end), Round.Up(File.Length, VdiHeader.SectorSize)));
        _spare.Clear();
    }

    private async ValueTask ResizeAsync(MetadataSession.Held held, long length, int blocks, CancellationToken cancellationToken)
    {
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        VdiHeader old = _header.Current;
        if (length > old.DiskSize)
        {
            await ZeroTailAsync(old.DiskSize, cancellationToken).ConfigureAwait(false);
            if (blocks > old.Blocks)
            {
                if (old.MapOffset + ((long)blocks * sizeof(uint)) > old.DataOffset)
                {
                    await MoveMapAsync(held, blocks, cancellationToken).ConfigureAwait(false);
                }
                _map.SetCount(held, blocks);
                await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            }
            _header.Set(held, _header.Current with { DiskSize = length, Blocks = Math.Max(blocks, old.Blocks) });
            await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            return;
        }
        _header.Set(held, old with { DiskSize = length });
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        for (int block = _map.NextUsed(blocks); block < _map.Count; block = _map.NextUsed(block + 1))
        {
            _map.Set(held, block, new(LittleBlockEntry.Nowhere));
        }
        await CompactAsync(held, CancellationToken.None).ConfigureAwait(false);
        _header.Set(held, _header.Current with { Blocks = blocks });
        _map.SetCount(held, blocks);
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>What the last block holds behind the disk's end, left there by a shrink or another program, must not come up in new space.</summary>
    private async ValueTask ZeroTailAsync(long end, CancellationToken cancellationToken)
    {
        long within = end & (AllocationUnit - 1);
        if (within != 0 && _map[BlockOf(end)].Value is var entry and < VdiLayout.Discarded)
        {
            await File.WriteZeroesAsync(_layout.PlaceOf(entry) + within, AllocationUnit - within, cancellationToken: cancellationToken).ConfigureAwait(false);
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Puts the map where the first blocks are, once these are moved behind the others: the header, one sector, then says both that the map
    /// is there and that block 0 begins behind it, in one step.
    /// </summary>
    private async ValueTask MoveMapAsync(MetadataSession.Held held, int blocks, CancellationToken cancellationToken)
    {
        VdiHeader old = _header.Current;
        long length = Round.Up((long)blocks * sizeof(uint), old.BlockSize), dataOffset = old.DataOffset + length;
        if (dataOffset > uint.MaxValue)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: the block map of a larger disk has no room before offset 4,294,967,296", Name);
        }
        await _maintenance.ClearAsync(held, old.DataOffset, dataOffset, cancellationToken).ConfigureAwait(false);
        byte[] map = new byte[length];
        map.AsSpan().Fill(0xFF);
        uint shift = (uint)(length / old.BlockSize);
        int allocated = 0;
        foreach ((int block, LittleBlockEntry entry) in _map.Used())
        {
            uint moved = entry.Value == VdiLayout.Discarded ? entry.Value : entry.Value - shift;
            new LittleBlockEntry(moved).Write(map.AsSpan(block * sizeof(uint)));
            allocated = Math.Max(allocated, moved == VdiLayout.Discarded ? 0 : (int)moved + 1);
        }
        await File.WriteAsync(old.DataOffset, map, CancellationToken.None).ConfigureAwait(false);
        await File.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        _header.Set(held, old with { MapOffset = old.DataOffset, DataOffset = dataOffset, Allocated = allocated });
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        _map.Replace(old.DataOffset, map[..(old.Blocks * sizeof(uint))]);
        await SettleAsync(held).ConfigureAwait(false);
    }
}
