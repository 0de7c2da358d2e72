using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>A disk of which each change is durable before it returns: <see cref="CachePolicy.WriteThrough"/>.</summary>
internal sealed class WriteThroughNode(BlockNode child) : FilterNode(child)
{
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => Below.WriteDurablyAsync(offset, buffer, cancellationToken);

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        await Below.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        await base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        await Below.FlushAsync(cancellationToken).ConfigureAwait(false);
    }
}
