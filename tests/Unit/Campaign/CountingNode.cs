using DiskImage.Block;

namespace DiskImage.Tests.Campaign;

/// <summary>Counts what is asked of a file: requests, and the bytes they read and write.</summary>
internal sealed class CountingNode(BlockNode child) : FilterNode(child)
{
    private long _requests, _bytes;

    public long Requests => Volatile.Read(ref _requests);

    public long Bytes => Volatile.Read(ref _bytes);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Count(buffer.Length);
        return base.ReadCoreAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Count(buffer.Length);
        return base.WriteCoreAsync(offset, buffer, cancellationToken);
    }

    private void Count(int bytes)
    {
        _ = Interlocked.Increment(ref _requests);
        _ = Interlocked.Add(ref _bytes, bytes);
    }
}
