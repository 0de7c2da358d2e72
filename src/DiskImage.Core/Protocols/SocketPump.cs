namespace DiskImage.Protocols;

/// <summary>Sends what there is to be sent over a connection, a buffer at a time. Nobody waits for it.</summary>
/// <param name="transport">The way.</param>
/// <param name="length">Bytes of the buffer.</param>
/// <param name="session">The lock under which it is filled.</param>
/// <param name="fill">Fills the buffer and returns how many bytes it has; 0 for nothing to send.</param>
/// <param name="end">Told why nothing can be sent any more.</param>
internal sealed class SocketPump(
    SocketTransport transport, int length, Lock session, Func<Memory<byte>, int> fill, Action<Exception> end)
{
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(length);
    private bool _isRunning; // under the lock

    /// <summary>Ends when all that there was is sent.</summary>
    public Task Sending { get; private set; } = Task.CompletedTask;

    /// <summary>There may be something to be sent.</summary>
    public void Start()
    {
        lock (session)
        {
            if (_isRunning)
            {
                return;
            }
            _isRunning = true;
        }
        Sending = SendAsync();
    }

    private async Task SendAsync()
    {
        try
        {
            while (true)
            {
                int count;
                lock (session)
                {
                    count = fill(_buffer);
                    if (count == 0)
                    {
                        _isRunning = false;
                        return;
                    }
                }
                await transport.SendAsync(_buffer.AsMemory(0, count), CancellationToken.None).ConfigureAwait(false);
            }
        }
        catch (Exception e)
        {
            end(e);
        }
    }
}
