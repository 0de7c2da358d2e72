namespace DiskImage.Block;

/// <summary>
/// A disk whose bytes lie in one run of its file, in their order: raw, fixed VHD, flat extents. Unlike the file it has a fixed length, and
/// what the file holds before and behind the run is out of reach.
/// </summary>
/// <param name="file">The node that holds the bytes; the disk's own.</param>
/// <param name="start">Where in it the disk begins, in bytes.</param>
internal abstract class LinearFormatNode(BlockNode file, long start) : BlockNode
{
    private readonly IDebugEvents? _debug = file.As<IDebugEvents>();

    /// <summary>The node that holds the bytes.</summary>
    protected BlockNode File { get; } = file;

    /// <summary>Where in it the disk begins.</summary>
    protected long Start { get; } = start;

    /// <inheritdoc/>
    public override string Name => File.Name;

    /// <inheritdoc/>
    public override bool IsReadOnly => File.IsReadOnly;

    /// <inheritdoc/>
    public override DateTimeOffset? LastWriteTime => File.LastWriteTime;

    /// <inheritdoc/>
    public override BlockLimits Limits => File.Limits;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, BlockNode> Children { get; }
        = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file };

    /// <inheritdoc/>
    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => _debug is null ? File.ReadAsync(Start + offset, buffer, cancellationToken)
            : ReadToldAsync(_debug, offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => _debug is null ? File.WriteAsync(Start + offset, buffer, cancellationToken)
            : WriteToldAsync(_debug, offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => File.WriteZeroesAsync(Start + offset, length, mode, cancellationToken);

    /// <inheritdoc/>
    protected override async ValueTask<bool> TryWriteDurablyAsync(
        long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await _debug.TellAsync(DebugEvent.WriteAio).ConfigureAwait(false);
        await File.WriteDurablyAsync(Start + offset, buffer, cancellationToken).ConfigureAwait(false);
        return true;
    }

    /// <inheritdoc/>
    protected override ValueTask<bool> PrefetchCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => File.PrefetchAsync(Start + offset, length, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
        => File.CopyFromAsync(Start + offset, source, sourceOffset, length, how, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => File.DiscardAsync(Start + offset, length, cancellationToken);

    /// <inheritdoc/>
    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => await File.GetExtentAsync(Start + offset, length, cancellationToken).ConfigureAwait(false) with { Offset = offset };

    /// <inheritdoc/>
    protected override async ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        int count = await File.GetExtentsAsync(Start + offset, length, extents, cancellationToken).ConfigureAwait(false);
        foreach (ref BlockExtent extent in extents.Span[..count])
        {
            extent = extent with { Offset = extent.Offset - Start };
        }
        return count;
    }

    /// <inheritdoc/>
    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => _debug.FlushAsync(File, cancellationToken);

    private async ValueTask ReadToldAsync(
        IDebugEvents debug, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await debug.RaiseAsync(DebugEvent.ReadAio).ConfigureAwait(false);
        await File.ReadAsync(Start + offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask WriteToldAsync(
        IDebugEvents debug, long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await debug.RaiseAsync(DebugEvent.WriteAio).ConfigureAwait(false);
        await File.WriteAsync(Start + offset, buffer, cancellationToken).ConfigureAwait(false);
    }
}
