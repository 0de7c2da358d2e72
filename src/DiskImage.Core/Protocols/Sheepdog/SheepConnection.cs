using System.Net;
using System.Net.Sockets;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>
/// A connection to a gateway: sends requests, takes answers as they come. It breaks once, for whatever reason comes first; then all that is
/// in flight is lost, and it is of no more use.
/// </summary>
internal sealed class SheepConnection : IAsyncDisposable
{
    private const int OutgoingLength = 256 << 10; // ours

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30); // to connect. Ours

    private readonly Lock _lock = new(); // guards the session, and with it every buffer that is read from or written to
    private readonly SocketTransport _transport;
    private readonly SheepSession _session;
    private readonly SocketPump _pump;
    private readonly Task _receiving;
    private DiskImageException? _broken;

    private SheepConnection(SocketTransport transport, string name)
    {
        (_transport, Name, _session) = (transport, name, new SheepSession(name));
        _pump = new SocketPump(transport, OutgoingLength, _lock, into => _broken is null ? _session.Fill(into.Span) : 0, End);
        _receiving = transport.ReceiveInThread(Receive, End);
    }

    /// <summary>What the VDI is called in messages.</summary>
    public string Name { get; }

    /// <summary>Why it is of no more use; null while it is.</summary>
    public DiskImageException? Broken => Volatile.Read(ref _broken);

    /// <summary>Connects to a gateway.</summary>
    /// <param name="name">What the VDI is called in messages.</param>
    /// <param name="address">Where the gateway listens.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">It cannot be reached.</exception>
    public static async ValueTask<SheepConnection> OpenAsync(string name, EndPoint address, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        stop.CancelAfter(s_limit);
        try
        {
            return new SheepConnection(await SocketTransport.ConnectAsync(address, stop.Token).ConfigureAwait(false), name);
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            cancellationToken.ThrowIfCancellationRequested();
            bool isUnknown = e is SocketException { SocketErrorCode: SocketError.HostNotFound or SocketError.AddressNotAvailable };
            string where = address is DnsEndPoint host ? $"{host.Host}:{host.Port}" : $"{address}";
            throw new DiskImageException(
                isUnknown ? DiskImageErrorKind.NotFound : DiskImageErrorKind.Io,
                $"{name}: no Sheepdog gateway can be reached at {where}: "
                    + (e is OperationCanceledException ? $"no answer within {s_limit.TotalSeconds:0} s" : e.Message),
                name,
                cause: e);
        }
    }

    /// <summary>Sends a request and waits for its answer, which is in it then.</summary>
    /// <exception cref="DiskImageException">The connection is lost.</exception>
    /// <exception cref="OperationCanceledException">Nothing is put into its buffer any more, and nothing read from it.</exception>
    public async ValueTask<SheepRequest> RunAsync(SheepRequest request, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_broken is not null)
            {
                throw Again(_broken);
            }
            _session.Begin(request);
        }
        _pump.Start();
        try
        {
            return await request.Done.WaitAsync(cancellationToken).ConfigureAwait(false) ? request : throw Again(Broken!);
        }
        catch (OperationCanceledException)
        {
            lock (_lock)
            {
                _session.Abandon(request);
            }
            throw;
        }
    }

    /// <summary>Closes. What is in flight is lost.</summary>
    public async ValueTask DisposeAsync()
    {
        Break(new DiskImageException(DiskImageErrorKind.Io, $"{Name}: the connection is closed", Name));
        await _receiving.ConfigureAwait(false);
        await _pump.Sending.ConfigureAwait(false);
        await _transport.DisposeAsync().ConfigureAwait(false);
    }

    private static DiskImageException Again(DiskImageException cause) => new(cause.Kind, cause.Wording, cause.Path, cause.Offset, cause);

    private void Break(DiskImageException cause)
    {
        SheepRequest[] lost;
        lock (_lock)
        {
            if (_broken is not null)
            {
                return;
            }
            _broken = cause;
            lost = _session.TakeInFlight();
            Array.ForEach(lost, r => r.Abandon(isOver: true));
        }
        _transport.Abort();
        Array.ForEach(lost, r => r.Complete(isAnswered: false));
    }

    private int Receive()
    {
        int count;
        SheepRequest[] answered;
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

    private void End(Exception cause) => Break(cause as DiskImageException ?? Lost(cause));

    private DiskImageException Lost(Exception cause)
        => new(DiskImageErrorKind.Io, $"{Name}: the connection to the Sheepdog gateway is lost: {cause.Message}", Name, cause: cause);
}
