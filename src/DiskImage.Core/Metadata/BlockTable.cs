using System.Buffers.Binary;

namespace DiskImage.Metadata;

/// <summary>How a block table spells its entries.</summary>
internal interface IBlockEntry<TSelf>
    where TSelf : struct, IBlockEntry<TSelf>
{
    /// <summary>Bytes of an entry.</summary>
    static abstract int Size { get; }

    /// <summary>The byte that an entry of a block that is nowhere is made of.</summary>
    static abstract byte Filler { get; }

    /// <summary>Reads an entry.</summary>
    static abstract TSelf Read(ReadOnlySpan<byte> bytes);

    /// <summary>Writes this entry.</summary>
    void Write(Span<byte> bytes);
}

/// <summary>
/// A table from block number to entry that is kept in memory as a whole; sectors with changes are written back in the declared order.
/// </summary>
/// <remarks>The session's lock guards it; reading it takes the lock as well.</remarks>
internal sealed class BlockTable<TEntry>(WriteOrder order) : MetadataStore(order)
    where TEntry : struct, IBlockEntry<TEntry>
{
    private const int PieceBytes = 512; // written together

    private readonly SortedSet<int> _changed = [];
    private byte[] _bytes = [];

    /// <summary>Where the table begins in the file.</summary>
    public long HostOffset { get; private set; }

    /// <summary>Entries.</summary>
    public int Count => _bytes.Length / TEntry.Size;

    public override bool IsDirty => _changed.Count > 0;

    /// <summary>The bytes as they are, or would be, in the file.</summary>
    public ReadOnlyMemory<byte> Bytes => _bytes;

    /// <summary>The entry of a block.</summary>
    public TEntry this[int block] => TEntry.Read(_bytes.AsSpan(block * TEntry.Size, TEntry.Size));

    /// <summary>Changes the entry of a block.</summary>
    public void Set(MetadataSession.Held held, int block, TEntry entry)
    {
        _ = held; // the proof is all that is wanted
        entry.Write(_bytes.AsSpan(block * TEntry.Size, TEntry.Size));
        _ = _changed.Add(block * TEntry.Size / PieceBytes);
    }

    /// <summary>Makes a block nowhere.</summary>
    public void Clear(MetadataSession.Held held, int block)
    {
        _ = held;
        SetAside(block);
        _ = _changed.Add(block * TEntry.Size / PieceBytes);
    }

    /// <summary>The first block at or after one that is not nowhere; <see cref="Count"/> if there is none.</summary>
    public int NextUsed(int block)
    {
        int at = _bytes.AsSpan(block * TEntry.Size).IndexOfAnyExcept(TEntry.Filler);
        return at < 0 ? Count : block + (at / TEntry.Size);
    }

    /// <summary>The blocks that are not nowhere, in order.</summary>
    public IEnumerable<(int Block, TEntry Entry)> Used()
    {
        for (int block = NextUsed(0); block < Count; block = NextUsed(block + 1))
        {
            yield return (block, this[block]);
        }
    }

    /// <summary>Reads a table whose place and size the caller has checked.</summary>
    public async ValueTask LoadAsync(long hostOffset, int count, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[checked(count * TEntry.Size)];
        await File.ReadAsync(hostOffset, bytes, cancellationToken).ConfigureAwait(false);
        Replace(hostOffset, bytes);
    }

    /// <summary>Takes a table in place of this one: it is in the file already.</summary>
    public void Replace(long hostOffset, byte[] bytes)
    {
        (_bytes, HostOffset) = (bytes, hostOffset);
        _changed.Clear();
    }

    /// <summary>Takes an entry that cannot be a block for nowhere; in the file it stays until <see cref="Rewrite"/>.</summary>
    public void SetAside(int block) => _bytes.AsSpan(block * TEntry.Size, TEntry.Size).Fill(TEntry.Filler);

    /// <summary>Has the entries from one on written as they are here.</summary>
    public void Rewrite(MetadataSession.Held held, int block)
    {
        _ = held;
        MarkChanged(block * TEntry.Size);
    }

    /// <summary>Makes the table longer or shorter; new blocks are nowhere. The file has room for it.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="count">Entries.</param>
    /// <param name="isInFile">True if the file says the same already, so that nothing is to be written.</param>
    public void SetCount(MetadataSession.Held held, int count, bool isInFile = false)
    {
        _ = held;
        int old = _bytes.Length;
        Array.Resize(ref _bytes, checked(count * TEntry.Size));
        if (_bytes.Length > old)
        {
            _bytes.AsSpan(old).Fill(TEntry.Filler);
            if (!isInFile)
            {
                MarkChanged(old);
            }
        }
        _ = _changed.RemoveWhere(piece => piece * PieceBytes >= _bytes.Length);
    }

    private void MarkChanged(int from)
    {
        for (int piece = from / PieceBytes; piece * PieceBytes < _bytes.Length; piece++)
        {
            _ = _changed.Add(piece);
        }
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
            await File.WriteAsync(HostOffset + start, _bytes.AsMemory(start..stop)).ConfigureAwait(false);
            for (int piece = first; piece < end; piece++)
            {
                _ = _changed.Remove(piece);
            }
        }
    }
}

/// <summary>An entry that is a number of 32 bits, little-endian, 0xFFFFFFFF for a block that is nowhere.</summary>
internal readonly record struct LittleBlockEntry(uint Value) : IBlockEntry<LittleBlockEntry>
{
    /// <summary>The value of a block that is nowhere.</summary>
    public const uint Nowhere = uint.MaxValue;

    public static int Size => sizeof(uint);

    public static byte Filler => 0xFF;

    public static LittleBlockEntry Read(ReadOnlySpan<byte> bytes) => new(BinaryPrimitives.ReadUInt32LittleEndian(bytes));

    public void Write(Span<byte> bytes) => BinaryPrimitives.WriteUInt32LittleEndian(bytes, Value);
}

/// <summary>An entry that is a number of 32 bits, big-endian, 0xFFFFFFFF for a block that is nowhere.</summary>
internal readonly record struct BigBlockEntry(uint Value) : IBlockEntry<BigBlockEntry>
{
    /// <summary>The value of a block that is nowhere.</summary>
    public const uint Nowhere = uint.MaxValue;

    public static int Size => sizeof(uint);

    public static byte Filler => 0xFF;

    public static BigBlockEntry Read(ReadOnlySpan<byte> bytes) => new(BinaryPrimitives.ReadUInt32BigEndian(bytes));

    public void Write(Span<byte> bytes) => BinaryPrimitives.WriteUInt32BigEndian(bytes, Value);
}
