using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// A dynamic or differencing disk. This part: its state, and reading: block → table → sector bitmap → file. Spec: "Dynamic Hard Disk
/// Image", "Differencing Hard Disk Image".
/// </summary>
/// <remarks>
/// <para>A sector whose bit is not set was never written: it is the parent's, or zero. QEMU takes every sector of a block that is there;
/// so places for blocks read as zeroes before their first bit is set, and both see the same.</para>
/// <para><c>_gate</c> is the metadata lock: it guards the headers, the table, the bitmaps and the allocator, and is held for look-ups and
/// updates in memory and for the metadata I/O they cause, never for guest data.</para>
/// <para>Order of writes: the footer behind new space, data, bitmaps, table, each behind a flush of the former. A block comes into the table with
/// an empty bitmap, so the table may know it before it holds anything. A crash leaks space at most.</para>
/// </remarks>
internal sealed partial class VpcNode
    : FormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable, IRebasable, IEmptiable, IFragmented
{
    private const long BitmapCacheBytes = 4 << 20; // the bitmaps of 16 GiB in blocks of 2 MiB. Ours
    private const int SectorsPerPiece = VpcGeometry.SectorSize * 8;

    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly WriteOrder _order;
    private readonly MetadataCache _bitmaps;
    private readonly VpcBatmap _batmap;
    private readonly VpcBat _bat;
    private readonly VpcSizeCalculation _calculation;
    private readonly bool _isSparse;
    private IReadOnlyList<VpcParentLocatorInfo> _locators = [];
    private string? _parentName;
    private VpcFooters _footers;
    private VpcHeader _header;
    private VpcLayout _layout;
    private VpcStaleEntries _stale = VpcStaleEntries.None;
    private long _length;

    private VpcNode(BlockNode file, BlockNode? backing, VpcFooters footers, VpcHeader header, VpcSizeCalculation calculation)
        : base(file, backing)
    {
        (_footers, _header, _calculation) = (footers, header, calculation);
        _order = new WriteOrder(file);
        _bitmaps = new MetadataCache(_order, VpcGeometry.SectorSize, BitmapCacheBytes);
        _batmap = new VpcBatmap(_order); // before the table: a bit goes before its block does
        _bat = new VpcBat(_order);
        _layout = new VpcLayout(footers.Best, header, file.Length);
        _length = VpcSize.Of(footers.Best, calculation);
        _isSparse = file.AllocatedLength < file.Length - (file.Length / 8);
        IsReadOnly = file.IsReadOnly;
    }

    public override long Length => Volatile.Read(ref _length);

    public override bool IsReadOnly { get; }

    /// <summary>Data is found and stored by the sector; 4096 spares the callers what the host would not thank them for.</summary>
    public override BlockLimits Limits => new(4096);

    // The table is changed under the gate and a block's bits by the sector, so requests in one block need not wait for each other.
    protected override int AllocationUnit => VpcGeometry.SectorSize;

    protected override bool DataMayBeSparse => _isSparse;

    private VpcFooter Footer => _footers.Best;

    private bool HasParent => Footer.DiskType == VpcDiskType.Differencing;

    private long BlockSize => _layout.BlockSize;

    /// <summary>Blocks of the disk; the table may have entries behind them.</summary>
    private int DiskBlocks => (int)_header.Blocks(Length);

    /// <summary>Where the larger of the disk's two sizes ends: nothing before it is unused.</summary>
    private long ClaimedEnd => Math.Max(Length, Footer.CurrentSize);

    /// <summary>Opens the table of a disk. The children are the node's on success.</summary>
    public static async ValueTask<VpcNode> OpenAsync(
        BlockNode file, VpcFooters footers, VpcHeader header, VpcOpenOptions options, BlockNode? backing, string? parentName, CancellationToken cancellationToken)
    {
        var node = new VpcNode(file, backing, footers, header, options.ForceSizeCalculation) { _parentName = parentName };
        await node.LoadAsync(cancellationToken).ConfigureAwait(false);
        return node;
    }

    /// <summary>Reads what the footers and the header lead to.</summary>
    private async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        if (Length > VpcSize.LargestDynamic)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{Name}: a size of {Length:#,0} bytes; a dynamic VHD has up to {VpcSize.LargestDynamic:#,0} (2040 GiB)", Name);
        }
        _header.RequireTable(Length, Name);
        await _bat.LoadAsync(File, _header.TableOffset, (int)Math.Min(_header.MaxTableEntries, VpcHeader.MaxEntries), cancellationToken).ConfigureAwait(false);
        await _batmap.LoadAsync(File, VpcLayout.TableEnd(_header.TableOffset, _header.MaxTableEntries), cancellationToken).ConfigureAwait(false);
        _layout = new VpcLayout(Footer, _header, File.Length, _batmap);
        _stale = VpcStaleEntries.SetAside(_bat, DiskBlocks, _layout, _footers.EndOffset(File.Length));
        if (HasParent)
        {
            _locators = await VpcParent.ReadLocatorsAsync(File, _header, cancellationToken).ConfigureAwait(false);
        }
    }

    public ImageDescription Describe()
    {
        VpcInfo info = VpcInfo.Of(_footers, _calculation) with { BlockSize = BlockSize, HeaderDamaged = !_header.IsChecksumRight };
        if (HasParent)
        {
            info = info with
            {
                ParentUniqueId = _header.ParentUniqueId,
                ParentModified = VpcFooter.Time(_header.ParentTimeStamp).UtcDateTime,
                ParentName = _header.ParentName,
                ParentLocators = _locators,
            };
        }
        return new()
        {
            Format = VpcDriver.FormatName,
            ClusterSize = BlockSize,
            BackingFile = HasParent ? _parentName : null,
            BackingFormat = HasParent ? VpcParent.FormatOf(_header) : null,
            Warnings = [.. new[] { VpcSize.Warning(Footer, _calculation), HasParent ? VpcParent.Warning(_header, Backing) : null }.OfType<string>()],
            FormatSpecific = info,
        };
    }

    public async ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken)
    {
        var fragments = new FragmentCounter();
        await UnderGateAsync(() =>
        {
            for (int block = _bat.NextUsed(0), end = Math.Min(_bat.Count, DiskBlocks); block < end; block = _bat.NextUsed(block + 1))
            {
                fragments.Add(_bat.OffsetOf(block)!.Value, _layout.Span);
            }
            return default;
        }).ConfigureAwait(false);
        return fragments.Percentage;
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            int block = BlockOf(offset);
            if (_bat.OffsetOf(block) is not long place)
            {
                return new(offset, Math.Min(Length, _bat.NextUsed(block) * BlockSize) - offset, BlockStatus.None);
            }
            RequireInside(block, place);
            long within = InBlock(offset);
            (bool isSet, long run) = await RunAsync(place, within, length, cancellationToken).ConfigureAwait(false);
            return isSet
                ? new(offset, run, BlockStatus.Allocated | BlockStatus.Data, File, place + _layout.BitmapBytes + within)
                : new(offset, run, BlockStatus.None);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private int BlockOf(long offset) => (int)(offset / BlockSize);

    private long InBlock(long offset) => offset & (BlockSize - 1);

    /// <summary>Whether the sector at a byte of a block is in the file, and for how many bytes that stays so: at least what is asked, if it does.</summary>
    private async ValueTask<(bool IsSet, long Run)> RunAsync(long place, long within, long length, CancellationToken cancellationToken)
    {
        long first = within / VpcGeometry.SectorSize, sectors = BlockSize / VpcGeometry.SectorSize;
        long wanted = (within + length + VpcGeometry.SectorSize - 1) / VpcGeometry.SectorSize;
        bool isSet = false;
        long sector = first;
        do
        {
            CachedPiece piece = await _bitmaps.GetAsync(PieceOf(place, sector), cancellationToken).ConfigureAwait(false);
            int index = (int)(sector % SectorsPerPiece);
            isSet = sector == first ? VpcBits.Get(piece.Bytes, index) : isSet;
            int end = (int)Math.Min(SectorsPerPiece, sectors - sector + index);
            int run = VpcBits.Run(piece.Bytes, index, end, isSet);
            sector += run;
            if (index + run < end)
            {
                break;
            }
        }
        while (sector < sectors && sector < wanted);
        return (isSet, (sector * VpcGeometry.SectorSize) - within);
    }

    /// <summary>Where the piece of the bitmap is that has a sector's bit.</summary>
    private static long PieceOf(long place, long sector) => place + (sector / SectorsPerPiece * VpcGeometry.SectorSize);

    private void RequireInside(int block, long place)
    {
        long limit = _footers.EndOffset(File.Length);
        if (place < VpcFooter.Length || _layout.Span > limit - place)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: block {block:#,0} (guest offset {block * BlockSize:#,0}) is said to be at offset {place:#,0}, {_layout.Span:#,0} bytes long,"
                    + $" but the blocks end at {limit:#,0}, where the footer or the file's end is. Look at all of it with Test-DiskImage.",
                Name,
                place);
        }
    }

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
