using System.Net.Sockets;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// One connection to an export: sends requests, takes answers as they come. It breaks once, for whatever reason comes first; then all that
/// is in flight is lost, and it is of no more use.
/// </summary>
internal sealed class NbdConnection : IAsyncDisposable
{
    private const int Joined = 32 << 10; // payloads up to this go out in one piece with their header

    private static readonly TimeSpan s_handshake = TimeSpan.FromSeconds(30); // ours
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(2); // for a cancelled request that is half sent. Ours

    private readonly Lock _lock = new(); // guards the session, and with it every buffer that an answer goes to
    private readonly SemaphoreSlim _sending = new(1, 1);
    private readonly byte[] _outgoing = new byte[Joined + NbdWire.ExtendedRequestLength];
    private readonly SocketTransport _transport;
    private readonly NbdClientSession _session;
    private readonly string _name;
    private readonly Task _receiving;
    private DiskImageException? _broken;

    private NbdConnection(SocketTransport transport, string name, NbdExportInfo info)
    {
        (_transport, _name, Info) = (transport, name, info);
        _session = new NbdClientSession(name, info);
        _receiving = transport.ReceiveInThread(Receive, e => Break(e as DiskImageException ?? Lost(e)));
    }

    /// <summary>What was agreed on.</summary>
    public NbdExportInfo Info { get; }

    /// <summary>Why it is of no more use; null while it is.</summary>
    public DiskImageException? Broken => Volatile.Read(ref _broken);

    /// <summary>Requests without an answer.</summary>
    public int InFlight => _session.InFlight;

    /// <summary>Connects and chooses an export.</summary>
    /// <exception cref="DiskImageException">The server cannot be reached, refuses, or does not keep to the protocol.</exception>
    public static async ValueTask<NbdConnection> OpenAsync(NbdPlace place, NbdWishes wishes, CancellationToken cancellationToken)
    {
        (SocketTransport transport, NbdClientHandshake handshake) = await GreetAsync(
            place, wishes, cancellationToken).ConfigureAwait(false);
        return new NbdConnection(transport, place.Name, handshake.Info);
    }

    /// <summary>The exports that a server has.</summary>
    /// <exception cref="DiskImageException">As <see cref="OpenAsync"/>.</exception>
    public static async ValueTask<IReadOnlyList<NbdExportInfo>> ListAsync(NbdPlace place, CancellationToken cancellationToken)
    {
        (SocketTransport transport, NbdClientHandshake handshake) = await GreetAsync(
            place, new NbdWishes { Tls = place.Tls is not null, ListsOnly = true, Extended = false },
            cancellationToken).ConfigureAwait(false);
        await transport.DisposeAsync().ConfigureAwait(false);
        return handshake.Exports;
    }

