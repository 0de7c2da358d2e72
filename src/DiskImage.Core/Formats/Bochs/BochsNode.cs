using System.Numerics;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Bochs;

/// <summary>A redolog of Bochs: guest offset → catalog → extent of the file, in which a bitmap says which sectors are there.</summary>
/// <remarks>
/// <para>Order of writes: the sectors, the bitmap that says that they are there, the catalog. So a crash leaves an extent that nothing
/// leads to at most. A new extent gets its place when it is first written to (or reserved), and stands in the catalog from
/// the first sector on.</para>
/// <para>Zeroes and discarded sectors of a growing disk only lose their bit; over a base image zeroes are written, since
/// the base would show.</para>
/// <para>Every program puts the next extent behind the highest number in the catalog. So places are handed out in order, and gaps that this
/// session made are closed when the image is.</para>
/// </remarks>
internal sealed class BochsNode : FormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable, IReservable
{
    private const int CacheBytes = 4 << 20;

    private readonly MetadataSession _session;
    private readonly BochsHeader _header;
    private readonly MetadataCache _bitmaps;
    private readonly BlockTable<LittleBlockEntry> _catalog;
    private readonly BochsLayout _layout;
    private readonly BlockMaintenance _maintenance;
    private readonly Dictionary<int, long> _coming = []; // extents that have a place and are not in the catalog yet
    private readonly string? _baseName;
    private readonly bool _forRepair;
    private long _next; // the place behind all that were handed out

    private BochsNode(BlockNode file, BlockNode? backing, BochsHeader header, string? baseName, bool forRepair)
        : base(file, backing)
    {
        (_header, _baseName, _forRepair) = (header, baseName, forRepair);
        _session = new MetadataSession(file);
        _bitmaps = new MetadataCache(_session.Order, header.BitmapBytes, CacheBytes);
        _catalog = new BlockTable<LittleBlockEntry>(_session.Order);
        _layout = new BochsLayout(file, header, _catalog, place => _bitmaps.Forget(place, header.BitmapBytes));
        _maintenance = new BlockMaintenance(_session, _layout);
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => _header.DiskSize;

    public override bool IsReadOnly { get; }

    protected override int AllocationUnit => BochsHeader.SectorSize;

    private bool IsOverlay => _header.Subtype != BochsSubtype.Growing;

    /// <summary>Reads the catalog. The file and the base image are the node's on success.</summary>
    public static async ValueTask<BochsNode> OpenAsync(
        BlockNode file, BlockNode? backing, BochsHeader header, string? baseName, bool forRepair, CancellationToken cancellationToken)
    {
        var node = new BochsNode(file, backing, header, baseName, forRepair);
        await node._catalog.LoadAsync(header.CatalogOffset, header.Catalog, cancellationToken).ConfigureAwait(false);
        if (!file.IsReadOnly && !forRepair)
        {
            await node.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = BochsDriver.FormatName,
        ClusterSize = _header.Extent,
        BackingFile = _baseName,
        FormatSpecific = new BochsInfo
        {
            Subtype = _header.Subtype.ToString(),
            Version = _header.Version,
            CatalogEntries = _header.Catalog,
            BaseModified = _header.Subtype == BochsSubtype.Undoable ? FatTime(_header.Time) : null,
        },
    };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckedAsync(bytes, cancellationToken), cancellationToken);

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => StagedRepair.RunAsync(this, File, mode, CheckedAsync, bytes, cancellationToken), cancellationToken);

