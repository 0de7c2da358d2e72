using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// One connection to an SFTP server: sends requests, takes answers as they come. It breaks once, for whatever reason comes first; then all
/// that is in flight is lost, and it is of no more use.
/// </summary>
internal sealed class SftpConnection : IAsyncDisposable
{
    private const int MostRequests = 64; // in flight at once; others wait for one of them. Ours
    private const int Joined = 32 << 10; // payloads up to this go out in one piece with their header
    private const int LongestHeader = 16 << 10; // two paths, and what is around them

    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(2); // for a cancelled request that is half sent. Ours
    private static readonly TimeSpan s_lastWords = TimeSpan.FromSeconds(5); // longer than a transport takes to say them

    private readonly Lock _lock = new(); // guards the session, and with it every buffer that an answer goes to
    private readonly SemaphoreSlim _sending = new(1, 1);
    private readonly SemaphoreSlim _slots = new(MostRequests, MostRequests);
    private readonly byte[] _outgoing = new byte[Joined + LongestHeader];
    private readonly SftpTransport _transport;
    private readonly SftpSession _session;
    private readonly TaskCompletionSource<bool> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _receiving;
    private DiskImageException? _broken;

    private SftpConnection(SftpTransport transport, string name)
    {
        (_transport, _session) = (transport, new SftpSession(name));
        _receiving = Task.Run(ReceiveAsync);
    }

    /// <summary>What the server is called in messages: by what it is of use for at the time.</summary>
    public string Name
    {
        get => _session.Name;
        set => _session.Name = value;
    }

    /// <summary>It is of use, and waits for nothing.</summary>
    public bool IsIdle
    {
        get
        {
            lock (_lock)
            {
                return _broken is null && _session.InFlight == 0;
            }
        }
    }

    /// <summary>Bytes that one request reads or writes at most.</summary>
    public (int Read, int Write) Largest { get; private set; } = (SftpWire.SafeTransfer, SftpWire.SafeTransfer);

    /// <summary>Why it is of no more use; null while it is.</summary>
    public DiskImageException? Broken => Volatile.Read(ref _broken);

    /// <summary>True for an extension that the server has.</summary>
    public bool Has(string extension) => _session.Has(extension);

