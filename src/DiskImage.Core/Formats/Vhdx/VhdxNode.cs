using System.Runtime.InteropServices;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// A VHDX disk. This part: its state, and reading: guest offset → BAT entry → payload block, by way of the sector bitmap where a
/// block is partially present. Spec: MS-VHDX 2.4, 2.5.
/// </summary>
/// <remarks>
/// <para><c>_gate</c> is the metadata lock: it guards the headers, the cache, the log and the space map, and is held for look-ups and
/// updates in memory and for the metadata I/O they cause, never for guest data.</para>
/// <para>A new block is made to read as its predecessor did before the BAT points to it: zeroes in a disk without parent, "see the
/// parent" in a differencing one (partially present, with no sector set). So allocating changes nothing that can be seen, it is done
/// at once, and requests for different parts of a block need not wait for each other. What a write then changes is the data, or the
/// bits of its sectors, and those are set after the data is written.</para>
/// <para>Order of writes: guest data; then, through the log, bitmaps before the BAT, and the BAT from its end, where the entry of a
/// bitmap block comes before those of its payload blocks. What loses its last reference is used again after that. A crash leaks
/// space at most.</para>
/// </remarks>
internal sealed partial class VhdxNode : FormatNode, IDescribed, IFragmented
{
    private const int MaxRun = 1 << 16; // extents joined into one answer; ours
    private const long MostBatToCount = 16 << 20; // read to tell how scattered the blocks lie: 64 TiB in blocks of 32 MiB. Ours

    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly MetadataCache _cache;
    private readonly VhdxOpenOptions _options;
    private readonly string _creator;
    private readonly bool _hadLog;
    private VhdxHeader _header;
    private int _headerIndex;
    private VhdxRegionTable _regions;
    private VhdxMetadata _metadata;
    private VhdxGeometry _geometry;

