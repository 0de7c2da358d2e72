using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qed;

/// <summary>A QED disk: guest offset → L1 table → L2 table → cluster of the file. This part: reading, writing, giving up.</summary>
/// <remarks>
/// <para>Order of writes: the mark that the image needs a check, before the first place is taken; data and new tables; L2 entries; L1
/// entries. So a crash leaks at most. The mark goes when the image is closed. An image that has it is checked and repaired before
/// it is written to.</para>
/// <para>What is taken is known from the tables, which are read once when an image is opened for writing; a file in which two entries lead
/// to one place, or one out of the file, is not written to. What was given up is used again, and what is left of it is closed up when the
/// image is closed, as QEMU counts a cluster that nothing leads to as leaked.</para>
/// </remarks>
internal sealed partial class QedNode : FormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable, IRebasable, IEmptiable, IReservable
{
    private const int MostAtOnce = 4 << 20; // bytes of new clusters in one step

    private readonly MetadataSession _session;
    private readonly QedTables _tables;
    private readonly QedLayout _layout;
    private readonly BlockMaintenance _maintenance;
    private readonly ReservedPlaces _reserved = new();
    private long _zeroFrom; // from here on the file reads as zeroes
    private bool _gaveUp, _isMarked; // something was given up; the mark in the header is ours
    private bool _isOpening; // a repair is part of opening, so it moves nothing to close gaps