    /// <summary>Greets the server at the other end of a transport, which is the connection's from here on.</summary>
    /// <exception cref="DiskImageException">It cannot be reached, refuses, or does not keep to the protocol.</exception>
    public static async ValueTask<SftpConnection> OpenAsync(SftpTransport transport, string name, CancellationToken cancellationToken)
    {
        var connection = new SftpConnection(transport, name);
        try
        {
            await connection.GreetAsync(cancellationToken).ConfigureAwait(false);
            return connection;
        }
        catch
        {
            connection.Break(connection.Closed());
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Sends a request and waits for its answer, which is in it then.</summary>
    /// <exception cref="OperationCanceledException">Nothing is put into the request's buffer any more.</exception>
    /// <exception cref="DiskImageException">The connection is lost: why it was first.</exception>
    public async ValueTask<SftpRequest> RunAsync(SftpRequest request, CancellationToken cancellationToken)
    {
        await _slots.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await SendAsync(request, cancellationToken).ConfigureAwait(false);
            return await request.Done.WaitAsync(cancellationToken).ConfigureAwait(false) ? request : throw Broken!;
        }
        catch (OperationCanceledException)
        {
            lock (_lock)
            {
                SftpSession.Abandon(request);
            }
            throw;
        }
        finally
        {
            _ = _slots.Release();
        }
    }

    /// <summary>Closes. Nothing may be in flight that anybody waits for.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            _broken ??= Closed();
        }
        await _transport.DisposeAsync().ConfigureAwait(false);
        await _receiving.ConfigureAwait(false);
        _sending.Dispose();
        _slots.Dispose();
    }

    private async ValueTask GreetAsync(CancellationToken cancellationToken)
    {
        try
        {
            await _transport.SendAsync(SftpSession.Hello, cancellationToken).ConfigureAwait(false);
        }
        catch (IOException)
        {
            // It has hung up, and says why where its answer is awaited.
        }
        if (!await _ready.Task.WaitAsync(cancellationToken).ConfigureAwait(false))
        {
            throw Broken!;
        }
        if (Has(SftpWire.Limits)
            && await RunAsync(SftpRequest.Limits(), cancellationToken).ConfigureAwait(false) is { Answer.Length: >= 24 } limits)
        {
            Largest = (Bounded(limits.Answer.AsSpan(8)), Bounded(limits.Answer.AsSpan(16)));
        }

        static int Bounded(ReadOnlySpan<byte> number) => BinaryPrimitives.ReadUInt64BigEndian(number) is > 0 and var most
            ? (int)Math.Min(most, SftpWire.LargestTransfer)
            : SftpWire.SafeTransfer; // it does not say
    }

    private async ValueTask SendAsync(SftpRequest request, CancellationToken cancellationToken)
    {
        await _sending.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            int length;
            lock (_lock)
            {
                if (_broken is not null)
                {
                    throw _broken;
                }
                length = _session.Begin(request, _outgoing);
            }
            using CancellationTokenRegistration giveUp = cancellationToken.UnsafeRegister(_ => GiveUpSoon(request), null);
            bool isJoined = request.Payload.Length <= Joined;
            if (isJoined)
            {
                request.Payload.CopyTo(_outgoing.AsMemory(length));
                length += request.Payload.Length;
            }
            await _transport.SendAsync(_outgoing.AsMemory(0, length), CancellationToken.None).ConfigureAwait(false);
            if (!isJoined)
            {
                await _transport.SendAsync(request.Payload, CancellationToken.None).ConfigureAwait(false);
            }
            request.IsSent = true;
        }
        catch (Exception e) when (e is (IOException and not DiskImageException) or ObjectDisposedException or OperationCanceledException)
        {
            // Why it hung up is said where answers are awaited, unless it hangs.
            Task answer = request.Done.WaitAsync(s_lastWords, CancellationToken.None);
            await answer.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            Break(Lost(e.Message, words: null, e));
        }
        finally
        {
            _ = _sending.Release();
        }
    }

    private async Task ReceiveAsync()
    {
        try
        {
            while (true)
            {
                int count;
                SftpRequest[] answered;
                lock (_lock)
                {
                    count = _transport.TryReceive(_session.Wanted.Span);
                    if (count > 0)
                    {
                        _session.Advance(count);
                    }
                    answered = _session.TakeAnswered();
                }
                foreach (SftpRequest request in answered)
                {
                    request.Complete(isAnswered: true);
                }
                if (_session.IsReady)
                {
                    _ = _ready.TrySetResult(true);
                }
                if (count < 0)
                {
                    SshWords? words = await _transport.LastWordsAsync().ConfigureAwait(false);
                    throw Lost("the other side hung up", words, null);
                }
                if (count == 0)
                {
                    await _transport.WaitAsync(CancellationToken.None).ConfigureAwait(false);
                }
            }
        }
        catch (Exception e)
        {
            Break(e as DiskImageException ?? Lost(e.Message, null, e));
        }
    }

    /// <summary>A request that is half sent holds up all that come after it: it gets a moment, then the connection goes.</summary>
    private void GiveUpSoon(SftpRequest request) => _ = Task.Run(async () =>
    {
        await Task.Delay(s_grace).ConfigureAwait(false);
        if (!request.IsSent)
        {
            Break(new DiskImageException(
                DiskImageErrorKind.Io, $"{Name}: took no more bytes of a request that was cancelled, so the connection was ended", Name));
        }
    });

    private void Break(DiskImageException cause)
    {
        SftpRequest[] lost;
        lock (_lock)
        {
            _broken ??= cause;
            lost = _session.TakeInFlight();
            foreach (SftpRequest request in lost)
            {
                SftpSession.Abandon(request);
            }
        }
        _transport.Abort();
        _ = _ready.TrySetResult(false);
        foreach (SftpRequest request in lost)
        {
            request.Complete(isAnswered: false);
        }
    }

    private DiskImageException Closed() => new(DiskImageErrorKind.Io, $"{Name}: the connection is closed", Name);

    private DiskImageException Lost(string what, SshWords? words, Exception? cause) => new(
        _session.IsReady ? DiskImageErrorKind.Io : words?.Kind ?? DiskImageErrorKind.Io,
        _session.IsReady
            ? $"{Name}: the connection to the server is lost: {words?.Text ?? what}"
            : (Wording)$"{Name}: cannot be reached: {words?.Text ?? what}",
        Name,
        cause: cause);
}
