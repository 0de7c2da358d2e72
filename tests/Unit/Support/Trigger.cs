using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>Does something at the N-th request.</summary>
internal sealed class Trigger(BlockNode child) : FilterNode(child)
{
    private long _left;
    private Action _action = () => { };

    public void At(long number, Action action) => (_left, _action) = (number, action);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Count();
        cancellationToken.ThrowIfCancellationRequested(); // as a file does
        return base.ReadCoreAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Count();
        cancellationToken.ThrowIfCancellationRequested();
        return base.WriteCoreAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        Count();
        cancellationToken.ThrowIfCancellationRequested();
        return base.FlushCoreAsync(cancellationToken);
    }

    private void Count()
    {
        if (--_left == 0)
        {
            _action();
        }
    }
}
