using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// A sparse extent: guest offset → grain directory → grain table → grain of the file. This part: reading, writing, giving up.
/// </summary>
/// <remarks>
/// <para>Order of writes: the mark that it is open, before the first change; data; both copies of the grain tables; both directories. So a
/// crash leaks at most, and can leave the copies apart where one names a grain that the other does not; the next to write makes them alike
/// again.</para>
/// <para>What is taken is known from the tables, which are read once when an extent is opened for writing; one in which two entries lead to
/// one place, or one out of the file, is not written to. What was given up is used again, and what is left of it is closed up when the
/// extent is closed.</para>
/// </remarks>
internal sealed partial class VmdkSparseExtent : FormatNode, IReservable
{
    private const int MostAtOnce = 4 << 20; // bytes of new grains in one step
    private const long FreeAhead = 64 << 20; // bytes by which an ESX header's free sector is moved at once

    private readonly MetadataSession _session;
    private readonly VmdkGrainTables _tables;
    private readonly VmdkLayout _layout;
    private readonly BlockMaintenance _maintenance;
    private readonly DecodedUnits? _decoded;
    private readonly ReservedPlaces _reserved = new();
    private readonly VmdkExtentTraits _traits;
    private long _length;
    private bool _isMarked, _gaveUp; // the mark in the header is ours; a grain was given up

    private VmdkSparseExtent(BlockNode file, BlockNode? backing, VmdkHeader header, VmdkExtentTraits traits)
        : base(file, backing)
    {
        _traits = traits;
        _session = new MetadataSession(file);
        _tables = new VmdkGrainTables(file, _session, header);
        _layout = new VmdkLayout(file, _tables);
        _maintenance = new BlockMaintenance(_session, _layout);
        _length = Math.Min(traits.Length ?? header.Length, header.Length);
        IsReadOnly = file.IsReadOnly || header.IsCompressed || traits.IsReadOnly || (!header.IsRoot && traits is { IsDescribed: false });
        _decoded = header.IsCompressed ? new DecodedUnits(DecodedBytes, DecodeAsync) : null;
    }

    public override long Length => Volatile.Read(ref _length);

    public override bool IsReadOnly { get; }

    /// <summary>The header as it is in the file.</summary>
    public VmdkHeader Header => _tables.Header;

    /// <summary>True if somebody else wrote to it and did not close it.</summary>
    public bool IsLeftOpen => Header.IsUnclean && !_isMarked;

    /// <summary>True if what is nowhere here may show something from below, now or when it is opened with its parent.</summary>
    public bool HasParent => _traits.HasParent;

    /// <summary>True for one of ESX.</summary>
    public bool IsCowd => _traits.IsCowd;

    protected override int AllocationUnit => Header.GrainBytes;

    protected override bool OwnsChildren => false; // the disk does

    private VmdkSpace Space => (VmdkSpace?)_session.Space
        ?? throw new DiskImageException(DiskImageErrorKind.Corrupt,
            $"{Name}: opened for repair, so it is not written to before it is repaired", Name);

