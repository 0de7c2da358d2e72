using System.Security.Authentication;
using DiskImage.Block;
using Org.BouncyCastle.Tls;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// Bytes under a TLS protocol that does no I/O itself: what comes in is offered to it, what it wants sent is taken from it. One reads and
/// one writes at a time.
/// </summary>
/// <param name="plain">The connection; it stays open.</param>
/// <param name="protocol">The protocol, without a stream of its own.</param>
internal sealed class NbdPskStream(Stream plain, TlsProtocol protocol) : Stream
{
    private readonly Lock _lock = new(); // guards the protocol
    private readonly SemaphoreSlim _sending = new(1, 1); // what was taken first is sent first
    private readonly byte[] _received = new byte[32 << 10];

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Shakes hands.</summary>
    /// <param name="begin">Begins it.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="AuthenticationException">One side does not know the other's key.</exception>
    public async ValueTask HandshakeAsync(Action begin, CancellationToken cancellationToken)
    {
        try
        {
            lock (_lock)
            {
                begin();
            }
            while (true)
            {
                await SendAsync(cancellationToken).ConfigureAwait(false);
                lock (_lock)
                {
                    if (!protocol.IsHandshaking)
                    {
                        return;
                    }
                }
                if (!await ReceiveAsync(cancellationToken).ConfigureAwait(false))
                {
                    throw new AuthenticationException("the other side hung up: it may not know the key");
                }
            }
        }
        catch (Exception e) when (e is TlsException or IOException and not DiskImageException)
        {
            throw new AuthenticationException(e.Message, e);
        }
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        while (true)
        {
            lock (_lock)
            {
                if (protocol.GetAvailableInputBytes() is > 0 and var available)
                {
                    byte[] taken = new byte[Math.Min(buffer.Length, available)];
                    int count = protocol.ReadInput(taken, 0, taken.Length);
                    taken.AsMemory(0, count).CopyTo(buffer);
                    return count;
                }
            }
            if (!await ReceiveAsync(cancellationToken).ConfigureAwait(false))
            {
                return 0;
            }
            await SendAsync(cancellationToken).ConfigureAwait(false); // the protocol may have an answer
        }
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        const int Piece = 64 << 10;
        while (!buffer.IsEmpty)
        {
            int count = Math.Min(Piece, buffer.Length);
            lock (_lock)
            {
                protocol.WriteApplicationData(buffer[..count].Span);
            }
            await SendAsync(cancellationToken).ConfigureAwait(false);
            buffer = buffer[count..];
        }
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
        => ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
        => WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Flush()
    {
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _sending.Dispose();
        }
        base.Dispose(disposing);
    }

    private async ValueTask<bool> ReceiveAsync(CancellationToken cancellationToken)
    {
        int count = await plain.ReadAsync(_received, cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            if (count == 0)
            {
                return false;
            }
            protocol.OfferInput(_received, 0, count);
            return true;
        }
    }

    private async ValueTask SendAsync(CancellationToken cancellationToken)
    {
        await _sending.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            byte[] output;
            lock (_lock)
            {
                output = new byte[protocol.GetAvailableOutputBytes()];
                _ = protocol.ReadOutput(output, 0, output.Length);
            }
            if (output.Length > 0)
            {
                await plain.WriteAsync(output, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            _ = _sending.Release();
        }
    }
}
