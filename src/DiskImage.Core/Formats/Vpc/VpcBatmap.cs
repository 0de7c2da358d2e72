using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// XenServer's batmap, right behind the block allocation table: a bit per block (the first in the highest bit) that says that all of its
/// sectors are there, so that their bitmap need not be read. Kept whole and true: a bit goes before its block does. Source: blktap's
/// libvhd. Not thread-safe: the disk's metadata lock guards it.
/// </summary>
internal sealed class VpcBatmap(WriteOrder order) : MetadataStore(order)
{
    private const int MaxBytes = VpcHeader.MaxEntries / 8, HeaderBytes = VpcGeometry.SectorSize;
    private const uint SignedSums = 0x0001_0001; // version 1.1 adds its bytes as signed ones
    private const int OffsetAt = 8, SectorsAt = 16, VersionAt = 20, ChecksumAt = 24;

    private byte[] _header = [];
    private byte[] _map = [];
    private bool _isChanged;

    /// <summary>The disk has a batmap.</summary>
    public bool Exists => _header.Length > 0;

    /// <summary>Where its header is.</summary>
    public long HeaderOffset { get; private set; }

    /// <summary>Where the bits are.</summary>
    public long MapOffset => (long)BigEndian.U64(_header, OffsetAt);

    /// <summary>Bytes of header and bits, whole sectors; 0 if there is none.</summary>
    public long Bytes => Exists ? HeaderBytes + _map.Length : 0;

    /// <summary>The checksum in the file is the right one.</summary>
    public bool IsChecksumRight { get; private set; } = true;

    public override bool IsDirty => _isChanged;

    private static ReadOnlySpan<byte> Cookie => "tdbatmap"u8;

    /// <summary>The parts of the file that it takes.</summary>
    public IEnumerable<FileRange> Regions => !Exists ? [] :
    [
        new(HeaderOffset, HeaderOffset + HeaderBytes, "the batmap's header"),
        new(MapOffset, MapOffset + _map.Length, "the batmap"),
    ];

    /// <summary>True if all sectors of a block are said to be there.</summary>
    public bool IsWhole(int block) => block / 8 < _map.Length && VpcBits.Get(_map, block);

    /// <summary>Reads the batmap, if one stands behind the table.</summary>
    public async ValueTask LoadAsync(BlockNode file, long tableEnd, CancellationToken cancellationToken)
    {
        (_header, _map, HeaderOffset, IsChecksumRight, _isChanged) = ([], [], 0, true, false);
        byte[] header = new byte[HeaderBytes];
        await file.ReadPaddedAsync(tableEnd, header, cancellationToken).ConfigureAwait(false);
        long bytes = BigEndian.U32(header, SectorsAt) * (long)VpcGeometry.SectorSize;
        ulong at = BigEndian.U64(header, OffsetAt);
        if (!header.AsSpan().StartsWith(Cookie) || bytes is 0 or > MaxBytes || at < VpcFooter.Length || at % VpcGeometry.SectorSize != 0
            || at > (ulong)file.Length || bytes > file.Length - (long)at)
        {
            return;
        }
        byte[] map = new byte[bytes];
        await file.ReadAsync((long)at, map, cancellationToken).ConfigureAwait(false);
        (_header, _map, HeaderOffset) = (header, map, tableEnd);
        IsChecksumRight = BigEndian.U32(header, ChecksumAt) == Checksum();
    }

    /// <summary>A block is about to lose its place: it is not whole any more.</summary>
    public void Clear(int block)
    {
        if (IsWhole(block))
        {
            _map[block >> 3] &= (byte)~(0x80 >> (block & 7));
            _isChanged = true;
        }
    }

    /// <summary>No block is said to be whole; the bitmaps of all are looked at then.</summary>
    public void ClearAll()
    {
        _map.AsSpan().Clear();
        _isChanged = Exists;
    }

    /// <summary>Bytes that it takes with bits for a number of blocks.</summary>
    public long BytesFor(int blocks)
        => !Exists ? 0 : HeaderBytes + Math.Max(_map.Length, Round.Up(Round.Units(blocks, 8), VpcGeometry.SectorSize));

    /// <summary>Puts it in another place, with another length. The place is free; what leads there is the table's length.</summary>
    public async ValueTask MoveAsync(long tableEnd, long bytes)
    {
        if (Exists)
        {
            Array.Resize(ref _map, (int)(bytes - HeaderBytes));
            HeaderOffset = tableEnd;
            BigEndian.U64(_header, OffsetAt, (ulong)(tableEnd + HeaderBytes));
            BigEndian.U32(_header, SectorsAt, (uint)(_map.Length / VpcGeometry.SectorSize));
            await WriteDirtyAsync().ConfigureAwait(false);
        }
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        BigEndian.U32(_header, ChecksumAt, Checksum());
        await File.WriteAsync(MapOffset, _map).ConfigureAwait(false);
        await File.WriteAsync(HeaderOffset, _header).ConfigureAwait(false);
        (_isChanged, IsChecksumRight) = (false, true);
    }

    private uint Checksum()
    {
        bool isSigned = BigEndian.U32(_header, VersionAt) == SignedSums;
        uint sum = 0;
        foreach (byte value in _map)
        {
            sum += isSigned ? (uint)(sbyte)value : value;
        }
        return ~sum;
    }
}