    private VhdxNode(BlockNode file, BlockNode? backing, VhdxImage image, VhdxOpenOptions options)
        : base(file, backing)
    {
        (_header, _headerIndex, _regions, _metadata) = (image.Headers.Current, image.Headers.CurrentIndex, image.Regions, image.Metadata);
        (_options, _creator, _hadLog, LostLog) = (options, image.Creator, image.Log is not null || image.LostLog is not null, image.LostLog);
        _geometry = new VhdxGeometry(_metadata.BlockSize, _metadata.LogicalSectorSize, _metadata.VirtualSize);
        _cache = new MetadataCache(new WriteOrder(file), VhdxLayout.Sector, options.MetadataCacheSize, JournalAsync);
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => _geometry.VirtualSize;

    public override bool IsReadOnly { get; }

    // A block may be large, but its parts do not depend on each other: see the remarks.
    protected override int AllocationUnit => VhdxLayout.Sector;

    protected override int ZeroUnit => _geometry.SectorSize;

    // New blocks are holes until they are written.
    protected override bool DataMayBeSparse => true;

    internal VhdxMetadata Metadata => _metadata;

    internal VhdxHeader Header => _header;

    internal VhdxRegionTable Regions => _regions;

    internal VhdxGeometry Geometry => _geometry;

    /// <summary>Makes a disk of an image that has been read; replays its log if the file is open for writing. The children are the node's on success.</summary>
    public static async ValueTask<VhdxNode> OpenAsync(
        BlockNode file, BlockNode? backing, VhdxImage image, VhdxOpenOptions options, CancellationToken cancellationToken)
    {
        if (file.IsReadOnly)
        {
            return new VhdxNode(image.View, backing, image, options);
        }
        var node = new VhdxNode(file, backing, image, options);
        if (image.Log is { } log)
        {
            await node.ReplayAsync(log, cancellationToken).ConfigureAwait(false);
        }
        return node;
    }

    public ImageDescription Describe() => new()
    {
        Format = VhdxDriver.FormatName,
        ClusterSize = _metadata.BlockSize,
        BackingFile = _metadata.Locator?.LocalPaths.FirstOrDefault(),
        BackingFormat = _metadata.HasParent ? VhdxDriver.FormatName : null,
        Dirty = _hadLog,
        LogicalSectorSize = _metadata.LogicalSectorSize,
        PhysicalSectorSize = _metadata.PhysicalSectorSize,
        FormatSpecific = new VhdxInfo
        {
            Subformat = (_metadata.HasParent ? VhdxSubformat.Differencing : _metadata.IsFixed ? VhdxSubformat.Fixed : VhdxSubformat.Dynamic).ToString(),
            BlockSize = _metadata.BlockSize,
            LogicalSectorSize = _metadata.LogicalSectorSize,
            PhysicalSectorSize = _metadata.PhysicalSectorSize,
            VirtualDiskId = _metadata.VirtualDiskId,
            DataWriteGuid = _header.DataWriteGuid,
            LogSize = _header.LogLength,
            HasLog = _hadLog,
            Creator = _creator,
            ParentLinkage = _metadata.Locator?.Linkage,
            ParentPaths = _metadata.Locator is { } locator ? [.. locator.Paths] : [],
        },
    };

    public async ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken)
    {
        if (_geometry.EntriesWithoutBitmaps * VhdxGeometry.EntryBytes > MostBatToCount)
        {
            return null;
        }
        var fragments = new FragmentCounter();
        await UnderGateAsync(async () =>
        {
            if (!IsReadOnly)
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            }
            await EachBatPartAsync(_geometry.EntriesWithoutBitmaps, (firstIndex, entries) =>
            {
                for (int i = 0; i < entries.Length / VhdxGeometry.EntryBytes; i++)
                {
                    var entry = new BatEntry(LittleEndian.U64(entries.Span, i * VhdxGeometry.EntryBytes));
                    if (entry.IsStored && !_geometry.IsBitmapIndex(firstIndex + i))
                    {
                        fragments.Add(entry.FileOffset, _geometry.BlockSize);
                    }
                }
            }, cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        return fragments.Percentage;
    }

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        if (!IsReadOnly)
        {
            await UnderGateAsync(() => FlushLockedAsync(cancellationToken)).ConfigureAwait(false);
        }
        return await new VhdxChecker(File, this, bytes, cancellationToken).RunAsync().ConfigureAwait(false);
    });

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            long end = Math.Min(Length, offset + length);
            BlockExtent run = await MapPieceAsync(offset, end, cancellationToken).ConfigureAwait(false);
            for (int i = 0; run.End < end && i < MaxRun; i++)
            {
                BlockExtent next = await MapPieceAsync(run.End, end, cancellationToken).ConfigureAwait(false);
                if (!run.IsContinuedBy(next))
                {
                    break;
                }
                run = run with { Length = run.Length + next.Length };
            }
            return run;
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>The extent at an offset, as far as one block, or a run of blocks without place, tells.</summary>
    private async ValueTask<BlockExtent> MapPieceAsync(long offset, long end, CancellationToken cancellationToken)
    {
        long block = _geometry.BlockOf(offset), blockEnd = _geometry.StartOf(block) + _geometry.BytesOf(block);
        (BatEntry entry, int blocks) = await EntryRunAsync(block, cancellationToken).ConfigureAwait(false);
        switch (entry.State)
        {
            case BlockState.NotPresent:
                return new(offset, Math.Min(_geometry.StartOf(block + blocks), Length) - offset, BlockStatus.None);
            case BlockState.Zero or BlockState.Unmapped or BlockState.UnmappedOld or BlockState.Undefined:
                return new(offset, Math.Min(_geometry.StartOf(block + blocks), Length) - offset, BlockStatus.Allocated | BlockStatus.Zero);
            case BlockState.FullyPresent:
                RequirePayload(entry, block);
                return Stored(entry, offset, blockEnd - offset);
            case BlockState.PartiallyPresent when _metadata.HasParent:
                RequirePayload(entry, block);
                (bool isHere, long length) = await SectorRunAsync(block, offset, Math.Min(end, blockEnd), cancellationToken).ConfigureAwait(false);
                return isHere ? Stored(entry, offset, length) : new(offset, length, BlockStatus.None);
            default:
                throw Wrong(block, $"has the state {(int)entry.State}, which {(entry.State == BlockState.PartiallyPresent ? "only a differencing disk has" : "does not exist")}");
        }
    }

    private BlockExtent Stored(BatEntry entry, long offset, long length)
        => new(offset, length, BlockStatus.Allocated | BlockStatus.Data, File, entry.FileOffset + _geometry.InBlock(offset));

