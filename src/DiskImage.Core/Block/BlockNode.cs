namespace DiskImage.Block;

/// <summary>
/// A randomly addressable run of bytes: a file, a network export, a filter, or a formatted disk.
/// </summary>
/// <remarks>
/// Public members check range, read-only and emptiness once, make the request fit the node's <see cref="Binding"/>, and then call the
/// matching protected Core member, which may trust its arguments. All offsets and lengths are bytes. Every member may be called in
/// parallel with every other, except that nothing may run during or after <see cref="DisposeAsync"/>. Requests that overlap in time and
/// range complete in some order.
/// </remarks>
public abstract class BlockNode : IAsyncDisposable
{
    private int _disposed;
    private DiskImageException? _broken, _unsound; // the first causes: of failing for good, and of not being written to any more
    private CancellationTokenSource? _breaking;
    private BoundRequests? _bound;


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

    /// <summary>
    /// Which bytes these are, whatever they are called; null for a node that makes its bytes out of others', and where nobody can tell.
    /// </summary>
    public virtual NodeIdentity? Identity => null;

    /// <summary>Preferences of this node.</summary>
    public virtual BlockLimits Limits => BlockLimits.None;

    /// <summary>What requests must keep to when they reach this node's Core members. It never changes. Default: nothing.</summary>
    protected virtual BlockBinding Binding => default;

    /// <summary>False for a node that only borrows its children: closing it leaves them open.</summary>
    protected virtual bool OwnsChildren => true;

    /// <summary>The nodes this one stands on, by role ("file", "backing", "data-file").</summary>
    public virtual IReadOnlyDictionary<string, BlockNode> Children { get; } = new Dictionary<string, BlockNode>(StringComparer.Ordinal);

    /// <summary>Requests at once that keep it, and all that it stands on, busy; 0 where the processors decide.</summary>
    public int RequestsAtOnce => Children.Values.Select(c => c.RequestsAtOnce).Append(Limits.InFlight).Max();

    /// <summary>The node of one role, or null.</summary>
    public BlockNode? Child(string role) => Children.TryGetValue(role, out BlockNode? child) ? child : null;

    /// <summary>
    /// What this disk can do beyond reading and writing, be it a format's ability that a filter over it lets through; null if it cannot.
    /// </summary>
    /// <typeparam name="T">The ability's interface.</typeparam>
    public T? As<T>()
        where T : class
        => this as T ?? AbilityBelow<T>();

