namespace DiskImage.Block;

/// <summary>A node that shows exactly its child's bytes and owns the child. A filter overrides only what it changes.</summary>
internal abstract class FilterNode(BlockNode child) : BlockNode
{
    /// <summary>The node below.</summary>
    protected BlockNode Below { get; } = child;

    /// <inheritdoc/>
    public override string Name => Below.Name;

    /// <inheritdoc/>
    public override long Length => Below.Length;

    /// <inheritdoc/>
    public override bool IsReadOnly => Below.IsReadOnly;

    /// <inheritdoc/>
    public override bool GrowsOnWrite => Below.GrowsOnWrite;

    /// <inheritdoc/>
    public override long? AllocatedLength => Below.AllocatedLength;

    /// <inheritdoc/>
    public override DateTimeOffset? LastWriteTime => Below.LastWriteTime;

    /// <inheritdoc/>
    public override NodeIdentity? Identity => Below.Identity;

    /// <inheritdoc/>
    public override BlockLimits Limits => Below.Limits;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, BlockNode> Children { get; }
        = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = child };

    /// <inheritdoc/>
    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => Below.ReadAsync(offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => Below.WriteAsync(offset, buffer, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => Below.WriteZeroesAsync(offset, length, mode, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Below.DiscardAsync(offset, length, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Below.GetExtentAsync(offset, length, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
        => Below.GetExtentsAsync(offset, length, extents, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask<bool> PrefetchCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Below.PrefetchAsync(offset, length, cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => Below.FlushAsync(cancellationToken);

    /// <inheritdoc/>
    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => Below.ResizeAsync(length, preallocation, claimed, cancellationToken);

    /// <summary>What is below can do, this can: a filter that must not be passed by says so for the abilities concerned.</summary>
    protected override T? AbilityBelow<T>()
        where T : class
        => LetsThrough(typeof(T)) ? Below.As<T>() : null;

    /// <summary>True for the abilities that may be used past this filter. Default: all.</summary>
    protected virtual bool LetsThrough(Type ability) => true;
}