    /// <summary>An entry of the BAT.</summary>
    private async ValueTask<BatEntry> EntryAsync(long index, CancellationToken cancellationToken)
    {
        long at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await _cache.GetAsync(_regions.Bat.Offset + Round.Down(at, VhdxLayout.Sector), cancellationToken).ConfigureAwait(false);
        return new(LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector)));
    }

    /// <summary>The entry of a payload block, and how many blocks from it on have the same one, as far as a piece of the BAT shows.</summary>
    private async ValueTask<(BatEntry Entry, int Blocks)> EntryRunAsync(long block, CancellationToken cancellationToken)
    {
        long index = _geometry.PayloadIndex(block), at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await _cache.GetAsync(_regions.Bat.Offset + Round.Down(at, VhdxLayout.Sector), cancellationToken).ConfigureAwait(false);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(piece.Bytes.AsSpan((int)(at % VhdxLayout.Sector)));
        long toBitmap = _geometry.BitmapIndex(_geometry.ChunkOf(block)) - index;
        words = words[..(int)Math.Min(Math.Min(words.Length, toBitmap), _geometry.Blocks - block)];
        int alike = words.IndexOfAnyExcept(words[0]);
        return (new(LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector))), alike < 0 ? words.Length : alike);
    }

    /// <summary>Whether a sector of a partially present block is in this file, and how many bytes from an offset on are alike.</summary>
    private async ValueTask<(bool IsHere, long Length)> SectorRunAsync(long block, long offset, long end, CancellationToken cancellationToken)
    {
        long bitmap = await BitmapAsync(block, cancellationToken).ConfigureAwait(false);
        int first = _geometry.BitOf(offset), inPage = first % (VhdxLayout.Sector * 8);
        CachedPiece piece = await _cache.GetAsync(bitmap + Round.Down(first / 8, VhdxLayout.Sector), cancellationToken).ConfigureAwait(false);
        long sectors = Round.Units(end, _geometry.SectorSize) - (offset / _geometry.SectorSize);
        int run = VhdxBits.Run(piece.Bytes, inPage, (int)Math.Min(inPage + sectors, VhdxLayout.Sector * 8), out bool isHere);
        return (isHere, Math.Min(((offset / _geometry.SectorSize) + run) * _geometry.SectorSize, end) - offset);
    }

    /// <summary>Where the sector bitmap block of a partially present block lies.</summary>
    private async ValueTask<long> BitmapAsync(long block, CancellationToken cancellationToken)
    {
        long index = _geometry.BitmapIndex(_geometry.ChunkOf(block));
        if (!HasEntry(index))
        {
            throw Wrong(block, $"is partially present, and the BAT region has no room for entry {index}, that of its sector bitmap");
        }
        BatEntry entry = await EntryAsync(index, cancellationToken).ConfigureAwait(false);
        if (entry.State != BlockState.FullyPresent)
        {
            throw Wrong(block, $"is partially present, and its sector bitmap (entry {index}) has the state {(int)entry.State}; allowed: {(int)BlockState.FullyPresent}, present");
        }
        RequirePlace(entry.FileOffset, VhdxLayout.BitmapBlockSize, $"the sector bitmap of chunk {_geometry.ChunkOf(block)}");
        return entry.FileOffset;
    }

    private bool HasEntry(long index) => (index + 1) * VhdxGeometry.EntryBytes <= _regions.Bat.Length;

    private void RequirePayload(BatEntry entry, long block) => RequirePlace(entry.FileOffset, _geometry.BytesOf(block), $"payload block {block}");

    /// <summary>Refuses a block that lies outside the file or on one of its structures.</summary>
    private void RequirePlace(long offset, long length, string what)
    {
        if (offset < VhdxLayout.MiB || offset > File.Length - length)
        {
            throw VhdxLayout.Corrupt(
                Name, $"the BAT puts {what} at offset {offset:#,0}; allowed: after the first MiB, its {length:#,0} bytes inside the file's {File.Length:#,0}", offset);
        }
        if (StructureAt(offset, length) is { } structure)
        {
            throw VhdxLayout.Corrupt(Name, $"the BAT puts {what} at offset {offset:#,0}, where {structure} lies", offset);
        }
    }

    /// <summary>The structure of the file that a range meets; null for none.</summary>
    internal string? StructureAt(long offset, long length)
    {
        if (offset < _header.LogOffset + _header.LogLength && _header.LogOffset < offset + length)
        {
            return "the log";
        }
        IReadOnlyList<VhdxRegion> regions = _regions.Regions;
        for (int i = 0; i < regions.Count; i++)
        {
            if (regions[i].Overlaps(offset, length))
            {
                return regions[i].Name;
            }
        }
        return null;
    }

    private DiskImageException Wrong(long block, string what)
        => VhdxLayout.Corrupt(
            Name, $"payload block {block}, for guest offset {_geometry.StartOf(block):#,0}, {what}",
            _regions.Bat.Offset + (_geometry.PayloadIndex(block) * VhdxGeometry.EntryBytes));

    private async ValueTask UnderGateAsync(Func<ValueTask> action)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            await action().ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }
}
