using System.Buffers;

namespace DiskImage.Block;

/// <summary>
/// A randomly addressable run of bytes: a file, a network export, a filter, or a formatted disk.
/// </summary>
/// <remarks>
/// Public members check range, read-only and emptiness once and then call the matching protected Core member, which may
/// trust its arguments. All offsets and lengths are bytes. Every member may be called in parallel with every other, except
/// that nothing may run during or after <see cref="DisposeAsync"/>. Requests that overlap in time and range complete in
/// some order.
/// </remarks>
public abstract class BlockNode : IAsyncDisposable
{
    private int _disposed;

    /// <summary>What the node is called in messages: a path or URI for a protocol, the same path for the format above it.</summary>
    public abstract string Name { get; }

    /// <summary>Bytes that can be read.</summary>
    public abstract long Length { get; }

    /// <summary>True if writing is refused.</summary>
    public abstract bool IsReadOnly { get; }

    /// <summary>True if a write may reach past <see cref="Length"/> and so makes the node longer, as files do and disks do not.</summary>
    public virtual bool GrowsOnWrite => false;

    /// <summary>Bytes of host storage that the node itself takes (holes not counted), where the host tells.</summary>
    public virtual long? AllocatedLength => null;

    /// <summary>When the bytes were last changed, where the host tells.</summary>
    public virtual DateTimeOffset? LastWriteTime => null;

    /// <summary>Which bytes these are, whatever they are called; null for a node that makes its bytes out of others', and where nobody can tell.</summary>
    public virtual NodeIdentity? Identity => null;

    /// <summary>Preferences of this node.</summary>
    public virtual BlockLimits Limits => BlockLimits.None;

    /// <summary>The nodes this one stands on, by role ("file", "backing", "data-file").</summary>
    public virtual IReadOnlyDictionary<string, BlockNode> Children { get; } = new Dictionary<string, BlockNode>(StringComparer.Ordinal);

    /// <summary>The node of one role, or null.</summary>
    public BlockNode? Child(string role) => Children.TryGetValue(role, out BlockNode? child) ? child : null;

    /// <summary>Fills the whole buffer from <paramref name="offset"/>, or throws.</summary>
    /// <exception cref="DiskImageException">OutOfRange past <see cref="Length"/>; Io, Corrupt and others as they occur.</exception>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, buffer.Length, mayGrow: false);
        return buffer.IsEmpty ? default : ReadCoreAsync(offset, buffer, cancellationToken);
    }

    /// <summary>Like <see cref="ReadAsync"/>, but what lies past <see cref="Length"/> is filled with zeroes.</summary>
    public async ValueTask ReadPaddedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        int inside = (int)Math.Clamp(Length - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        if (inside > 0)
        {
            await ReadAsync(offset, buffer[..inside], cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Writes the whole buffer at <paramref name="offset"/>, or throws. Not durable until <see cref="FlushAsync"/>.</summary>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, buffer.Length, GrowsOnWrite);
        CheckWritable();
        return buffer.IsEmpty ? default : WriteCoreAsync(offset, buffer, cancellationToken);
    }

    /// <summary>Returns the extent that starts at <paramref name="offset"/>; it is 1 to <paramref name="length"/> bytes long.</summary>
    public async ValueTask<BlockExtent> GetExtentAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        ArgumentOutOfRangeException.ThrowIfZero(length);
        BlockExtent extent = await GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        return extent.Length > length ? extent with { Length = length } : extent;
    }

    /// <summary>Makes the range read as zeroes.</summary>
    public ValueTask WriteZeroesAsync(
        long offset, long length, ZeroWriteMode mode = ZeroWriteMode.MayUnmap, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, GrowsOnWrite);
        CheckWritable();
        return length == 0 ? default : WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    /// <summary>Tells the node that the range's contents no longer matter. A hint: it may do nothing, and what reads back is undefined.</summary>
    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        CheckWritable();
        return length == 0 ? default : DiscardCoreAsync(offset, length, cancellationToken);
    }

    /// <summary>When this returns, everything written before the call survives a power cut.</summary>
    public ValueTask FlushAsync(CancellationToken cancellationToken = default) => IsReadOnly ? default : FlushCoreAsync(cancellationToken);

    /// <summary>Changes <see cref="Length"/>. New space reads as zeroes and is claimed as <paramref name="preallocation"/> says.</summary>
    public ValueTask ResizeAsync(
        long length, PreallocationMode preallocation = PreallocationMode.Off, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        CheckWritable();
        return ResizeCoreAsync(length, preallocation, cancellationToken);
    }

    /// <summary>Writes back what is cached and releases everything, children included. Failures to write back throw.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            await CloseCoreAsync().ConfigureAwait(false);
        }
        GC.SuppressFinalize(this);
    }

    /// <summary>Fills a non-empty buffer from inside the node.</summary>
    protected abstract ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Writes a non-empty buffer.</summary>
    protected abstract ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Default: everything is stored data at the same offset. The answer may be longer than asked if that is free.</summary>
    protected virtual ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(offset, length, BlockStatus.Allocated | BlockStatus.Data, this, offset));

    /// <summary>Default: writes literal zeroes, a bounded buffer at a time.</summary>
    protected virtual async ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        int size = (int)Math.Min(length, 1 << 20);
        byte[] zeroes = ArrayPool<byte>.Shared.Rent(size);
        try
        {
            zeroes.AsSpan(0, size).Clear();
            for (long end = offset + length; offset < end;)
            {
                int count = (int)Math.Min(size, end - offset);
                await WriteCoreAsync(offset, zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                offset += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(zeroes);
        }
    }

    /// <summary>Default: the hint is not taken.</summary>
    protected virtual ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken) => default;

    /// <summary>Default: nothing is held back.</summary>
    protected virtual ValueTask FlushCoreAsync(CancellationToken cancellationToken) => default;

    /// <summary>Default: this node has a fixed length.</summary>
    protected virtual ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: its length cannot be changed", Name);

    /// <summary>Default: nothing to release.</summary>
    protected virtual ValueTask CloseCoreAsync() => default;

    private void CheckRange(long offset, long length, bool mayGrow)
    {
        long end = mayGrow ? long.MaxValue : Length;
        if (offset < 0 || length < 0 || offset > end || length > end - offset) // written so that offset + length cannot overflow
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: {length:#,0} bytes at offset {offset:#,0} reach outside its {Length:#,0} bytes",
                Name,
                offset);
        }
    }

    private void CheckWritable()
    {
        if (IsReadOnly)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so it cannot be changed", Name);
        }
    }
}
