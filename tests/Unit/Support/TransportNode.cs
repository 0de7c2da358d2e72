using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>
/// Stands for a connection: requests pass, hang until they are let go or cancelled, or fail since the connection is lost.
/// </summary>
internal sealed class TransportNode(BlockNode child) : FilterNode(child)
{
    private TaskCompletionSource? _stall; // what hangs waits for it
    private int _inFlight, _stalled, _smallest;

    public bool IsClosed { get; private set; }

    /// <summary>Requests that have not returned.</summary>
    public int InFlight => Volatile.Read(ref _inFlight);

    /// <summary>Requests that hang now.</summary>
    public int Stalled => Volatile.Read(ref _stalled);

    /// <summary>From now on requests hang that move so many bytes at least.</summary>
    public void Stall(int smallest = 0)
    {
        Volatile.Write(ref _smallest, smallest);
        Volatile.Write(ref _stall, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
    }

    /// <summary>What hangs goes on, and nothing hangs any more.</summary>
    public void LetGo() => Interlocked.Exchange(ref _stall, null)?.SetResult();

    /// <summary>The connection is lost.</summary>
    public void Die() => Break(new DiskImageException(DiskImageErrorKind.Io, $"{Name}: the connection is lost", Name));

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => PassAsync(() => base.ReadCoreAsync(offset, buffer, cancellationToken), buffer.Length, cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => PassAsync(() => base.WriteCoreAsync(offset, buffer, cancellationToken), buffer.Length, cancellationToken);

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => PassAsync(() => base.FlushCoreAsync(cancellationToken), 0, cancellationToken);

    protected override ValueTask CloseCoreAsync()
    {
        IsClosed = true;
        return default;
    }

    private async ValueTask PassAsync(Func<ValueTask> request, int length, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref _inFlight);
        try
        {
            if (Volatile.Read(ref _stall) is { } stall && length >= Volatile.Read(ref _smallest))
            {
                Interlocked.Increment(ref _stalled);
                using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, Breaking);
                try
                {
                    await stall.Task.WaitAsync(either.Token);
                }
                catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
                {
                    CheckWhole();
                }
                finally
                {
                    Interlocked.Decrement(ref _stalled);
                }
            }
            await request();
        }
        finally
        {
            Interlocked.Decrement(ref _inFlight);
        }
    }
}
