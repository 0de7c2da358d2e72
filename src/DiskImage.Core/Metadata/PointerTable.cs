using System.Buffers.Binary;

namespace DiskImage.Metadata;

/// <summary>
/// A table of big-endian 64-bit entries that is kept in memory as a whole; changes are written back in the declared order.
/// </summary>
/// <remarks>Not thread-safe: the image's metadata lock guards it.</remarks>
internal sealed class PointerTable : MetadataStore
{
    private const int EntryBytes = 8;

    private byte[] _bytes = [];
    private int _dirtyStart = int.MaxValue, _dirtyEnd;

    public PointerTable(WriteOrder order)
        : base(order)
    {
    }

    /// <summary>Where the table begins in the file.</summary>
    public long HostOffset { get; private set; }

    /// <summary>Number of entries.</summary>
    public int Count => _bytes.Length / EntryBytes;

    /// <summary>How many of the entries, from the first on, are in the file; it may end before the table does.</summary>
    public int Stored { get; private set; }

    public override bool IsDirty => _dirtyEnd > _dirtyStart;

    /// <summary>An entry; setting one marks it changed.</summary>
    public ulong this[int index]
    {
        get => BinaryPrimitives.ReadUInt64BigEndian(_bytes.AsSpan(index * EntryBytes));
        set
        {
            BinaryPrimitives.WriteUInt64BigEndian(_bytes.AsSpan(index * EntryBytes), value);
            _dirtyStart = Math.Min(_dirtyStart, index * EntryBytes);
            _dirtyEnd = Math.Max(_dirtyEnd, (index + 1) * EntryBytes);
        }
    }

    /// <summary>Index of the first non-zero entry at or after <paramref name="index"/>; <see cref="Count"/> if there is none.</summary>
    public int NextUsed(int index)
    {
        int at = _bytes.AsSpan(index * EntryBytes).IndexOfAnyExcept((byte)0);
        return at < 0 ? Count : index + (at / EntryBytes);
    }

    /// <summary>Reads a table whose place and size the caller has checked. What lies past the end of the file is zero.</summary>
    public async ValueTask LoadAsync(long hostOffset, int count, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[count * EntryBytes];
        await TellAsync(Events.Load).ConfigureAwait(false);
        await File.ReadPaddedAsync(hostOffset, bytes, cancellationToken).ConfigureAwait(false);
        (_bytes, HostOffset) = (bytes, hostOffset);
        Stored = (int)Math.Clamp((File.Length - hostOffset) / EntryBytes, 0, count);
        (_dirtyStart, _dirtyEnd) = (int.MaxValue, 0);
    }

    /// <summary>The bytes as they are, or would be, in the file.</summary>
    public ReadOnlyMemory<byte> Bytes => _bytes;

    /// <summary>Replaces the whole table; the caller has written these bytes to <paramref name="hostOffset"/>.</summary>
    public void Replace(long hostOffset, byte[] bytes)
    {
        (_bytes, HostOffset, Stored) = (bytes, hostOffset, bytes.Length / EntryBytes);
        (_dirtyStart, _dirtyEnd) = (int.MaxValue, 0);
    }

    protected override async ValueTask WriteDirtyAsync()
    {
        await TellAsync(Events.Update).ConfigureAwait(false);
        await File.WriteAsync(HostOffset + _dirtyStart, _bytes.AsMemory(_dirtyStart.._dirtyEnd)).ConfigureAwait(false);
        (_dirtyStart, _dirtyEnd) = (int.MaxValue, 0);
    }
}
