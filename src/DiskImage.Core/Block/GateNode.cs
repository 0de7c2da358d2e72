namespace DiskImage.Block;

/// <summary>What a request asks for.</summary>
internal enum RequestKind
{
    /// <summary>Bytes.</summary>
    Read,

    /// <summary>That bytes are stored.</summary>
    Write,

    /// <summary>That a range reads as zeroes.</summary>
    WriteZeroes,

    /// <summary>That a range is forgotten.</summary>
    Discard,

    /// <summary>That all is durable.</summary>
    Flush,

    /// <summary>Where bytes are.</summary>
    Extents,
}

/// <summary>A filter that passes requests on as they are, once each has been let in.</summary>
internal abstract class GateNode(BlockNode child) : FilterNode(child)
{
    /// <summary>Lets a request in, now or later; it throws for one that is not.</summary>
    /// <param name="kind">What it asks for.</param>
    /// <param name="offset">Where; 0 for a flush.</param>
    /// <param name="length">Bytes; 0 for a flush.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    protected abstract ValueTask LetInAsync(RequestKind kind, long offset, long length, CancellationToken cancellationToken);

    /// <inheritdoc/>
    protected sealed override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Read, offset, buffer.Length, cancellationToken).ConfigureAwait(false);
        await base.ReadCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Write, offset, buffer.Length, cancellationToken).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.WriteZeroes, offset, length, cancellationToken).ConfigureAwait(false);
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Discard, offset, length, cancellationToken).ConfigureAwait(false);
        await base.DiscardCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Flush, 0, 0, cancellationToken).ConfigureAwait(false);
        await base.FlushCoreAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Extents, offset, length, cancellationToken).ConfigureAwait(false);
        return await base.GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected sealed override async ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        await LetInAsync(RequestKind.Extents, offset, length, cancellationToken).ConfigureAwait(false);
        return await base.GetExtentsCoreAsync(offset, length, extents, cancellationToken).ConfigureAwait(false);
    }
}