    /// <summary>Sends a request and waits for its answer, which is in it then.</summary>
    /// <returns>False if the connection was lost before.</returns>
    /// <exception cref="OperationCanceledException">Nothing is put into the request's buffer any more.</exception>
    public async ValueTask<bool> RunAsync(NbdRequest request, CancellationToken cancellationToken)
    {
        await _sending.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            int length;
            lock (_lock)
            {
                if (_broken is not null)
                {
                    return false;
                }
                length = _session.Begin(request, _outgoing);
            }
            using CancellationTokenRegistration giveUp = cancellationToken.UnsafeRegister(_ => GiveUpSoon(request), null);
            await SendAsync(request, length).ConfigureAwait(false);
            request.IsSent = true;
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or OperationCanceledException)
        {
            Break(Lost(e));
        }
        finally
        {
            _ = _sending.Release();
        }
        try
        {
            return await request.Done.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            lock (_lock)
            {
                NbdClientSession.Abandon(request);
            }
            throw;
        }
    }

    /// <summary>Says goodbye and closes. Nothing may be in flight that anybody waits for.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_broken is null)
        {
            using var enough = new CancellationTokenSource(s_grace);
            try
            {
                await _sending.WaitAsync(enough.Token).ConfigureAwait(false);
                int length;
                lock (_lock)
                {
                    length = _session.Begin(new NbdRequest { Command = NbdCommand.Disconnect }, _outgoing);
                }
                await _transport.SendAsync(_outgoing.AsMemory(0, length), enough.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or OperationCanceledException)
            {
                // The server is gone already, or too slow to be told.
            }
        }
        Break(new DiskImageException(DiskImageErrorKind.Io, $"{_name}: the connection is closed", _name));
        await _receiving.ConfigureAwait(false);
        await _transport.DisposeAsync().ConfigureAwait(false);
        _sending.Dispose();
    }

    private static async ValueTask<(SocketTransport Transport, NbdClientHandshake Handshake)> GreetAsync(
        NbdPlace place, NbdWishes wishes, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(s_handshake);
        SocketTransport? transport = null;
        try
        {
            transport = await SocketTransport.ConnectAsync(place.Address, limit.Token).ConfigureAwait(false);
            var handshake = new NbdClientHandshake(place.Name, wishes);
            handshake.Start();
            await HandshakeAsync(transport, handshake, place, limit.Token).ConfigureAwait(false);
            return (transport, handshake);
        }
        catch (Exception e) when (e is not DiskImageException)
        {
            await CloseAsync(transport).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            string why = e switch
            {
                OperationCanceledException => $"it did not answer within {s_handshake.TotalSeconds:0} s. It may serve fewer clients at a "
                    + "time than there are",
                System.Security.Authentication.AuthenticationException or System.Security.Cryptography.CryptographicException
                    => $"TLS failed: {e.Message}",
                _ => e.Message,
            };
            throw new DiskImageException(
                e is SocketException { SocketErrorCode: SocketError.AddressNotAvailable or SocketError.HostNotFound }
                    || e is SocketException { NativeErrorCode: 2 }
                    ? DiskImageErrorKind.NotFound
                    : DiskImageErrorKind.Io,
                $"{place.Name}: cannot be reached: {why}", place.Name, cause: e);
        }
        catch
        {
            await CloseAsync(transport).ConfigureAwait(false);
            throw;
        }
    }

    private static async ValueTask CloseAsync(SocketTransport? transport)
    {
        if (transport is not null)
        {
            await transport.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async ValueTask HandshakeAsync(
        SocketTransport transport, NbdClientHandshake handshake, NbdPlace place, CancellationToken cancellationToken)
    {
        while (true)
        {
            await transport.SendAsync(handshake.TakeOutput(), cancellationToken).ConfigureAwait(false);
            if (handshake.IsOver)
            {
                return;
            }
            if (handshake.AwaitsTls)
            {
                await transport.SecureAsync(stream => place.Tls!.ConnectAsync(stream, cancellationToken)).ConfigureAwait(false);
                handshake.Resume();
                continue;
            }
            int count = transport.TryReceive(handshake.Wanted.Span);
            if (count > 0)
            {
                handshake.Advance(count);
            }
            else if (count == 0)
            {
                await transport.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
            else
            {
                throw new IOException("it hung up during the handshake");
            }
        }
    }

    private async ValueTask SendAsync(NbdRequest request, int length)
    {
        if (request.Payload.Length <= Joined)
        {
            request.Payload.CopyTo(_outgoing.AsMemory(length));
            await _transport.SendAsync(
                _outgoing.AsMemory(0, length + request.Payload.Length), CancellationToken.None).ConfigureAwait(false);
            return;
        }
        await _transport.SendAsync(_outgoing.AsMemory(0, length), CancellationToken.None).ConfigureAwait(false);
        await _transport.SendAsync(request.Payload, CancellationToken.None).ConfigureAwait(false);
    }

    private int Receive()
    {
        int count;
        NbdRequest[] answered;
        lock (_lock)
        {
            count = _transport.TryReceive(_session.Wanted.Span);
            if (count > 0)
            {
                _session.Advance(count);
            }
            answered = _session.TakeAnswered();
        }
        Array.ForEach(answered, r => r.Complete(isAnswered: true));
        return count;
    }

    /// <summary>A request that is half sent holds up all that come after it: it gets a moment, then the connection goes.</summary>
    private void GiveUpSoon(NbdRequest request) => _ = Task.Run(async () =>
    {
        await Task.Delay(s_grace).ConfigureAwait(false);
        if (!request.IsSent)
        {
            Break(new DiskImageException(
                DiskImageErrorKind.Io, $"{_name}: took no more bytes of a request that was cancelled, so the connection was ended", _name));
        }
    });

    private void Break(DiskImageException cause)
    {
        NbdRequest[] lost;
        lock (_lock)
        {
            if (_broken is not null)
            {
                return;
            }
            _broken = cause;
            lost = _session.TakeInFlight();
            foreach (NbdRequest request in lost)
            {
                NbdClientSession.Abandon(request);
            }
        }
        _transport.Abort();
        foreach (NbdRequest request in lost)
        {
            request.Complete(isAnswered: false);
        }
    }

    private DiskImageException Lost(Exception cause)
        => new(DiskImageErrorKind.Io, $"{_name}: the connection to the server is lost: {cause.Message}", _name, cause: cause);
}