    private QedNode(BlockNode file, BlockNode? backing, QedHeader header, bool isOpening)
        : base(file, backing)
    {
        _isOpening = isOpening;
        _session = new MetadataSession(file);
        _tables = new QedTables(file, _session, header);
        _layout = new QedLayout(file, _tables);
        _maintenance = new BlockMaintenance(_session, _layout);
        _zeroFrom = Round.Up(file.Length, header.ClusterSize);
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => Header.ImageSize;

    public override bool IsReadOnly { get; }

    protected override int AllocationUnit => Header.ClusterSize;

    private QedHeader Header => _tables.Header;

    private SpaceMap Space => (SpaceMap?)_session.Space
        ?? throw new DiskImageException(
            DiskImageErrorKind.Corrupt, $"{Name}: opened for repair, so it is not written to before it is repaired", Name);

    /// <summary>Reads the L1 table; to write, all tables. The file and the backing image are the node's on success.</summary>
    public static ValueTask<QedNode> OpenAsync(
        BlockNode file, BlockNode? backing, QedHeader header, bool forRepair, CancellationToken cancellationToken)
        => OpenAsync(file, backing, header, forRepair, isOpening: false, cancellationToken);

    private static async ValueTask<QedNode> OpenAsync(
        BlockNode file, BlockNode? backing, QedHeader header, bool forRepair, bool isOpening, CancellationToken cancellationToken)
    {
        var node = new QedNode(file, backing, header, isOpening);
        await node._tables.LoadAsync(cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly && !forRepair)
        {
            await node.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = QedDriver.FormatName,
        ClusterSize = Header.ClusterSize,
        BackingFile = Header.BackingFile,
        BackingFormat = Header.BackingFormat,
        Dirty = Header.NeedsCheck && !_isMarked,
        FormatSpecific = new QedInfo
        {
            TableSize = Header.TableSize,
            NeedsCheck = Header.NeedsCheck && !_isMarked,
            BackingIsRaw = Header.BackingFormat is not null,
            MaximumSize = Header.MaxImageSize,
        },
    };

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long last = (offset + length - 1) / AllocationUnit;
        for (long cluster = offset / AllocationUnit; cluster <= last; cluster++)
        {
            if (!_reserved.Has(cluster)
                && await _tables.GetAsync(cluster, cancellationToken).ConfigureAwait(false) <= QedTables.Zero)
            {
                await MarkAsync(held).ConfigureAwait(false);
                await _tables.RequireTableAsync(held, cluster, _zeroFrom).ConfigureAwait(false);
                _reserved.Add(cluster, Space.Allocate(held, AllocationUnit));
            }
        }
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await MapPieceAsync(offset, end, cancellationToken).ConfigureAwait(false);
        while (run.End < end && await MapPieceAsync(run.End, end, cancellationToken).ConfigureAwait(false) is var next
            && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Length - offset) };
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        int size = AllocationUnit;
        long first = offset / size, start = first * size, within = offset - start;
        long wanted = Math.Min(((within + length - 1) / size) + 1, Math.Max(1, MostAtOnce / size));
        wanted = Math.Min(wanted, ((_tables.L1Index(first) + 1L) * Header.TableEntries) - first); // one table at a time
        ulong entry = await _tables.GetAsync(first, cancellationToken).ConfigureAwait(false);
        long count = 1;
        if (entry > QedTables.Zero)
        {
            RequirePlace(entry, first);
            while (count < wanted && await _tables.GetAsync(first + count, cancellationToken).ConfigureAwait(false) is var next
                && next == entry + (ulong)(count * size) && _tables.IsPlace(next, size))
            {
                count++;
            }
            return WriteMapping.InPlace(offset, Math.Min(length, (count * size) - within), File, (long)entry + within);
        }
        await MarkAsync(held).ConfigureAwait(false);
        await _tables.RequireTableAsync(held, first, _zeroFrom).ConfigureAwait(false);
        if (!_reserved.TryTake(first, wanted, size, out long place, out count))
        {
            while (count < wanted && !_reserved.Has(first + count)
                && await _tables.GetAsync(first + count, cancellationToken).ConfigureAwait(false) <= QedTables.Zero)
            {
                count++;
            }
            place = Space.Allocate(held, count * size);
        }
        try
        {
            if (File.Length < place + (count * size))
            {
                await File.ResizeAsync(place + (count * size), cancellationToken: cancellationToken).ConfigureAwait(false);
            }
        }
        catch
        {
            Space.Free(held, place, count * size);
            throw;
        }
        return new(
            offset,
            Math.Min(length, (count * size) - within),
            File,
            place + within,
            IsNew: true,
            start,
            start + (count * size),
            HostReadsZero: place >= _zeroFrom);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        _session.Order.DataWritten(); // the file has its length before an entry leads to its end
        for (long at = mapping.CopyStart; at < mapping.CopyEnd; at += AllocationUnit)
        {
            await _tables.SetAsync(held, at / AllocationUnit, (ulong)(mapping.HostStart + (at - mapping.CopyStart))).ConfigureAwait(false);
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        GiveUp(held, mapping.HostStart, mapping.CopyEnd - mapping.CopyStart, isLinked: false);
    }

    /// <summary>
    /// Gives clusters up where nothing can show through. Over a backing image zeroes are written, and no cluster is marked as zero: QEMU
    /// fills a cluster that is so marked from the backing image when a part of it is written.
    /// </summary>
    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        bool mustDecide = Header.BackingFile is not null || mode == ZeroWriteMode.KeepAllocated; // also over a backing file to come
        long cluster = offset / AllocationUnit, next = EndOfUnmapped(cluster), count = Math.Min(length, AllocationUnit);
        if (next > offset)
        {
            return mustDecide ? 0 : Math.Min(length, next - offset);
        }
        ulong entry = await _tables.GetAsync(cluster, cancellationToken).ConfigureAwait(false);
        if (entry <= QedTables.Zero)
        {
            return entry == QedTables.Nowhere && mustDecide ? 0 : count;
        }
        RequirePlace(entry, cluster);
        if (mustDecide)
        {
            await File.WriteZeroesAsync((long)entry, count, mode, cancellationToken).ConfigureAwait(false);
            return count;
        }
        await MarkAsync(held).ConfigureAwait(false);
        await ReplaceAsync(held, cluster, QedTables.Nowhere).ConfigureAwait(false);
        return count;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (Header.BackingFile is not null)
        {
            return; // a cluster that is nowhere would show the backing file's old data
        }
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        for (long end = offset + length; offset < end;)
        {
            long next = EndOfUnmapped(offset / AllocationUnit), cluster = offset / AllocationUnit;
            if (next > offset)
            {
                offset = next;
                continue;
            }
            if (await _tables.GetAsync(cluster, cancellationToken).ConfigureAwait(false) > QedTables.Zero)
            {
                await MarkAsync(held).ConfigureAwait(false);
                await ReplaceAsync(held, cluster, QedTables.Nowhere).ConfigureAwait(false);
            }
            offset += AllocationUnit;
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => _session.RunAsync(held => _session.FlushAsync(held, cancellationToken), cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(FinishAsync, CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
        }
    }

    private async ValueTask FinishAsync(MetadataSession.Held held)
    {
        foreach (long place in _reserved.Places)
        {
            GiveUp(held, place, AllocationUnit, isLinked: false);
        }
        _reserved.Clear();
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        if (_gaveUp && _session.Space is SpaceMap space && (space.End < File.Length || space.Gaps().Any()))
        {
            await Compactor.RunAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
        if (_isMarked)
        {
            await _tables.SetHeaderAsync(held, Header with { Features = Header.Features & ~QedFeatures.NeedCheck }).ConfigureAwait(false);
            _isMarked = false;
        }
    }

    private QedCompactor Compactor => new(_session, _tables, _layout, _maintenance);

    /// <summary>Says in the file that it is being changed, before anything in it is.</summary>
    private async ValueTask MarkAsync(MetadataSession.Held held)
    {
        _ = Space;
        if (!_isMarked)
        {
            await _tables.SetHeaderAsync(held, Header with { Features = Header.Features | QedFeatures.NeedCheck }).ConfigureAwait(false);
            _isMarked = true;
        }
    }

    /// <summary>Gives a cluster another entry, and the place that it had back.</summary>
    private async ValueTask ReplaceAsync(MetadataSession.Held held, long cluster, ulong entry)
    {
        ulong old = await _tables.GetAsync(cluster, CancellationToken.None).ConfigureAwait(false);
        await _tables.SetAsync(held, cluster, entry).ConfigureAwait(false);
        if (old > QedTables.Zero && _tables.IsPlace(old, AllocationUnit))
        {
            GiveUp(held, (long)old, AllocationUnit, isLinked: true);
        }
    }

    private void GiveUp(MetadataSession.Held held, long place, long length, bool isLinked)
    {
        if (isLinked)
        {
            Space.FreeAfterFlush(held, place, length);
        }
        else
        {
            Space.Free(held, place, length);
        }
        _zeroFrom = Math.Max(_zeroFrom, place + length); // something may have been written there
        _gaveUp = true;
    }

    private async ValueTask<BlockExtent> MapPieceAsync(long offset, long end, CancellationToken cancellationToken)
    {
        int size = AllocationUnit;
        long cluster = offset / size, unmapped = EndOfUnmapped(cluster);
        if (unmapped > offset)
        {
            return new(offset, unmapped - offset, BlockStatus.None);
        }
        CachedPiece piece = (await _tables.PieceAsync(cluster, cancellationToken).ConfigureAwait(false))!;
        BlockExtent run = ExtentOf(_tables.EntryIn(piece, cluster), offset, cluster);
        for (long next = cluster + 1; run.End < end && next % _tables.PieceEntries != 0; next++)
        {
            BlockExtent more = ExtentOf(_tables.EntryIn(piece, next), run.End, next);
            if (!run.IsContinuedBy(more))
            {
                break;
            }
            run = run with { Length = run.Length + more.Length };
        }
        return run;
    }

    private BlockExtent ExtentOf(ulong entry, long offset, long cluster)
    {
        long within = offset - (cluster * AllocationUnit), count = AllocationUnit - within;
        if (entry == QedTables.Nowhere)
        {
            return new(offset, count, BlockStatus.None);
        }
        if (entry == QedTables.Zero)
        {
            return new(offset, count, BlockStatus.Allocated | BlockStatus.Zero);
        }
        RequirePlace(entry, cluster);
        return new(offset, count, BlockStatus.Allocated | BlockStatus.Data, File, (long)entry + within);
    }

    /// <summary>Where a run of clusters without an L2 table ends, at the end of the disk at most; 0 if there is a table.</summary>
    private long EndOfUnmapped(long cluster)
    {
        int index = _tables.L1Index(cluster);
        if (_tables.L1[index].Value != 0)
        {
            return 0;
        }
        int next = _tables.L1.NextUsed(index);
        return next > (Length - 1) / Header.Span ? Length : next * Header.Span;
    }

    private void RequirePlace(ulong entry, long cluster)
    {
        if (!_tables.IsPlace(entry, AllocationUnit))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: cluster {cluster:#,0} (guest offset {cluster * AllocationUnit:#,0}) is said to be at "
                    + $"offset {entry:#,0}; allowed: a multiple of"
                    + $" {AllocationUnit:#,0} behind the header, with all of it in the file of {File.Length:#,0} bytes. Look at all of "
                    + $"it with {new Remedy(RemedyKind.Check)}.",
                Name,
                (long)(entry & long.MaxValue));
        }
    }

    /// <summary>Repairs what was not closed; refuses to write where a write could hit something else; finds what is taken.</summary>
    private async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        if (Header.NeedsCheck)
        {
            _isOpening = true;
            Wording? why = await StagedRepair.RunAsync(this, File, RepairMode.All, cancellationToken).ConfigureAwait(false);
            _isOpening = false;
            if (why is not null)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Corrupt,
                    $"{Name}: was not closed properly, and its repair was tried and not made: {why}. Nothing was changed.",
                    Name);
            }
        }
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await RequireSpaceAsync(held, cancellationToken).ConfigureAwait(false);
        QedFeatures features = Header.Features & ~QedFeatures.NeedCheck;
        if (features != Header.Features || Header.AutoClear != 0)
        {
            await _tables.SetHeaderAsync(held, Header with { Features = features, AutoClear = 0 }).ConfigureAwait(false);
        }
    }

    /// <summary>Finds what is taken.</summary>
    /// <exception cref="DiskImageException">Corrupt: two lead to one place, or one out of the file.</exception>
    private async ValueTask RequireSpaceAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (await FindSpaceAsync(held, cancellationToken).ConfigureAwait(false) is { } fault)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: {fault}, so nothing can be written safely. Repair it with {new Remedy(RemedyKind.Repair)}.",
                Name);
        }
    }

    /// <summary>The same, but tells what keeps it from being written to; null for nothing.</summary>
    private async ValueTask<string?> FindSpaceAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _ = held;
        // all there can be, and leaks; 512 MiB of memory
        long reach = Math.Min((long)AllocationUnit << 32, (Math.Min(Header.MaxImageSize, long.MaxValue / 16) * 2) + (1L << 30));
        var space = new SpaceMap(AllocationUnit, reach, end => new DiskImageException(
            DiskImageErrorKind.NoSpace, $"{Name}: a file of {end:#,0} bytes is longer than this format can use", Name));
        foreach (FileRange structure in _layout.Structures)
        {
            _ = space.TryMark(structure.Start, structure.Length);
        }
        string? fault = null;
        await _layout.WalkAsync(
            (index, entry, length) =>
            {
                if (!_tables.IsPlace(entry, length) || !space.TryMark((long)entry, length))
                {
                    fault ??= $"{_layout.NameOf(index)} is said to be at offset {entry:#,0}, which is "
                        + $"outside the file or holds something else";
                }
            },
            cancellationToken).ConfigureAwait(false);
        if (fault is null)
        {
            _session.Space = space;
            _zeroFrom = Round.Up(File.Length, AllocationUnit);
        }
        return fault;
    }

    /// <summary>The bytes of a name that stands in the header, in its place; nothing for none.</summary>
    private async ValueTask SetBackingAsync(MetadataSession.Held held, string? name, string? format)
    {
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        (QedHeader header, byte[] bytes) = Header.WithBacking(Name, name, format);
        if (bytes.Length > 0)
        {
            await File.WriteAsync(header.NameOffset, bytes).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
        }
        await _tables.SetHeaderAsync(held, header).ConfigureAwait(false);
    }
}