    /// <summary>Reads the grain directory; to write, all tables.</summary>
    public static async ValueTask<VmdkSparseExtent> OpenAsync(
        BlockNode file, BlockNode? backing, VmdkHeader header, VmdkExtentTraits traits, bool forRepair, CancellationToken cancellationToken)
    {
        var extent = new VmdkSparseExtent(file, backing, header, traits);
        await extent._tables.LoadAsync(cancellationToken).ConfigureAwait(false);
        if (!extent.IsReadOnly && !forRepair)
        {
            await extent._session.RunAsync(held => extent.PrepareAsync(held, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        return extent;
    }

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long last = (offset + length - 1) / AllocationUnit;
        for (long grain = offset / AllocationUnit; grain <= last; grain++)
        {
            if (!_reserved.Has(grain) && !IsStored(await _tables.GetAsync(grain, cancellationToken).ConfigureAwait(false)))
            {
                await MarkAsync(held).ConfigureAwait(false);
                await RequireTableAsync(held, grain).ConfigureAwait(false);
                _reserved.Add(grain, Space.Allocate(held, 1).Place);
                await CoverAsync(held).ConfigureAwait(false);
            }
        }
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await MapTableAsync(offset, end, cancellationToken).ConfigureAwait(false);
        while (!run.IsCompressed && run.End < end
            && await MapTableAsync(run.End, end, cancellationToken).ConfigureAwait(false) is var next && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Math.Max(1, Length - offset)) };
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        int size = AllocationUnit;
        long first = offset / size, start = first * size, within = offset - start;
        long wanted = Math.Min(((within + length - 1) / size) + 1, Math.Max(1, MostAtOnce / size));
        wanted = Math.Min(wanted, ((_tables.IndexOf(first) + 1L) * Header.TableEntries) - first); // one table at a time
        VmdkEntry entry = await _tables.GetAsync(first, cancellationToken).ConfigureAwait(false);
        long count = 1;
        if (IsStored(entry))
        {
            RequirePlace(entry, first);
            while (count < wanted && await _tables.GetAsync(first + count, cancellationToken).ConfigureAwait(false) is var next
                && next.Place == entry.Place + (count * size) && _tables.IsGrain(next))
            {
                count++;
            }
            return WriteMapping.InPlace(offset, Math.Min(length, (count * size) - within), File, entry.Place + within);
        }
        await MarkAsync(held).ConfigureAwait(false);
        await RequireTableAsync(held, first).ConfigureAwait(false);
        if (!_reserved.TryTake(first, wanted, size, out long place, out count))
        {
            while (count < wanted && !_reserved.Has(first + count)
                && !IsStored(await _tables.GetAsync(first + count, cancellationToken).ConfigureAwait(false)))
            {
                count++;
            }
            (place, count) = Space.Allocate(held, count);
        }
        try
        {
            await CoverAsync(held).ConfigureAwait(false);
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
            offset, Math.Min(length,
                (count * size) - within), File, place + within, IsNew: true, start, start + (count * size),
            HostReadsZero: place >= Space.ZeroFrom);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        _session.Order.DataWritten(); // the file has its length before an entry leads to its end
        for (long at = mapping.CopyStart; at < mapping.CopyEnd; at += AllocationUnit)
        {
            await _tables.SetAsync(held, at / AllocationUnit,
                VmdkEntry.At(mapping.HostStart + (at - mapping.CopyStart))).ConfigureAwait(false);
        }
    }

    protected override async ValueTask AbandonMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        Space.Free(held, mapping.HostStart, mapping.CopyEnd - mapping.CopyStart);
        _gaveUp = true;
    }

