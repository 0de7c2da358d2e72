namespace DiskImage.Block;

/// <summary>
/// A disk whose bytes are found by mapping. A format answers one question, where does this layer keep these bytes; reading,
/// zero filling, falling through to the backing node, copy-on-write and reporting extents are written here, once.
/// </summary>
/// <remarks>
/// <para>A write runs in three steps: <see cref="EnsureMappedAsync"/> finds or reserves a place (under the format's own
/// lock), the data goes there together with whatever of the old contents the place must also hold (outside any lock), and
/// <see cref="CommitMappingAsync"/> makes the disk point to it. Until the last step readers and the image on disk still see
/// the old contents.</para>
/// <para>Requests that change or read the same allocation units are ordered by a range lock, so a place is never given away
/// while somebody reads or writes it. A read-only disk needs none.</para>
/// </remarks>
internal abstract partial class FormatNode : BlockNode
{
    private const int MostZeroes = 1 << 20; // bytes of zeroes in one step. Ours

    private readonly RangeLock _ranges = new();
    private readonly IDebugEvents? _debug;

    /// <summary>Takes over <paramref name="file"/>, <paramref name="backing"/> and any further children.</summary>
    protected FormatNode(BlockNode file, BlockNode? backing, params (string Role, BlockNode Node)[] others)
    {
        (File, Backing, _debug) = (file, backing, file.As<IDebugEvents>());
        var children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file };
        foreach ((string role, BlockNode node) in others)
        {
            children.Add(role, node);
        }
        if (backing is not null)
        {
            children.Add("backing", backing);
        }
        Children = children;
    }

    /// <summary>The node that holds the format's structures.</summary>
    protected internal BlockNode File { get; }

    /// <summary>The node that shows through where this layer says nothing.</summary>
    public BlockNode? Backing { get; }

    /// <inheritdoc/>
    public override string Name => File.Name;

    /// <inheritdoc/>
    public override DateTimeOffset? LastWriteTime => File.LastWriteTime;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, BlockNode> Children { get; }

    /// <summary>Bytes that are allocated, zeroed and discarded together: the range lock's grain.</summary>
    protected abstract int AllocationUnit { get; }

    /// <summary>The smallest aligned range that can be zeroed or discarded without writing. Default: the allocation unit.</summary>
    protected virtual int ZeroUnit => AllocationUnit;

    /// <summary>True if stored data is worth asking the node below whether it is a hole there (preallocated or raw data files).</summary>
    protected virtual bool DataMayBeSparse => false;

    /// <summary>
    /// Lies between the disk and its places: plain data is encoded when its place is known, and decoded when it is read. What is stored
    /// then has no plain host offset, and a place that reads as zeroes holds none. Compressed data is not under it. Default: none.
    /// </summary>
    protected virtual ISectorCipher? Cipher => null;

    /// <inheritdoc/>
    public override BlockLimits Limits => new(AllocationUnit);

    /// <inheritdoc/>
    protected override BlockBinding Binding => Cipher is { } cipher ? new(RequestAlignment: cipher.SectorSize) : default;

    /// <summary>
    /// Answers for this layer only: <see cref="BlockStatus.None"/> defers to the backing node. The extent starts at
    /// <paramref name="offset"/>, is at least one byte long and may be longer than asked if that costs no extra I/O.
    /// An encoded extent (no host offset) never spans two coding units. A data extent names its node.
    /// </summary>
    protected abstract ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken);

    /// <summary>Reads bytes that have no plain host offset (compressed, encrypted); the range lies in one coding unit.</summary>
    protected virtual ValueTask ReadEncodedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: encoded data at offset {offset:#,0}", Name, offset);

    /// <summary>Finds or reserves a place for the first bytes of a write. See <see cref="WriteMapping"/>.</summary>
    protected abstract ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken);

    /// <summary>The data of a new place is written: make the disk point to it. Never cancelled half way.</summary>
    protected abstract ValueTask CommitMappingAsync(WriteMapping mapping);

    /// <summary>The data of a new place could not be written: give the place back.</summary>
    protected abstract ValueTask AbandonMappingAsync(WriteMapping mapping);

    /// <summary>
    /// Makes whole zero units read as zeroes without writing data. Returns how many bytes from <paramref name="offset"/> on
    /// are done; 0 means this format cannot say it here, and one unit of literal zeroes is written instead.
    /// </summary>
    protected virtual ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => new(0L);

    /// <summary>Gives back the space of whole zero units. Default: the hint is not taken.</summary>
    protected virtual ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken) => default;

    /// <summary>
    /// Called once for each request that is about to change what a range reads as, while it holds the range. Default: nothing is
    /// noted. If it throws, nothing is changed.
    /// </summary>
    protected virtual ValueTask BeforeChangeAsync(long offset, long length, CancellationToken cancellationToken) => default;

    /// <summary>Default: this layer holds nothing back, so its file is flushed. A format with tables in memory writes them first.</summary>
    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => _debug.FlushAsync(File, cancellationToken);

    /// <summary>Runs something that must not overlap any other request of this disk.</summary>
    /// <typeparam name="T">What it returns.</typeparam>
    /// <param name="work">The work. It sees to its own cancelling.</param>
    /// <param name="cancellationToken">Stops waiting for the others.</param>
    protected ValueTask<T> AloneAsync<T>(Func<ValueTask<T>> work, CancellationToken cancellationToken)
        => _ranges.AloneAsync(work, cancellationToken);

    /// <inheritdoc cref="AloneAsync{T}"/>
    protected ValueTask AloneAsync(Func<ValueTask> work, CancellationToken cancellationToken)
        => _ranges.AloneAsync(work, cancellationToken);

    /// <inheritdoc/>
    protected sealed override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        BlockExtent own = await MapAsync(offset, length, cancellationToken).ConfigureAwait(false);
        if (own.Length > Length - offset)
        {
            own = own with { Length = Length - offset };
        }
        if (own.Status == BlockStatus.None)
        {
            long below = BytesInBacking(offset, Math.Min(own.Length, length));
            if (below == 0)
            {
                return own with { Status = BlockStatus.Zero };
            }
            BlockExtent under = await Backing!.GetExtentAsync(offset, below, cancellationToken).ConfigureAwait(false);
            return under with { Depth = under.Depth + 1 };
        }
        if (Cipher is not null || own.Node is CipherNode)
        {
            return own with { Node = null, HostOffset = null };
        }
        if (DataMayBeSparse && own is { IsData: true, IsZero: false, Node: { } node, HostOffset: long host } && host < node.Length)
        {
            long asked = Math.Min(Math.Min(own.Length, length), node.Length - host);
            BlockExtent stored = await node.GetExtentAsync(host, asked, cancellationToken).ConfigureAwait(false);
            return own with { Length = stored.Length, Status = stored.IsZero ? own.Status | BlockStatus.Zero : own.Status };
        }
        return own;
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (IsReadOnly)
        {
            await ReadMappedAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        RangeLock.Hold hold = await HoldUnitsAsync(offset, buffer.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            await ReadMappedAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await HoldUnitsAsync(offset, buffer.Length, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            await WriteMappedAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await HoldUnitsAsync(offset, length, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync(offset, length, cancellationToken).ConfigureAwait(false);
            for (long end = offset + length; offset < end;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                (long whole, long wholeEnd) = WholeUnits(offset, end);
                long done = offset == whole && whole < wholeEnd
                    ? await ZeroUnitsAsync(offset, wholeEnd - offset, mode, cancellationToken).ConfigureAwait(false)
                    : 0;
                if (done == 0)
                {
                    done = Math.Min(end - offset, ZeroUnit - (offset % ZeroUnit));
                    await ZeroByWritingAsync(offset, (int)done, mode, cancellationToken).ConfigureAwait(false);
                }
                offset += done;
            }
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
    {
        if (Cipher is not null)
        {
            return default;
        }
        RangeLock.Hold hold = await HoldUnitsAsync(offset, length, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync(offset, length, cancellationToken).ConfigureAwait(false);
            long done = 0, shared = 0;
            while (done < length)
            {
                cancellationToken.ThrowIfCancellationRequested();
                WriteMapping mapping = await EnsureMappedAsync(offset + done, length - done, cancellationToken).ConfigureAwait(false);
                mapping = mapping with { Length = Math.Min(length - done, mapping.Length) };
                CopyOutcome part = await CopyToPlaceAsync(
                    mapping, source, sourceOffset + done, how, cancellationToken).ConfigureAwait(false);
                if (part.Done == 0)
                {
                    break;
                }
                (done, shared) = (done + part.Done, shared + part.Shared);
            }
            return new CopyOutcome(done, shared);
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        (long start, long end) = WholeUnits(offset, offset + length);
        if (start >= end)
        {
            return;
        }
        RangeLock.Hold hold = await HoldUnitsAsync(start, end - start, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync(start, end - start, cancellationToken).ConfigureAwait(false);
            await DiscardUnitsAsync(start, end - start, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <summary>Reads without taking the range lock: for the format's own use while it holds the range.</summary>
    protected async ValueTask ReadMappedAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            BlockExtent extent = await MapAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            int count = (int)Math.Min(buffer.Length, extent.Length);
            await _debug.TellReadAsync(extent, Backing).ConfigureAwait(false);
            await ReadExtentAsync(extent, buffer[..count], cancellationToken).ConfigureAwait(false);
            (buffer, offset) = (buffer[count..], offset + count);
        }
    }

    /// <summary>Writes without taking the range lock: for the format's own use while it holds the range.</summary>
    protected async ValueTask WriteMappedAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            cancellationToken.ThrowIfCancellationRequested();
            WriteMapping mapping = await EnsureMappedAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            int count = (int)Math.Min(buffer.Length, mapping.Length);
            if (mapping.IsNew)
            {
                await WriteNewAsync(mapping, buffer[..count], cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await StoreAsync(mapping, buffer[..count], cancellationToken).ConfigureAwait(false);
            }
            (buffer, offset) = (buffer[count..], offset + count);
        }
    }

    /// <summary>Likewise, zeroes, literally.</summary>
    protected async ValueTask WriteZeroesMappedAsync(long start, long end, CancellationToken cancellationToken)
    {
        using var zeroes = new AlignedBuffer((int)Math.Clamp(end - start, 1, MostZeroes), alignment: 4096);
        zeroes.Memory.Span.Clear();
        for (long at = start; at < end;)
        {
            int count = (int)Math.Min(zeroes.Memory.Length, end - at);
            await WriteMappedAsync(at, zeroes.Memory[..count], cancellationToken).ConfigureAwait(false);
            at += count;
        }
    }

    private ValueTask ReadExtentAsync(in BlockExtent extent, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (extent.Status == BlockStatus.None)
        {
            int below = (int)BytesInBacking(extent.Offset, buffer.Length);
            buffer.Span[below..].Clear();
            return below == 0 ? default : Backing!.ReadAsync(extent.Offset, buffer[..below], cancellationToken);
        }
        if (extent.IsZero)
        {
            buffer.Span.Clear();
            return default;
        }
        return extent.HostOffset is not long host ? ReadEncodedAsync(extent.Offset, buffer, cancellationToken)
            : Cipher is { } cipher
                ? cipher.ReadAsync(extent.Node!, host, cipher.IsByPlace ? host : extent.Offset, buffer, cancellationToken)
            : extent.Node!.ReadPaddedAsync(host, buffer, cancellationToken);
    }

    /// <summary>True if the range is known to read as zeroes; what lies past the end of the disk does.</summary>
    protected async ValueTask<bool> ReadsAsZeroAsync(long start, long end, CancellationToken cancellationToken)
    {
        for (end = Math.Min(end, Length); start < end;)
        {
            BlockExtent extent = await GetExtentCoreAsync(start, end - start, cancellationToken).ConfigureAwait(false);
            if (!extent.IsZero)
            {
                return false;
            }
            start += extent.Length;
        }
        return true;
    }

    private async ValueTask ZeroByWritingAsync(long offset, int length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        if (mode == ZeroWriteMode.MayUnmap && await ReadsAsZeroAsync(offset, offset + length, cancellationToken).ConfigureAwait(false))
        {
            return;
        }
        await WriteZeroesMappedAsync(offset, offset + length, cancellationToken).ConfigureAwait(false);
    }

    private ValueTask<RangeLock.Hold> HoldUnitsAsync(long offset, long length, bool exclusive, CancellationToken cancellationToken)
    {
        long unit = AllocationUnit;
        return _ranges.AcquireAsync(offset / unit * unit, ((offset + length - 1) / unit * unit) + unit, exclusive, cancellationToken);
    }

    /// <summary>
    /// The whole zero units inside [offset, end); a partial last unit of the disk counts as whole. Empty if start >= end.
    /// </summary>
    private (long Start, long End) WholeUnits(long offset, long end)
    {
        long unit = ZeroUnit;
        return ((offset + unit - 1) / unit * unit, end == Length ? end : end / unit * unit);
    }

    /// <summary>A backing node may be shorter than this disk; past its end everything reads as zero.</summary>
    private long BytesInBacking(long offset, long length) => Backing is null ? 0 : Math.Clamp(Backing.Length - offset, 0, length);
}
