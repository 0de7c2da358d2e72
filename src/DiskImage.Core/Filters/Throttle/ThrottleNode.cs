using DiskImage.Block;

namespace DiskImage.Filters.Throttle;

/// <summary>Passes everything through, not faster than its group allows. What has to wait is waiting cancellably.</summary>
internal sealed class ThrottleNode(BlockNode child, ThrottleGroup group) : FilterNode(child)
{
    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await group.PassAsync(ThrottleUse.Reads, buffer.Length, cancellationToken).ConfigureAwait(false);
        await base.ReadCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await group.PassAsync(ThrottleUse.Writes, buffer.Length, cancellationToken).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await group.PassAsync(ThrottleUse.Writes, length, cancellationToken).ConfigureAwait(false);
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await group.PassAsync(ThrottleUse.Writes, length, cancellationToken).ConfigureAwait(false);
        await base.DiscardCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }
}