    /// <summary>Fills the whole buffer from <paramref name="offset"/>, or throws.</summary>
    /// <exception cref="DiskImageException">OutOfRange past <see cref="Length"/>; Io, Corrupt and others as they occur.</exception>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, buffer.Length, mayGrow: false);
        CheckWhole();
        return buffer.IsEmpty ? default
            : StackRoom.IsShort ? ReadElsewhereAsync(offset, buffer, cancellationToken)
            : Bound() is { } bound ? bound.ReadAsync(offset, buffer, cancellationToken) : ReadCoreAsync(offset, buffer, cancellationToken);
    }

    private async ValueTask ReadElsewhereAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await StackRoom.GoOn();
        await ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
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
        return buffer.IsEmpty ? default
            : Bound() is { } bound
                ? bound.WriteAsync(offset, buffer, cancellationToken)
                : WriteCoreAsync(offset, buffer, cancellationToken);
    }

    /// <summary>
    /// Like <see cref="WriteAsync"/>, and what is written would survive a power cut when this returns. What was written before may not.
    /// </summary>
    public async ValueTask WriteDurablyAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, buffer.Length, GrowsOnWrite);
        CheckWritable();
        if (!buffer.IsEmpty && !await TryWriteDurablyAsync(offset, buffer, cancellationToken).ConfigureAwait(false))
        {
            await WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            await FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Tells the node that a range is going to be read soon. Returns false if it cannot do anything ahead of that.
    /// </summary>
    public ValueTask<bool> PrefetchAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        CheckWhole();
        return PrefetchCoreAsync(offset, length, cancellationToken);
    }

    /// <summary>Returns the extent that starts at <paramref name="offset"/>; it is 1 to <paramref name="length"/> bytes long.</summary>
    public async ValueTask<BlockExtent> GetExtentAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        ArgumentOutOfRangeException.ThrowIfZero(length);
        CheckWhole();
        if (StackRoom.IsShort)
        {
            await StackRoom.GoOn();
        }
        BlockExtent extent = await GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        return extent.Length > length ? extent with { Length = length } : extent;
    }

    /// <summary>
    /// Fills a list with the extents from <paramref name="offset"/> on, each behind the other, until <paramref name="length"/> bytes are
    /// covered or the list is full. Returns how many there are, at least 1. Neighbours that are one run are one extent where that is free.
    /// </summary>
    public async ValueTask<int> GetExtentsAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        ArgumentOutOfRangeException.ThrowIfZero(length);
        ArgumentOutOfRangeException.ThrowIfZero(extents.Length, nameof(extents));
        CheckWhole();
        int count = await GetExtentsCoreAsync(offset, length, extents, cancellationToken).ConfigureAwait(false);
        BlockExtent last = extents.Span[count - 1];
        extents.Span[count - 1] = last with { Length = Math.Min(last.Length, offset + length - last.Offset) };
        return count;
    }

    /// <summary>Makes the range read as zeroes.</summary>
    public ValueTask WriteZeroesAsync(
        long offset, long length, ZeroWriteMode mode = ZeroWriteMode.MayUnmap, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, GrowsOnWrite);
        CheckWritable();
        return length == 0 ? default
            : Bound() is { } bound
                ? bound.WriteZeroesAsync(offset, length, mode, cancellationToken)
                : WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    /// <summary>
    /// Takes a range over from another node without its bytes passing through this process, as far as both sides and their host can. What
    /// is not done is unchanged; what lies past the end of the source is not. Nobody may write to the source meanwhile.
    /// </summary>
    /// <param name="offset">Where it is to be here.</param>
    /// <param name="source">The other node.</param>
    /// <param name="sourceOffset">Where it is there.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="how">What the host may do.</param>
    /// <param name="cancellationToken">Stops it at the next safe point.</param>
    public ValueTask<CopyOutcome> CopyFromAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        CheckRange(offset, length, GrowsOnWrite);
        CheckWritable();
        source.CheckWhole();
        length = Math.Min(length, source.Length - sourceOffset); // places may reach past the end of a file: reading them says what is there
        return length <= 0 || Bound() is not null ? default
            : CopyFromCoreAsync(offset, source, sourceOffset, length, how, cancellationToken);
    }

    /// <summary>
    /// Tells the node that the range's contents no longer matter. A hint: it may do nothing, and what reads back is undefined.
    /// </summary>
    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        CheckRange(offset, length, mayGrow: false);
        CheckWritable();
        return length == 0 ? default
            : Bound() is { } bound
                ? bound.DiscardAsync(offset, length, cancellationToken)
                : DiscardCoreAsync(offset, length, cancellationToken);
    }

    /// <summary>
    /// When this returns, everything written before the call survives a power cut. After a failure that lost something written, every later
    /// flush and every later change fails with the first cause.
    /// </summary>
    public ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        CheckWhole();
        if (IsReadOnly)
        {
            return default;
        }
        CheckSound();
        return FlushCoreAsync(cancellationToken);
    }

    /// <summary>Changes <see cref="Length"/>. New space reads as zeroes and is claimed as <paramref name="preallocation"/> says.</summary>
    public ValueTask ResizeAsync(
        long length, PreallocationMode preallocation = PreallocationMode.Off, CancellationToken cancellationToken = default)
        => ResizeAsync(length, preallocation, claimed: null, cancellationToken);

    /// <inheritdoc cref="ResizeAsync(long, PreallocationMode, CancellationToken)"/>
    /// <param name="length">The new length.</param>
    /// <param name="preallocation">How new space is claimed.</param>
    /// <param name="claimed">Told how many bytes are claimed so far, where that takes time.</param>
    /// <param name="cancellationToken">Stops it at the next safe point.</param>
    public ValueTask ResizeAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        CheckWritable();
        return Bound() is { } bound
            ? bound.ResizeAsync(length, preallocation, claimed, cancellationToken)
            : ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
    }

    /// <summary>
    /// Writes back what is cached and releases everything, children included, from the top down. All of it is closed, whatever fails; then
    /// the first failure is thrown, with any further ones in its <see cref="Exception.Data"/> as "Further".
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            if (StackRoom.IsShort)
            {
                await StackRoom.GoOn();
            }
            try
            {
                await Closing.AllAsync(Parts()).ConfigureAwait(false);
            }
            finally
            {
                _breaking?.Dispose();
                GC.SuppressFinalize(this);
            }
        }

        IEnumerable<Func<ValueTask>> Parts()
        {
            yield return CloseCoreAsync;
            foreach (BlockNode child in OwnsChildren ? Children.Values : [])
            {
                yield return child.DisposeAsync;
            }
        }
    }

    /// <summary>Fills a non-empty buffer from inside the node.</summary>
    protected abstract ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Writes a non-empty buffer.</summary>
    protected abstract ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Default: everything is stored data at the same offset. The answer may be longer than asked if that is free.</summary>
    protected virtual ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(offset, length, BlockStatus.Allocated | BlockStatus.Data, this, offset));

    /// <summary>Default: one after the other, joined where one carries the former on. The last may reach past what was asked.</summary>
    protected virtual async ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        int count = 0;
        for (long at = offset, end = offset + length; at < end;)
        {
            BlockExtent extent = await GetExtentCoreAsync(at, end - at, cancellationToken).ConfigureAwait(false);
            if (count > 0 && extents.Span[count - 1] is var last && last.IsContinuedBy(extent))
            {
                extents.Span[count - 1] = last with { Length = last.Length + extent.Length };
            }
            else if (count == extents.Length)
            {
                break;
            }
            else
            {
                extents.Span[count++] = extent;
            }
            at = extent.End;
        }
        return count;
    }

    /// <summary>Default: writes literal zeroes, a bounded buffer at a time.</summary>
    protected virtual async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        int size = (int)Math.Min(length, Math.Min(1 << 20, Binding.LargestTransfer));
        using var zeroes = new AlignedBuffer(size, Binding.MemoryAlignment);
        zeroes.Memory.Span.Clear();
        for (long end = offset + length; offset < end;)
        {
            int count = (int)Math.Min(size, end - offset);
            await WriteCoreAsync(offset, zeroes.Memory[..count], cancellationToken).ConfigureAwait(false);
            offset += count;
        }
    }

    /// <summary>
    /// Writes a range and makes it durable in one request, where the node can. It sees to what the node's binding asks. Default: it cannot.
    /// </summary>
    protected virtual ValueTask<bool> TryWriteDurablyAsync(
        long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken) => new(false);

    /// <summary>Default: nothing can be done ahead.</summary>
    protected virtual ValueTask<bool> PrefetchCoreAsync(long offset, long length, CancellationToken cancellationToken) => new(false);

    /// <summary>Default: it cannot be done.</summary>
    protected virtual ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
        => default;

    /// <summary>Default: the hint is not taken.</summary>
    protected virtual ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken) => default;

    /// <summary>Default: nothing is held back.</summary>
    protected virtual ValueTask FlushCoreAsync(CancellationToken cancellationToken) => default;

    /// <summary>Default: this node has a fixed length. A node that claims space tells <paramref name="claimed"/> how far it is.</summary>
    protected virtual ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: its length cannot be changed", Name);

    /// <summary>Writes back and releases what is this node's own; the children are closed afterwards. Default: nothing.</summary>
    protected virtual ValueTask CloseCoreAsync() => default;

    /// <summary>An ability of what is below that this node lets through. Default: none.</summary>
    protected virtual T? AbilityBelow<T>()
        where T : class
        => null;

    /// <summary>
    /// Poisons the node for good: a connection that is lost. Every later request fails with the first cause,
    /// and whatever waits on <see cref="Breaking"/> is woken.
    /// </summary>
    protected void Break(DiskImageException cause)
    {
        if (Interlocked.CompareExchange(ref _broken, cause, null) is null)
        {
            Interlocked.CompareExchange(ref _breaking, new CancellationTokenSource(), null);
            _breaking.Cancel();
        }
    }

    /// <summary>Cancelled when the node breaks: what a transport in flight waits on. Answer it with <see cref="CheckWhole"/>.</summary>
    protected CancellationToken Breaking
    {
        get
        {
            if (_breaking is null && Interlocked.CompareExchange(ref _breaking, new CancellationTokenSource(), null) is null
                && _broken is not null)
            {
                _breaking.Cancel();
            }
            return _breaking.Token;
        }
    }

    /// <summary>Throws the first cause if the node is broken.</summary>
    protected void CheckWhole()
    {
        if (Volatile.Read(ref _broken) is { } cause)
        {
            throw new DiskImageException(cause.Kind, cause.Message, cause.Path, cause.Offset, cause);
        }
    }

    /// <summary>What makes requests fit the node; null if any fits.</summary>
    private BoundRequests? Bound()
    {
        if (_bound is null && Binding is { IsFree: false } binding)
        {
            var made = new BoundRequests(
                this, binding, new(ReadCoreAsync, WriteCoreAsync, WriteZeroesCoreAsync, DiscardCoreAsync, ResizeCoreAsync));
            _ = Interlocked.CompareExchange(ref _bound, made, null); // one only: its range lock is shared
        }
        return _bound;
    }

    /// <summary>
    /// Ends all writing to this node: what was written may be lost, so nothing may be written, and nothing given back, on the strength of
    /// it. Reading goes on. The first cause stays. Also for a node whose contents lead to what another could not make durable.
    /// </summary>
    protected internal void BreakWriting(DiskImageException cause) => _ = Interlocked.CompareExchange(ref _unsound, cause, null);

    private void CheckSound()
    {
        if (Volatile.Read(ref _unsound) is { } cause)
        {
            throw new DiskImageException(
                cause.Kind,
                $"{Name}: is not written to any more, because what was written before may be lost. First failure: {cause.Message}",
                Name,
                cause.Offset,
                cause);
        }
    }

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

    /// <summary>Throws if the node is not for writing, or not any more.</summary>
    protected void CheckWritable()
    {
        CheckWhole();
        if (IsReadOnly)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so it cannot be changed", Name);
        }
        CheckSound();
    }
}