    /// <summary>
    /// Gives grains up where nothing can show through; marks them as zeroed where the extent has such entries; else, over a parent, zeroes
    /// are written.
    /// </summary>
    protected override async ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode,
        CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        bool mustDecide = HasParent || mode == ZeroWriteMode.KeepAllocated; // also over a parent to come
        long grain = offset / AllocationUnit, next = EndOfUnmapped(grain), count = Math.Min(length, AllocationUnit);
        if (next > offset && !mustDecide)
        {
            return Math.Min(length, next - offset);
        }
        VmdkEntry entry = await _tables.GetAsync(grain, cancellationToken).ConfigureAwait(false);
        if (!IsStored(entry))
        {
            if (_tables.IsZeroed(entry) || !mustDecide)
            {
                return count;
            }
            if (!Header.HasZeroedGrains)
            {
                return 0;
            }
            await MarkAsync(held).ConfigureAwait(false);
            await RequireTableAsync(held, grain).ConfigureAwait(false);
            await _tables.SetAsync(held, grain, new(VmdkGrainTables.Zeroed)).ConfigureAwait(false);
            return count;
        }
        RequirePlace(entry, grain);
        if (mode == ZeroWriteMode.KeepAllocated || (mustDecide && !Header.HasZeroedGrains))
        {
            await File.WriteZeroesAsync(entry.Place, Math.Min(count, Math.Max(0, File.Length - entry.Place)), mode,
                cancellationToken).ConfigureAwait(false);
            return count;
        }
        await GiveUpAsync(held, grain, entry, new(mustDecide ? VmdkGrainTables.Zeroed : 0)).ConfigureAwait(false);
        return count;
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (HasParent && !Header.HasZeroedGrains)
        {
            return; // a grain that is nowhere would show the parent's old data
        }
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        for (long end = offset + length; offset < end;)
        {
            long grain = offset / AllocationUnit, next = EndOfUnmapped(grain);
            if (next > offset)
            {
                offset = next;
                continue;
            }
            VmdkEntry entry = await _tables.GetAsync(grain, cancellationToken).ConfigureAwait(false);
            if (IsStored(entry))
            {
                RequirePlace(entry, grain);
                await GiveUpAsync(held, grain, entry, new(HasParent ? VmdkGrainTables.Zeroed : 0)).ConfigureAwait(false);
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
            Space.Free(held, place, AllocationUnit);
            _gaveUp = true;
        }
        _reserved.Clear();
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        if (!_isMarked)
        {
            return;
        }
        if (_gaveUp && _session.Space is VmdkSpace { HasGaps: true })
        {
            await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
        if (_session.Space is VmdkSpace space && Math.Max(space.End, _layout.LeastEnd) is var end && end < File.Length)
        {
            await File.ResizeAsync(end).ConfigureAwait(false);
        }
        await CloseHeaderAsync(held).ConfigureAwait(false);
    }

    private async ValueTask CloseHeaderAsync(MetadataSession.Held held)
    {
        long free = IsCowd ? Round.Units(Space.End, VmdkHeader.SectorSize) : Header.FreeSector;
        await SetHeaderAsync(held, Header with { IsUnclean = false, FreeSector = free }).ConfigureAwait(false);
        _isMarked = false;
    }

    /// <summary>Says in the file that it is being changed, before anything in it is.</summary>
    private async ValueTask MarkAsync(MetadataSession.Held held)
    {
        _ = Space;
        if (!_isMarked)
        {
            await SetHeaderAsync(held, Header with { IsUnclean = true }).ConfigureAwait(false);
            _isMarked = true;
        }
    }

    private async ValueTask SetHeaderAsync(MetadataSession.Held held, VmdkHeader header)
    {
        _session.Require(held);
        if (IsCowd)
        {
            await VmdkCowdHeader.WriteAsync(File, header).ConfigureAwait(false);
        }
        else
        {
            await File.WriteAsync(0, header.ToBytes()).ConfigureAwait(false);
        }
        await File.FlushAsync().ConfigureAwait(false);
        _tables.Take(header);
    }

    /// <summary>
    /// The free sector of an ESX header, behind which other programs put what is new, is never before the end of what tables lead to; a
    /// crash leaves it too far behind.
    /// </summary>
    private async ValueTask CoverAsync(MetadataSession.Held held)
    {
        if (IsCowd && Space.End > Header.FreeSector * VmdkHeader.SectorSize)
        {
            long sector = Round.Units(Space.End + FreeAhead, VmdkHeader.SectorSize);
            await SetHeaderAsync(held, Header with { FreeSector = Math.Min(sector, uint.MaxValue) }).ConfigureAwait(false);
        }
    }

    private async ValueTask RequireTableAsync(MetadataSession.Held held, long grain)
    {
        if (_tables.Directory[_tables.IndexOf(grain)].Value is 0 or VmdkGrainTables.Zeroed)
        {
            await _tables.RequireTableAsync(held, grain, Space).ConfigureAwait(false);
            await CoverAsync(held).ConfigureAwait(false);
            _session.Order.DataWritten();
            _layout.Changed();
        }
    }

    private async ValueTask GiveUpAsync(MetadataSession.Held held, long grain, VmdkEntry old, VmdkEntry entry)
    {
        await MarkAsync(held).ConfigureAwait(false);
        await _tables.SetAsync(held, grain, entry).ConfigureAwait(false);
        Space.FreeAfterFlush(held, old.Place, AllocationUnit);
        _gaveUp = true;
    }

    private bool IsStored(VmdkEntry entry) => entry.Value != 0 && !_tables.IsZeroed(entry);

    /// <summary>The run from an offset on, in one table at most.</summary>
    private async ValueTask<BlockExtent> MapTableAsync(long offset, long end, CancellationToken cancellationToken)
    {
        int size = AllocationUnit;
        long grain = offset / size, unmapped = EndOfUnmapped(grain);
        if (unmapped > offset)
        {
            return new(offset, unmapped - offset, BlockStatus.None);
        }
        CachedPiece? table = await _tables.TableAsync(grain, cancellationToken).ConfigureAwait(false);
        BlockExtent run = ExtentOf(_tables.EntryIn(table, grain), offset, grain);
        for (long next = grain + 1; !run.IsCompressed && run.End < end && next % Header.TableEntries != 0; next++)
        {
            BlockExtent more = ExtentOf(_tables.EntryIn(table, next), run.End, next);
            if (!run.IsContinuedBy(more))
            {
                break;
            }
            run = run with { Length = run.Length + more.Length };
        }
        return run;
    }

    private BlockExtent ExtentOf(VmdkEntry entry, long offset, long grain)
    {
        long within = offset - (grain * AllocationUnit), count = AllocationUnit - within;
        if (entry.Value == 0)
        {
            return new(offset, count, BlockStatus.None);
        }
        if (_tables.IsZeroed(entry))
        {
            return new(offset, count, BlockStatus.Allocated | BlockStatus.Zero);
        }
        RequirePlace(entry, grain);
        return Header.IsCompressed
            ? new(offset, count, BlockStatus.Allocated | BlockStatus.Data | BlockStatus.Compressed)
            : new(offset, count, BlockStatus.Allocated | BlockStatus.Data, File, entry.Place + within);
    }

    /// <summary>Where a run of grains without a table ends, at the end of the extent at most; 0 if there is a table.</summary>
    private long EndOfUnmapped(long grain)
    {
        int index = _tables.IndexOf(grain);
        if (index >= _tables.Directory.Count || _tables.Directory[index].Value != 0)
        {
            return 0;
        }
        int next = _tables.Directory.NextUsed(index);
        return next > (Length - 1) / Header.Span ? Math.Max(Length, (grain + 1) * AllocationUnit) : next * Header.Span;
    }

    private void RequirePlace(VmdkEntry entry, long grain)
    {
        if (!_tables.IsGrain(entry))
        {
            throw _tables.Corrupt(
                $"grain {grain:#,0} (guest offset {grain * AllocationUnit:#,0}) is said to be at sector {entry.Value:#,0}, and the file has"
                    + $" {File.Length:#,0} bytes",
                entry.Place);
        }
    }

    /// <summary>Refuses to write where a write could hit something else; finds what is taken; makes the redundant copies alike.</summary>
    private async ValueTask PrepareAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (FirstFaultOfTables() is { } fault)
        {
            throw Unsound(fault);
        }
        await FindSpaceAsync(held, cancellationToken).ConfigureAwait(false);
        if (Header.IsUnclean)
        {
            await SynchronizeAsync(held, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask FindSpaceAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _session.Require(held);
        IReadOnlyList<FileRange> structures = _layout.Structures;
        uint[] sectors = await _layout.SectorsAsync(cancellationToken).ConfigureAwait(false);
        int next = 0;
        long used = 0;
        foreach (uint sector in sectors)
        {
            long place = (long)sector * VmdkHeader.SectorSize;
            for (; next < structures.Count && structures[next].End <= place; next++)
            {
                // before the grain
            }
            if (place < used || place >= File.Length || (next < structures.Count && structures[next].Start < place + AllocationUnit))
            {
                throw Unsound($"a grain is said to be at sector {sector:#,0}, which is outside the file or holds something else");
            }
            used = place + AllocationUnit;
        }
        _session.Space = new VmdkSpace(File, AllocationUnit, structures, sectors);
    }

    private DiskImageException Unsound(string what) => new(
        DiskImageErrorKind.Corrupt, $"{Name}: {what}, so nothing can be written safely. Repair it with"
            + $" {new Remedy(RemedyKind.Repair)}.", Name);
}

/// <summary>What a disk says of one of its extents.</summary>
/// <param name="HasParent">What the extent does not hold shows the disk's parent.</param>
/// <param name="Length">Bytes that the descriptor gives it; null for what its header says.</param>
/// <param name="IsReadOnly">It may not be written to.</param>
/// <param name="IsCowd">It is one of ESX.</param>
/// <param name="IsDescribed">A descriptor lists it, or what it stands on is known otherwise.</param>
internal sealed record VmdkExtentTraits(
    bool HasParent = false, long? Length = null, bool IsReadOnly = false, bool IsCowd = false, bool IsDescribed = true);
