using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// The block allocation table: for each block the sector where it begins (with its bitmap), or <see cref="Unused"/>. Kept in memory as a
/// whole. Spec: "Block Allocation Table and Data Blocks". Not thread-safe: the disk's metadata lock guards it.
/// </summary>
internal sealed class VpcBat(WriteOrder order) : MetadataStore(order)
{
    /// <summary>The entry of a block that is not in the file.</summary>
    public const uint Unused = uint.MaxValue;

    private const int EntryBytes = 4, PieceBytes = VpcGeometry.SectorSize;

    private readonly SortedSet<int> _changed = []; // pieces of a sector
    private byte[] _bytes = [];
    private long _offset;

    /// <summary>Entries: those of the disk's blocks, and what the table has behind them.</summary>
    public int Count => _bytes.Length / EntryBytes;

    public override bool IsDirty => _changed.Count > 0;

    public uint this[int block]
    {
        get => BigEndian.U32(_bytes, block * EntryBytes);
        set
        {
            BigEndian.U32(_bytes, block * EntryBytes, value);
            _ = _changed.Add(block * EntryBytes / PieceBytes);
        }
    }

    /// <summary>Where a block begins in the file; null if it is not there.</summary>
    public long? OffsetOf(int block) => this[block] is var entry && entry != Unused ? (long)entry * VpcGeometry.SectorSize : null;

    /// <summary>The first block at or after <paramref name="block"/> that is in the file; <see cref="Count"/> if there is none.</summary>
    public int NextUsed(int block)
    {
        int at = _bytes.AsSpan(block * EntryBytes).IndexOfAnyExcept((byte)0xFF);
        return at < 0 ? Count : block + (at / EntryBytes);
    }

    /// <summary>Reads a table whose place and size are checked.</summary>
    public async ValueTask LoadAsync(BlockNode file, long offset, int count, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[count * EntryBytes];
        await file.ReadAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
        (_bytes, _offset) = (bytes, offset);
        _changed.Clear();
    }

    /// <summary>Takes an entry that cannot be a block for unused; in the file it stays until <see cref="Rewrite"/>.</summary>
    public void SetAside(int block) => BigEndian.U32(_bytes, block * EntryBytes, Unused);

    /// <summary>Has the entries from one on written as they are here.</summary>
    public void Rewrite(int block)
    {
        for (int piece = block * EntryBytes / PieceBytes; piece * PieceBytes < _bytes.Length; piece++)
        {
            _ = _changed.Add(piece);
        }
    }

    /// <summary>Makes the table longer or shorter in memory; new entries are unused. The file has room for them and says the same.</summary>
    public void SetCount(int count)
    {
        int old = _bytes.Length;
        Array.Resize(ref _bytes, count * EntryBytes);
        if (_bytes.Length > old)
        {
            _bytes.AsSpan(old).Fill(0xFF);
        }
        _ = _changed.RemoveWhere(piece => piece * PieceBytes >= _bytes.Length);
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        while (_changed.Count > 0)
        {
            int first = _changed.Min, end = first + 1;
            while (_changed.Contains(end))
            {
                end++;
            }
            int start = first * PieceBytes, stop = Math.Min(end * PieceBytes, _bytes.Length);
            await File.WriteAsync(_offset + start, _bytes.AsMemory(start..stop)).ConfigureAwait(false);
            for (int piece = first; piece < end; piece++)
            {
                _ = _changed.Remove(piece);
            }
        }
    }
}
