using System.Net;
using System.Net.Sockets;

namespace DiskImage.Protocols;

/// <summary>
/// Carries bytes: a socket, or a stream over it that encrypts. A buffer is touched only while a call runs that does not wait, so whoever
/// waits may give up at any time, and no buffer is in use afterwards.
/// </summary>
/// <remarks>
/// A client has one thread that receives and blocks: it is awake sooner than a task, whose socket wakes a thread of the runtime first,
/// which then wakes another. A server has too many clients for that and waits in tasks.
/// </remarks>
internal sealed class SocketTransport : IAsyncDisposable
{
    private const int BufferLength = 64 << 10;
    private const int SocketBuffer = 1 << 20; // of a socket of this machine, whose buffers do not grow by themselves. Ours

    private readonly Socket _socket;
    private readonly bool _isClient;
    private readonly byte[] _buffer = new byte[BufferLength];
    private Stream? _secured; // over the socket, once it is under TLS
    private Stream? _plain;
    private int _start, _end; // what is in the buffer and not taken
    private bool _isEnded; // of the stream that encrypts

    private SocketTransport(Socket socket, bool isClient) => (_socket, _isClient) = (socket, isClient);

    /// <summary>Bytes that have come, are here, and are not taken.</summary>
    public int Held => _end - _start;

    /// <summary>Connects to a server. The runtime does not watch the socket then.</summary>
    /// <exception cref="SocketException">It cannot be reached.</exception>
    public static async ValueTask<SocketTransport> ConnectAsync(EndPoint address, CancellationToken cancellationToken)
    {
        Socket socket = address is UnixDomainSocketEndPoint
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(SocketType.Stream, ProtocolType.Tcp);
        try
        {
            using (cancellationToken.UnsafeRegister(static s => ((Socket)s!).Dispose(), socket))
            {
                await Task.Run(() => socket.Connect(address), CancellationToken.None).ConfigureAwait(false);
            }
            return Of(socket, isClient: true);
        }
        catch
        {
            socket.Dispose();
            cancellationToken.ThrowIfCancellationRequested();
            throw;
        }
    }

    /// <summary>Takes over a socket that is connected; a server's unless it says otherwise.</summary>
    public static SocketTransport Of(Socket socket, bool isClient = false)
    {
        if (socket.AddressFamily != AddressFamily.Unix)
        {
            socket.NoDelay = true;
        }
        else
        {
            socket.SendBufferSize = SocketBuffer; // the system may give less
        }
        socket.Blocking = false;
        return new SocketTransport(socket, isClient);
    }

    /// <summary>Goes on under TLS. Nothing may be in flight.</summary>
    /// <param name="secure">Makes the stream that encrypts from the one that does not, and shakes hands.</param>
    /// <exception cref="IOException">The other side sent bytes before that could have been meant to be secret.</exception>
    public async ValueTask SecureAsync(Func<Stream, ValueTask<Stream>> secure)
    {
        if (_end > _start)
        {
            throw new IOException("bytes came in the clear that belong under TLS");
        }
        _socket.Blocking = true; // or no stream takes it
        _plain = new NetworkStream(_socket, ownsSocket: false);
        _secured = await secure(_plain).ConfigureAwait(false);
    }

    /// <summary>Takes what has come, without waiting.</summary>
    /// <returns>How many bytes; 0 for none yet; -1 for none any more.</returns>
    public int TryReceive(Span<byte> into)
    {
        if (_start == _end)
        {
            if (_secured is not null)
            {
                return _isEnded ? -1 : 0; // filled while waiting
            }
            if (into.Length >= BufferLength)
            {
                return FromSocket(into);
            }
            int count = FromSocket(_buffer);
            if (count <= 0)
            {
                return count;
            }
            (_start, _end) = (0, count);
        }
        int taken = Math.Min(into.Length, _end - _start);
        _buffer.AsSpan(_start, taken).CopyTo(into);
        _start += taken;
        return taken;
    }

    /// <summary>Waits until something has come. A client that is cancelled has lost its connection.</summary>
    public async ValueTask WaitAsync(CancellationToken cancellationToken)
    {
        if (_secured is null && _isClient)
        {
            using (cancellationToken.UnsafeRegister(static t => ((SocketTransport)t!).Abort(), this))
            {
                await Task.Run(Wait, CancellationToken.None).ConfigureAwait(false);
            }
            cancellationToken.ThrowIfCancellationRequested();
            return;
        }
        if (_secured is null)
        {
            _ = await _socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, cancellationToken).ConfigureAwait(false);
            return;
        }
        int count = await _secured.ReadAsync(_buffer, cancellationToken).ConfigureAwait(false);
        (_start, _end, _isEnded) = (0, count, count == 0);
    }

    /// <summary>Blocks the thread until something has come or the connection is ended.</summary>
    private void Wait()
    {
        if (_secured is null)
        {
            _ = _socket.Poll(Timeout.InfiniteTimeSpan, SelectMode.SelectRead);
            return;
        }
        WaitAsync(CancellationToken.None).AsTask().GetAwaiter().GetResult();
    }

    /// <summary>Has a thread of its own receive until the connection ends.</summary>
    /// <param name="receive">Takes what has come, and returns what <see cref="TryReceive"/> did.</param>
    /// <param name="end">Told why it is over: at last that the other side hung up.</param>
    public Task ReceiveInThread(Func<int> receive, Action<Exception> end) => Task.Factory.StartNew(
        () =>
        {
            try
            {
                for (int count; (count = receive()) >= 0;)
                {
                    if (count == 0)
                    {
                        Wait();
                    }
                }
                throw new IOException("it hung up");
            }
            catch (Exception e)
            {
                end(e);
            }
        },
        CancellationToken.None,
        TaskCreationOptions.LongRunning,
        TaskScheduler.Default);

    /// <summary>Sends all of it. One call at a time.</summary>
    public async ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        if (_secured is not null)
        {
            await _secured.WriteAsync(bytes, cancellationToken).ConfigureAwait(false);
            await _secured.FlushAsync(cancellationToken).ConfigureAwait(false);
            return;
        }
        while (!bytes.IsEmpty)
        {
            int sent = await _socket.SendAsync(bytes, SocketFlags.None, cancellationToken).ConfigureAwait(false);
            bytes = bytes[sent..];
        }
    }

    /// <summary>Ends the connection: whoever waits is woken with an error.</summary>
    public void Abort()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It is gone already.
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (_secured is not null)
        {
            try
            {
                await _secured.DisposeAsync().ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
            {
                // The other side may be gone.
            }
        }
        if (_plain is not null)
        {
            await _plain.DisposeAsync().ConfigureAwait(false);
        }
        _socket.Dispose();
    }

    private int FromSocket(Span<byte> into)
    {
        int count = _socket.Receive(into, SocketFlags.None, out SocketError error);
        return error switch
        {
            SocketError.Success => count == 0 ? -1 : count,
            SocketError.WouldBlock => 0,
            _ => throw new SocketException((int)error),
        };
    }
}
