namespace DiskImage.Protocols.Ssh;

/// <summary>
/// Carries bytes over two streams. A buffer is touched only while a call runs that does not wait, so whoever waits may give up at any time,
/// and no buffer is in use afterwards.
/// </summary>
/// <param name="receiving">What comes in.</param>
/// <param name="sending">What goes out.</param>
internal class SftpTransport(Stream receiving, Stream sending) : IAsyncDisposable
{
    private const int BufferLength = 256 << 10; // as much as comes with one answer

    private readonly byte[] _buffer = new byte[BufferLength];
    private int _start, _end; // what is in the buffer and not taken
    private bool _isEnded;

    /// <summary>Takes what has come, without waiting.</summary>
    /// <returns>How many bytes; 0 for none yet; -1 for none any more.</returns>
    public int TryReceive(Span<byte> into)
    {
        if (_start == _end)
        {
            return _isEnded ? -1 : 0;
        }
        int taken = Math.Min(into.Length, _end - _start);
        _buffer.AsSpan(_start, taken).CopyTo(into);
        _start += taken;
        return taken;
    }

    /// <summary>Waits until something has come; all that came before must be taken.</summary>
    public async ValueTask WaitAsync(CancellationToken cancellationToken)
    {
        int count = await receiving.ReadAsync(_buffer, cancellationToken).ConfigureAwait(false);
        (_start, _end, _isEnded) = (0, count, count == 0);
    }

    /// <summary>Sends all of it. One call at a time.</summary>
    public ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => sending.WriteAsync(bytes, cancellationToken);

    /// <summary>
    /// Why nothing comes any more, as far as that can be told: the words of whoever carried the bytes, and of what kind their reason is.
    /// </summary>
    public virtual ValueTask<SshWords?> LastWordsAsync() => default;

    /// <summary>Ends the connection: whoever waits is woken with an error.</summary>
    public virtual void Abort()
    {
        sending.Dispose();
        receiving.Dispose();
    }

    /// <inheritdoc/>
    public virtual async ValueTask DisposeAsync()
    {
        try
        {
            await sending.DisposeAsync().ConfigureAwait(false);
        }
        catch (IOException)
        {
            // The other side is gone.
        }
        await receiving.DisposeAsync().ConfigureAwait(false);
        GC.SuppressFinalize(this);
    }
}