    long ITrialRepair.Grain => _header.Extent;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        BochsHeader header = await BochsHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        return await OpenAsync(file, backing: null, header, _baseName, forRepair, cancellationToken).ConfigureAwait(false);
    }

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            CheckReport before = await CheckAsync(cancellationToken).ConfigureAwait(false);
            if (before.Corruptions > 0 && mode == RepairMode.All)
            {
                _ = await _maintenance.RepairAsync(held, least: 0, cancellationToken).ConfigureAwait(false);
            }
            if (before.Leaks > 0 && (before.Corruptions == 0 || mode == RepairMode.All))
            {
                await _maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
            }
            return await CheckAsync(cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        long readable = 0;
        foreach ((int block, _) in _catalog.Used().Where(e => _layout.PlaceOf(e.Entry.Value) + _header.BlockBytes > File.Length))
        {
            (long offset, long length) = _layout.GuestRange(block);
            runs.Add(readable, Math.Min(offset, Length));
            readable = offset + length;
        }
        runs.Add(readable, Length);
        return new(runs.Runs);
    }

    ValueTask ITrialRepair.RequireUsableAsync() => default; // opening it for writing has done that

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => _session.RunAsync(
        async _ =>
        {
            _bitmaps.Clear();
            _coming.Clear();
            await _catalog.LoadAsync(_header.CatalogOffset, _header.Catalog, cancellationToken).ConfigureAwait(false);
            if (!_forRepair)
            {
                await PrepareAsync(cancellationToken).ConfigureAwait(false);
            }
        },
        cancellationToken);

    /// <summary>Drops extents of which no sector is there, or none that is not zero, and closes the gaps.</summary>
    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CompactAloneAsync(bytes, cancellationToken), cancellationToken);

    private async ValueTask<long> CompactAloneAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long before = File.Length;
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                foreach ((int block, LittleBlockEntry entry) in _catalog.Used().ToArray())
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    long place = _layout.PlaceOf(entry.Value);
                    if (await StoredBytes.IsZeroAsync(File, place, _header.BitmapBytes, cancellationToken).ConfigureAwait(false)
                        || (!IsOverlay && await StoredBytes.IsZeroAsync(
                            File, place + _header.BitmapBytes, _header.Extent, cancellationToken).ConfigureAwait(false)))
                    {
                        await _layout.DropAsync(held, block).ConfigureAwait(false);
                        _bitmaps.Forget(place, _header.BitmapBytes);
                    }
                    bytes?.Report(_layout.GuestRange(block).Offset);
                }
                await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    }

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        for (int block = BlockOf(offset); block <= BlockOf(offset + length - 1); block++)
        {
            _ = await PlaceForWritingAsync(block).ConfigureAwait(false);
        }
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await ExtentOfAsync(offset, cancellationToken).ConfigureAwait(false);
        while (run.End < end && await ExtentOfAsync(run.End, cancellationToken).ConfigureAwait(false) is var next
            && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Length - offset) };
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        int block = BlockOf(offset);
        long start = (long)block * _header.Extent, within = offset - start, count = Math.Min(length, _header.Extent - within);
        if (_catalog[block].Value != LittleBlockEntry.Nowhere
            && await ExtentOfAsync(offset, cancellationToken).ConfigureAwait(false) is { IsData: true } extent)
        {
            return WriteMapping.InPlace(offset, Math.Min(count, extent.Length), File, extent.HostOffset!.Value);
        }
        long place = await PlaceForWritingAsync(block).ConfigureAwait(false), data = place + _header.BitmapBytes;
        if (_catalog[block].Value != LittleBlockEntry.Nowhere)
        {
            CachedPiece bitmap = await _bitmaps.GetAsync(place, cancellationToken).ConfigureAwait(false);
            int first = (int)(within / BochsHeader.SectorSize), run = RunOf(bitmap.Bytes, first, isSet: false);
            count = Math.Min(count, ((long)(first + run) * BochsHeader.SectorSize) - within);
        }
        return new(
            offset,
            count,
            File,
            data + within,
            IsNew: true,
            start + Round.Down(within, BochsHeader.SectorSize),
            start + Round.Up(within + count, BochsHeader.SectorSize),
            HostReadsZero: false);
    }

    protected override async ValueTask CommitMappingAsync(WriteMapping mapping)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        _session.Order.DataWritten(); // a bit is in the file after what it stands for
        int block = BlockOf(mapping.Offset);
        bool isNew = _coming.Remove(block, out long place);
        if (!isNew)
        {
            place = _layout.PlaceOf(_catalog[block].Value);
        }
        CachedPiece bitmap = isNew
            ? await _bitmaps.GetNewAsync(place).ConfigureAwait(false)
            : await _bitmaps.GetAsync(place, CancellationToken.None).ConfigureAwait(false);
        SetBits(bitmap, mapping.CopyStart, mapping.CopyEnd, isSet: true);
        if (isNew)
        {
            _catalog.Set(held, block, new(_layout.IndexOf(place)));
        }
    }

    // The extent keeps the place that it was promised; what was written there has no bit.
    protected override ValueTask AbandonMappingAsync(WriteMapping mapping) => default;

    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        if (IsOverlay)
        {
            return 0; // a sector without its bit would show the base
        }
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        return await ClearAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (IsOverlay)
        {
            return;
        }
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        for (long end = offset + length; offset < end;)
        {
            offset += await ClearAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
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
                await _session.RunAsync(
                    async held =>
                    {
                        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                        if (_coming.Count > 0) // promised, never written to
                        {
                            await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
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

    private static DateTime? FatTime(uint time)
    {
        int year = (int)(time >> 25) + 1980, month = (int)(time >> 21) & 15, day = (int)(time >> 16) & 31;
        int hour = (int)(time >> 11) & 31, minute = (int)(time >> 5) & 63, second = (int)(time & 31) * 2;
        return time != 0 && month is >= 1 and <= 12 && day >= 1 && day <= DateTime.DaysInMonth(year, month) && hour < 24 && minute < 60
            && second < 60
            ? new DateTime(year, month, day, hour, minute, second, DateTimeKind.Unspecified)
            : null;
    }

    /// <summary>How many sectors from one on are alike.</summary>
    private int RunOf(ReadOnlySpan<byte> bitmap, int first, bool isSet)
    {
        int at = first;
        while (at < _header.Sectors)
        {
            if ((at & 63) == 0 && at + 64 <= _header.Sectors)
            {
                ulong word = LittleEndian.U64(bitmap, at / 8);
                int same = BitOperations.TrailingZeroCount(isSet ? ~word : word);
                at += same;
                if (same < 64)
                {
                    break;
                }
            }
            else if (((bitmap[at / 8] >> (at & 7)) & 1) == (isSet ? 1 : 0))
            {
                at++;
            }
            else
            {
                break;
            }
        }
        return at - first;
    }

    private int BlockOf(long offset) => (int)(offset / _header.Extent);

    private async ValueTask<BlockExtent> ExtentOfAsync(long offset, CancellationToken cancellationToken)
    {
        int block = BlockOf(offset);
        if (_catalog[block].Value == LittleBlockEntry.Nowhere)
        {
            return new(offset, Math.Min((long)_catalog.NextUsed(block) * _header.Extent, Length) - offset, BlockStatus.None);
        }
        long place = _layout.PlaceOf(_catalog[block].Value);
        if (place + _header.BlockBytes > File.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: extent {block:#,0} (guest offset {(long)block * _header.Extent:#,0}) is said to be at offset "
                    + $"{place:#,0}, {_header.BlockBytes:#,0} bytes long,"
                    + $" but the file has {File.Length:#,0} bytes. Look at all of it with {new Remedy(RemedyKind.Check)}.",
                Name,
                place);
        }
        CachedPiece bitmap = await _bitmaps.GetAsync(place, cancellationToken).ConfigureAwait(false);
        long within = offset - ((long)block * _header.Extent);
        int sector = (int)(within / BochsHeader.SectorSize);
        bool isSet = ((bitmap.Bytes[sector / 8] >> (sector & 7)) & 1) != 0;
        long length = ((long)(sector + RunOf(bitmap.Bytes, sector, isSet)) * BochsHeader.SectorSize) - within;
        return isSet
            ? new(offset, length, BlockStatus.Allocated | BlockStatus.Data, File, place + _header.BitmapBytes + within)
            : new(offset, length, BlockStatus.None);
    }

    /// <summary>The place of an extent, which gets one behind all others if it has none.</summary>
    private async ValueTask<long> PlaceForWritingAsync(int block)
    {
        if (_forRepair)
        {
            throw new DiskImageException(DiskImageErrorKind.Corrupt, $"{Name}: opened for repair, so it is not written to", Name);
        }
        if (_catalog[block].Value is var entry && entry != LittleBlockEntry.Nowhere)
        {
            return _layout.PlaceOf(entry);
        }
        if (_coming.TryGetValue(block, out long place))
        {
            return place;
        }
        place = _next;
        if (File.Length < place + _header.BlockBytes)
        {
            await File.ResizeAsync(place + _header.BlockBytes).ConfigureAwait(false);
        }
        _next = place + _header.BlockBytes;
        _coming.Add(block, place);
        return place;
    }

    /// <summary>Takes the bits of whole sectors away, as far as one extent goes; the bytes done.</summary>
    private async ValueTask<long> ClearAsync(long offset, long length, CancellationToken cancellationToken)
    {
        BlockExtent extent = await ExtentOfAsync(offset, cancellationToken).ConfigureAwait(false);
        long count = Math.Min(length, extent.Length);
        if (extent.IsData)
        {
            CachedPiece bitmap = await _bitmaps.GetAsync(
                _layout.PlaceOf(_catalog[BlockOf(offset)].Value), cancellationToken).ConfigureAwait(false);
            SetBits(bitmap, offset, Round.Up(offset + count, BochsHeader.SectorSize), isSet: false);
            // whichever is seen after a crash
            await File.WriteZeroesAsync(extent.HostOffset!.Value, count, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
        }
        return count;
    }

    private void SetBits(CachedPiece bitmap, long start, long end, bool isSet)
    {
        int first = (int)(start % _header.Extent / BochsHeader.SectorSize);
        int last = (int)((end - 1) % _header.Extent / BochsHeader.SectorSize);
        for (int sector = first; sector <= last; sector++)
        {
            if ((sector & 7) == 0 && sector + 7 <= last)
            {
                bitmap.Bytes[sector / 8] = (byte)(isSet ? 0xFF : 0);
                sector += 7;
            }
            else
            {
                bitmap.Bytes[sector / 8] = (byte)(isSet
                    ? bitmap.Bytes[sector / 8] | (1 << (sector & 7))
                    : bitmap.Bytes[sector / 8] & ~(1 << (sector & 7)));
            }
        }
        _bitmaps.Changed(bitmap, first / 8, (last / 8) - (first / 8) + 1);
    }

    /// <summary>Refuses to write where a write could hit something else; finds where the next extent goes.</summary>
    private async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        (StoredBlock[] blocks, _) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        var findings = new CheckFindings();
        _ = _maintenance.Check(blocks, findings);
        if (findings.Corruptions > 0)
        {
            string what = findings.List.First(f => f.Severity == CheckSeverity.Corruption).Message;
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: {what}, so nothing can be written safely. Repair it with {new Remedy(RemedyKind.Repair)}.",
                Name);
        }
        _next = blocks.Length == 0 ? _header.DataOffset : blocks[^1].End;
    }

    private async ValueTask CloseGapsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _coming.Clear();
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await _maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, _) = await _maintenance.StoredAsync(CancellationToken.None).ConfigureAwait(false);
        _next = blocks.Length == 0 ? _header.DataOffset : blocks[^1].End;
    }

    private ValueTask<CheckReport> CheckedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => _session.CheckAsync(CheckAsync, bytes, Length, cancellationToken);

    private async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        (StoredBlock[] blocks, long fragmented) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = _maintenance.Check(blocks, findings);
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = Round.Units(Length, _header.Extent),
            AllocatedClusters = blocks.Length,
            FragmentedClusters = fragmented,
            CompressedClusters = 0,
            ImageEndOffset = end,
        };
    }
}
