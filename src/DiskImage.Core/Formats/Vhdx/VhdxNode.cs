using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// A VHDX disk as a node: guest offset → BAT entry → payload block, by way of the sector bitmap where a block is partially present. What it
/// is made of is <see cref="VhdxDisk"/>. Spec: MS-VHDX 2.4, 2.5.
/// </summary>
/// <remarks>
/// <para>A new block is made to read as its predecessor did before the BAT points to it: zeroes in a disk without parent, "see the
/// parent" in a differencing one (partially present, with no sector set). So allocating changes nothing that can be seen, it is done
/// at once, and requests for different parts of a block need not wait for each other. What a write then changes is the data, or the
/// bits of its sectors, and those are set after the data is written.</para>
/// <para>Order of writes: guest data; then, through the log, bitmaps before the BAT, and the BAT from its end, where the entry of a
/// bitmap block comes before those of its payload blocks. What loses its last reference is used again after that. A crash leaks
/// space at most.</para>
/// </remarks>
internal sealed class VhdxNode
    : FormatNode, IDescribed, IFragmented, IRepairable, ITrialRepair, ICompactable, IRebasable, IEmptiable, IBackingRecord
{
    private const int MaxRun = 1 << 16; // extents joined into one answer; ours
    private const long MostBatToCount = 16 << 20; // read to tell how scattered the blocks lie: 64 TiB in blocks of 32 MiB. Ours

    private readonly VhdxDisk _disk;
    private readonly VhdxBat _bat;
    private readonly MetadataSession _session;
    private readonly VhdxCompactor _compactor;
    private readonly VhdxParentRecord _parentRecord;

    private VhdxNode(VhdxDisk disk)
        : base(disk.File, disk.Backing)
    {
        (_disk, _bat, _session) = (disk, disk.Bat, disk.Session);
        _compactor = new VhdxCompactor(disk);
        _parentRecord = new VhdxParentRecord(disk);
        IsReadOnly = disk.File.IsReadOnly;
    }

    public override long Length => Geometry.VirtualSize;

    public override bool IsReadOnly { get; }

    // A block may be large, but its parts do not depend on each other: see the remarks.
    protected override int AllocationUnit => VhdxLayout.Sector;

    protected override int ZeroUnit => Geometry.SectorSize;

    // New blocks are holes until they are written.
    protected override bool DataMayBeSparse => true;

    internal VhdxDisk Disk => _disk;

    internal VhdxMetadata Metadata => _disk.Metadata;

    internal VhdxHeader Header => _disk.Header;

    internal VhdxRegionTable Regions => _disk.Regions;

    private VhdxGeometry Geometry => _disk.Geometry;

    /// <summary>
    /// Makes a disk of an image that has been read; replays its log if the file is open for writing. The children
    /// are the node's on success.
    /// </summary>
    public static async ValueTask<VhdxNode> OpenAsync(
        BlockNode file, BlockNode? backing, VhdxImage image, VhdxOpenOptions options, CancellationToken cancellationToken)
    {
        var disk = new VhdxDisk(file.IsReadOnly ? image.View : file, backing, image, options);
        if (image.Log is { } log && !file.IsReadOnly)
        {
            await disk.ReplayAsync(log, cancellationToken).ConfigureAwait(false);
        }
        return new VhdxNode(disk);
    }

    public ImageDescription Describe() => new()
    {
        Format = VhdxDriver.FormatName,
        ClusterSize = Metadata.BlockSize,
        BackingFile = Metadata.Locator?.LocalPaths.FirstOrDefault(),
        BackingFormat = Metadata.HasParent ? VhdxDriver.FormatName : null,
        Dirty = _disk.HadLog,
        LogicalSectorSize = Metadata.LogicalSectorSize,
        PhysicalSectorSize = Metadata.PhysicalSectorSize,
        FormatSpecific = VhdxInfo.Of(_disk),
    };

    public async ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken)
    {
        if (Geometry.EntriesWithoutBitmaps * VhdxGeometry.EntryBytes > MostBatToCount)
        {
            return null;
        }
        var fragments = new FragmentCounter();
        await _session.RunAsync(
            async held =>
            {
                await FlushIfWritableAsync(held, cancellationToken).ConfigureAwait(false);
                await _bat.EachAsync(Geometry.EntriesWithoutBitmaps, Count, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return fragments.Percentage;

        void Count(long index, BatEntry entry)
        {
            if (entry.IsStored && !Geometry.IsBitmapIndex(index))
            {
                fragments.Add(entry.FileOffset, Geometry.BlockSize);
            }
        }
    }

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckAloneAsync(bytes, cancellationToken), cancellationToken);

    private async ValueTask<CheckReport> CheckAloneAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await _session.RunAsync(held => FlushIfWritableAsync(held, cancellationToken), cancellationToken).ConfigureAwait(false);
        return await new VhdxChecker(_disk, bytes, cancellationToken).RunAsync().ConfigureAwait(false);
    }

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => RepairAloneAsync(mode, bytes, cancellationToken), cancellationToken);

    private async ValueTask<CheckReport> RepairAloneAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        _disk.RequireWritable();
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                await _disk.EndAsync(held).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return await StagedRepair.RunAsync(
            this,
            File,
            mode,
            (progress, stop) => new VhdxChecker(_disk, progress, stop).RunAsync(),
            bytes,
            cancellationToken).ConfigureAwait(false);
    }

    long ITrialRepair.Grain => Geometry.BlockSize;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        VhdxImage image = await VhdxImage.ReadAsync(file, _disk.Options.DiscardLog
            || forRepair, forRepair, cancellationToken).ConfigureAwait(false);
        return await OpenAsync(file, backing: null, image, _disk.Options, cancellationToken).ConfigureAwait(false);
    }

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
        => _session.RunAsync(held => new VhdxRepairer(_disk, _compactor).RunAsync(held, mode, cancellationToken), cancellationToken);

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
        => VhdxRepairer.ReadableAsync(_disk, cancellationToken);

    ValueTask ITrialRepair.RequireUsableAsync() => _session.RunAsync(
        async held =>
        {
            _ = await _disk.SpaceAsync(held).ConfigureAwait(false);
        },
        CancellationToken.None);

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken)
        => _session.RunAsync(held => _disk.ReloadAsync(held, cancellationToken), cancellationToken);

    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        _disk.RequireWritable();
        long before = File.Length;
        await ChangeAsync(held => _compactor.RunAsync(held, bytes, cancellationToken), cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    }

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => ChangeAsync(held => _parentRecord.SetAsync(held, backingFile, backing, cancellationToken), cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken)
        => ChangeAsync(held => _parentRecord.EmptyAsync(held, isVisible: true, cancellationToken), cancellationToken);

    public ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken)
        => ChangeAsync(held => _parentRecord.EmptyAsync(held, isVisible: false, cancellationToken), cancellationToken);

    // The specification has parent_linkage2 beside parent_linkage, and the parent may bear either identity. Spec: MS-VHDX 2.6.2.6.3.
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken) => ChangeAsync(
        held => _parentRecord.LinkAsync(
            held, changesThis, static (locator, now, coming) => locator.Linked(now, coming), cancellationToken),
        cancellationToken);

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => ChangeAsync(
        held => _parentRecord.LinkAsync(held, isVisible: false, static (locator, now, _) => locator.Linked(now), cancellationToken),
        cancellationToken);

    /// <summary>Changes metadata items and the parent's path, all at once.</summary>
    public ValueTask AmendAsync(VhdxAmendOptions options) => ChangeAsync(held => new VhdxMetadataWriter(_disk).AmendAsync(held, options));

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await MapPieceAsync(new(offset), end, cancellationToken).ConfigureAwait(false);
        for (int i = 0; run.End < end && i < MaxRun; i++)
        {
            BlockExtent next = await MapPieceAsync(new(run.End), end, cancellationToken).ConfigureAwait(false);
            if (!run.IsContinuedBy(next))
            {
                break;
            }
            run = run with { Length = run.Length + next.Length };
        }
        return run;
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _disk.BeginChangeAsync(held, cancellationToken).ConfigureAwait(false);
        var guest = new GuestOffset(offset);
        long block = Geometry.BlockOf(guest);
        BatEntry entry = await _bat.PayloadAsync(block, cancellationToken).ConfigureAwait(false);
        long covered = Math.Min(length, Geometry.StartOf(block) + Geometry.BytesOf(block) - offset);
        if (entry.State == BlockState.NotPresent && _disk.HasParent)
        {
            return covered == Geometry.BytesOf(block)
                ? await WholeBlockAsync(held, offset, covered).ConfigureAwait(false)
                : await IntoSectorsAsync(
                    await _bat.AddPartialAsync(held, block).ConfigureAwait(false),
                    block,
                    guest,
                    covered,
                    isFresh: true).ConfigureAwait(false);
        }
        if (entry.State == BlockState.PartiallyPresent && _disk.HasParent)
        {
            _bat.RequirePayload(entry, block);
            return await IntoSectorsAsync(entry, block, guest, covered, isFresh: false).ConfigureAwait(false);
        }
        if (entry.ReadsZero || entry.State == BlockState.NotPresent)
        {
            entry = await AddZeroAsync(held, block, entry).ConfigureAwait(false);
        }
        else if (entry.State != BlockState.FullyPresent)
        {
            throw _bat.Wrong(block, $"has the state {(int)entry.State}, so nothing can be written to it");
        }
        HostOffset host = entry.Place + Geometry.InBlock(guest);
        covered = await JoinAsync(host, block, covered, length).ConfigureAwait(false);
        _disk.RequirePlace(host.Value, covered, $"payload block {block}");
        return WriteMapping.InPlace(offset, covered, File, host.Value);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        var start = new GuestOffset(mapping.CopyStart);
        long block = Geometry.BlockOf(start);
        BatEntry entry = await _bat.PayloadAsync(block, CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent)
        {
            await _bat.SetPayloadAsync(
                held, block, new BatEntry(BlockState.FullyPresent, new HostOffset(mapping.HostStart))).ConfigureAwait(false);
        }
        else
        {
            await _bat.SetSectorsAsync(held, entry, block, start, mapping.CopyEnd - mapping.CopyStart).ConfigureAwait(false);
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        BatEntry entry = await _bat.PayloadAsync(Geometry.BlockOf(new(mapping.CopyStart)), CancellationToken.None).ConfigureAwait(false);
        if (entry.State == BlockState.NotPresent)
        {
            _disk.Space.Free(held, mapping.HostStart, Geometry.BlockSize);
        }
    }

    /// <summary>Zeroes whole blocks by their state, parts of a block in the file. Spec: MS-VHDX 2.5.1.1.</summary>
    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        var guest = new GuestOffset(offset);
        long block = Geometry.BlockOf(guest), end = Math.Min(offset + length, Geometry.StartOf(block) + Geometry.BytesOf(block));
        bool isKept = mode == ZeroWriteMode.KeepAllocated || Metadata.IsFixed;
        BatEntry entry;
        using (MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false))
        {
            (entry, long done) = await ZeroStateAsync(held, block, offset, end, offset + length, mode).ConfigureAwait(false);
            if (done > 0)
            {
                return done;
            }
        }
        HostOffset host = entry.Place + Geometry.InBlock(guest);
        await File.WriteZeroesAsync(host.Value, end - offset, isKept
            ? ZeroWriteMode.KeepAllocated
            : mode, cancellationToken).ConfigureAwait(false);
        if (entry.State == BlockState.PartiallyPresent)
        {
            using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
            await _bat.SetSectorsAsync(held, entry, block, guest, end - offset).ConfigureAwait(false);
        }
        return end - offset;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (Metadata.IsFixed)
        {
            return;
        }
        for (long end = offset + length; offset < end;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var guest = new GuestOffset(offset);
            long block = Geometry.BlockOf(guest), next = Math.Min(end, Geometry.StartOf(block) + Geometry.BytesOf(block));
            bool isWhole = next - offset == Geometry.BytesOf(block);
            BatEntry entry;
            using (MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false))
            {
                entry = await _bat.PayloadAsync(block, cancellationToken).ConfigureAwait(false);
                if (isWhole && entry.IsStored)
                {
                    await _disk.BeginChangeAsync(held, cancellationToken).ConfigureAwait(false);
                    await _bat.ReplaceAsync(held, block, entry, new BatEntry(BlockState.Unmapped)).ConfigureAwait(false);
                }
                else if (entry.State == BlockState.FullyPresent)
                {
                    await _disk.BeginChangeAsync(held, cancellationToken).ConfigureAwait(false);
                    _bat.RequirePayload(entry, block);
                }
            }
            if (!isWhole && entry.State == BlockState.FullyPresent && _disk.Options.Discard == VhdxDiscardMode.Unmap)
            {
                await File.DiscardAsync(
                    (entry.Place + Geometry.InBlock(guest)).Value, next - offset, cancellationToken).ConfigureAwait(false);
            }
            offset = next;
        }
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => ChangeAsync(held => new VhdxResizer(_disk).RunAsync(held, length, preallocation, claimed, cancellationToken), cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(_disk.EndAsync, CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
        }
    }

    /// <summary>Runs a change of the whole disk: with no other request, and under the lock.</summary>
    private ValueTask ChangeAsync(Func<MetadataSession.Held, ValueTask> change, CancellationToken cancellationToken = default)
        => AloneAsync(() => _session.RunAsync(change, cancellationToken), cancellationToken);

    private ValueTask FlushIfWritableAsync(MetadataSession.Held held, CancellationToken cancellationToken)
        => IsReadOnly ? default : _session.FlushAsync(held, cancellationToken);

    /// <summary>The extent at an offset, as far as one block, or a run of blocks without place, tells.</summary>
    private async ValueTask<BlockExtent> MapPieceAsync(GuestOffset guest, long end, CancellationToken cancellationToken)
    {
        long offset = guest.Value, block = Geometry.BlockOf(guest), blockEnd = Geometry.StartOf(block) + Geometry.BytesOf(block);
        (BatEntry entry, int blocks) = await _bat.RunAsync(block, cancellationToken).ConfigureAwait(false);
        switch (entry.State)
        {
            case BlockState.NotPresent:
                return new(offset, Math.Min(Geometry.StartOf(block + blocks), Length) - offset, BlockStatus.None);
            case BlockState.Zero or BlockState.Unmapped or BlockState.UnmappedOld or BlockState.Undefined:
                return new(offset, Math.Min(Geometry.StartOf(block + blocks), Length) - offset, BlockStatus.Allocated | BlockStatus.Zero);
            case BlockState.FullyPresent:
                _bat.RequirePayload(entry, block);
                return Stored(entry, guest, blockEnd - offset);
            case BlockState.PartiallyPresent when _disk.HasParent:
                _bat.RequirePayload(entry, block);
                (bool isHere, long length) = await _bat.SectorRunAsync(
                    block, guest, Math.Min(end, blockEnd), cancellationToken).ConfigureAwait(false);
                return isHere ? Stored(entry, guest, length) : new(offset, length, BlockStatus.None);
            default:
                throw _bat.Wrong(
                    block,
                    $"has the state {(int)entry.State}, which "
                        + $"{(entry.State == BlockState.PartiallyPresent ? "only a differencing disk has" : "does not exist")}");
        }
    }

    private BlockExtent Stored(BatEntry entry, GuestOffset offset, long length)
        => new(offset.Value, length, BlockStatus.Allocated | BlockStatus.Data, File, (entry.Place + Geometry.InBlock(offset)).Value);

    /// <summary>How far a write can go on in one piece of the file, over further blocks that follow there.</summary>
    private async ValueTask<long> JoinAsync(HostOffset host, long block, long covered, long length)
    {
        while (covered < length)
        {
            block++;
            BatEntry next = await _bat.PayloadAsync(block, CancellationToken.None).ConfigureAwait(false);
            if (next.State != BlockState.FullyPresent || next.Place != host + covered)
            {
                break;
            }
            covered += Math.Min(length - covered, Geometry.BytesOf(block));
        }
        return covered;
    }

    /// <summary>A place for a write that covers a whole block of which nothing is here yet.</summary>
    private async ValueTask<WriteMapping> WholeBlockAsync(MetadataSession.Held held, long offset, long length)
    {
        HostOffset host = await _disk.AllocateAsync(held, Geometry.BlockSize).ConfigureAwait(false);
        return new(offset, length, File, host.Value, IsNew: true, offset, offset + length, HostReadsZero: true);
    }

    /// <summary>A place in a partially present block, as far as its sectors are alike.</summary>
    private async ValueTask<WriteMapping> IntoSectorsAsync(BatEntry entry, long block, GuestOffset guest, long length, bool isFresh)
    {
        long offset = guest.Value, sector = Geometry.SectorSize;
        (bool isHere, long run) = await _bat.SectorRunAsync(block, guest, offset + length, CancellationToken.None).ConfigureAwait(false);
        long covered = Math.Min(length, run), host = (entry.Place + Geometry.InBlock(guest)).Value;
        return isHere
            ? WriteMapping.InPlace(offset, covered, File, host)
            : new(
                offset,
                covered,
                File,
                host,
                IsNew: true,
                Round.Down(offset, sector),
                Round.Up(offset + covered, sector),
                HostReadsZero: isFresh);
    }

    /// <summary>Gives a block that reads as zeroes a place that does.</summary>
    private async ValueTask<BatEntry> AddZeroAsync(MetadataSession.Held held, long block, BatEntry old)
    {
        var entry = new BatEntry(BlockState.FullyPresent, await _disk.AllocateAsync(held, Geometry.BlockSize).ConfigureAwait(false));
        await _bat.ReplaceAsync(held, block, old, entry).ConfigureAwait(false);
        return entry;
    }

    /// <summary>
    /// Zeroes as far as states can say it: returns the bytes done, or 0 and the entry of a block whose bytes must be zeroed in the file.
    /// </summary>
    private async ValueTask<(BatEntry Entry, long Done)> ZeroStateAsync(
        MetadataSession.Held held, long block, long offset, long end, long wanted, ZeroWriteMode mode)
    {
        bool isKept = mode == ZeroWriteMode.KeepAllocated || Metadata.IsFixed;
        (BatEntry entry, int blocks) = await _bat.RunAsync(block, CancellationToken.None).ConfigureAwait(false);
        bool isUndecided = entry.State == BlockState.NotPresent && !_disk.HasParent;
        if (entry.ReadsZero || (isUndecided && mode == ZeroWriteMode.MayUnmap))
        {
            return (default, Math.Min(wanted, Geometry.StartOf(block + blocks)) - offset);
        }
        await _disk.BeginChangeAsync(held, CancellationToken.None).ConfigureAwait(false);
        if (isUndecided)
        {
            // All of it reads as zeroes; with this it does on a parent to come, too.
            await _bat.SetPayloadAsync(held, block, new BatEntry(BlockState.Zero)).ConfigureAwait(false);
            return (default, end - offset);
        }
        bool isWhole = end - offset == Geometry.BytesOf(block);
        if (isWhole && (!isKept || entry.State == BlockState.NotPresent))
        {
            await _bat.ReplaceAsync(held, block, entry, new BatEntry(BlockState.Zero)).ConfigureAwait(false);
            return (default, end - offset);
        }
        if (entry.State == BlockState.NotPresent)
        {
            entry = await _bat.AddPartialAsync(held, block).ConfigureAwait(false);
        }
        if (!entry.IsStored)
        {
            throw _bat.Wrong(block, $"has the state {(int)entry.State}, so nothing can be written to it");
        }
        _bat.RequirePayload(entry, block);
        return (entry, 0);
    }
}
