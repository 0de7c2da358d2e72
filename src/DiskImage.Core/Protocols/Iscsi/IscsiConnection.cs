using System.Net;
using System.Net.Sockets;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>
/// A session with a target, over its one connection: sends commands, takes answers as they come. It breaks once, for whatever reason comes
/// first; then all that is in flight is lost, and it is of no more use.
/// </summary>
internal sealed class IscsiConnection : IAsyncDisposable
{
    private const int MostRedirections = 8; // ours: two targets may send one to each other

    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(1); // for the goodbye. Ours

    private readonly Lock _lock = new(); // guards the session and the reader, and with them every buffer that is read from or written to
    private readonly SocketTransport _transport;
    private readonly IscsiSession _session;
    private readonly IscsiPduReader _reader;
    private readonly TaskCompletionSource _text = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly SocketPump _pump;
    private readonly Task _receiving;
    private DiskImageException? _broken;

    private IscsiConnection(SocketTransport transport, string name, IscsiAgreement agreed, IscsiPortal portal)
    {
        (_transport, Name, Agreed, Portal) = (transport, name, agreed, portal);
        _session = new IscsiSession(name, agreed);
        _reader = new IscsiPduReader(name, _session, IscsiWire.LongestSegment, agreed.HeaderDigest, agreed.DataDigest);
        _pump = new SocketPump(
            transport, IscsiSession.LongestOutput + (64 << 10), _lock, into => _broken is null ? _session.Fill(into.Span) : 0, End);
        _receiving = transport.ReceiveInThread(Receive, End);
    }

    /// <summary>What the target is called in messages.</summary>
    public string Name { get; }

    /// <summary>What was agreed on.</summary>
    public IscsiAgreement Agreed { get; }

    /// <summary>Where the next login is to go: a target may have moved for good.</summary>
    public IscsiPortal Portal { get; }

    /// <summary>Why it is of no more use; null while it is.</summary>
    public DiskImageException? Broken => Volatile.Read(ref _broken);

    /// <summary>Connects and logs in, wherever the target sends its clients.</summary>
    /// <param name="name">What the target is called in messages.</param>
    /// <param name="portal">Where it listens.</param>
    /// <param name="wishes">What is wanted.</param>
    /// <param name="limit">How long it may take.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">The target cannot be reached, refuses, or does not keep to the protocol.</exception>
    public static async ValueTask<IscsiConnection> OpenAsync(
        string name, IscsiPortal portal, IscsiWishes wishes, TimeSpan limit, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        stop.CancelAfter(limit);
        IscsiPortal home = portal;
        try
        {
            for (int i = 0; i <= MostRedirections; i++)
            {
                (SocketTransport? transport, IscsiLogin login) = await LoginAsync(name, portal, wishes, stop.Token).ConfigureAwait(false);
                if (transport is not null)
                {
                    return new IscsiConnection(transport, name, login.Agreement, home);
                }
                IscsiRedirection to = login.Redirection!;
                portal = IscsiPortal.Parse(to.Address)
                    ?? throw IscsiText.Wrong(name, $"it sends its clients to '{to.Address}', which is no address");
                home = to.IsPermanent ? portal : home;
            }
        }
        catch (Exception e) when (e is SocketException or IOException and not DiskImageException or OperationCanceledException)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw new DiskImageException(
                e is SocketException { SocketErrorCode: SocketError.HostNotFound or SocketError.AddressNotAvailable }
                    ? DiskImageErrorKind.NotFound
                    : DiskImageErrorKind.Io,
                $"{name}: cannot be reached at {portal}: "
                    + (e is OperationCanceledException ? $"no login within {limit.TotalSeconds:0} s" : e.Message),
                name,
                cause: e);
        }
        throw new DiskImageException(
            DiskImageErrorKind.Io,
            $"{name}: the target sends its clients elsewhere more than {MostRedirections} times in a row, at last to {portal}",
            name);
    }

    /// <summary>Sends a command and waits for its answer, which is in it then.</summary>
    /// <returns>False if the connection was lost before.</returns>
    /// <exception cref="OperationCanceledException">
    /// Nothing is put into the command's buffer any more, and nothing read from it.
    /// </exception>
    public async ValueTask<bool> RunAsync(ScsiTask task, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_broken is not null)
            {
                return false;
            }
            _session.Begin(task);
        }
        _pump.Start();
        try
        {
            return await task.Done.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            lock (_lock)
            {
                _session.Abandon(task);
            }
            throw;
        }
    }

    /// <summary>Asks in text, in a discovery session.</summary>
    /// <exception cref="DiskImageException">The connection is lost.</exception>
    public async ValueTask<byte[]> AskAsync(byte[] text, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            _session.BeginText(text);
        }
        _pump.Start();
        await _text.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        return _session.TextAnswer ?? throw Broken!;
    }

    /// <summary>It is of no more use, for a reason that the caller has.</summary>
    public void Break(DiskImageException cause)
    {
        ScsiTask[] lost;
        lock (_lock)
        {
            if (_broken is not null)
            {
                return;
            }
            _broken = cause;
            lost = _session.TakeInFlight();
            Array.ForEach(lost, t => t.Abandon(isOver: true));
        }
        _transport.Abort();
        Array.ForEach(lost, t => t.Complete(isAnswered: false));
        _ = _text.TrySetResult();
        _ = _ended.TrySetResult();
    }

    /// <summary>Says goodbye and closes. Nothing may be in flight that anybody waits for.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_broken is null)
        {
            lock (_lock)
            {
                _session.BeginLogout();
            }
            _pump.Start();
            try
            {
                await _ended.Task.WaitAsync(s_grace).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                // It is too slow to be told.
            }
        }
        Break(new DiskImageException(DiskImageErrorKind.Io, $"{Name}: the connection is closed", Name));
        await _receiving.ConfigureAwait(false);
        await _pump.Sending.ConfigureAwait(false);
        await _transport.DisposeAsync().ConfigureAwait(false);
    }

    private static async ValueTask<(SocketTransport? Transport, IscsiLogin Login)> LoginAsync(
        string name, IscsiPortal portal, IscsiWishes wishes, CancellationToken cancellationToken)
    {
        SocketTransport transport = await SocketTransport.ConnectAsync(
            new DnsEndPoint(portal.Host, portal.Port), cancellationToken).ConfigureAwait(false);
        bool isKept = false;
        try
        {
            var login = new IscsiLogin(name, wishes);
            var reader = new IscsiPduReader(name, login, IscsiWire.DefaultSegment, headerDigest: false, dataDigest: false);
            login.Start();
            while (true)
            {
                await transport.SendAsync(login.TakeOutput(), cancellationToken).ConfigureAwait(false);
                if (login.IsOver)
                {
                    isKept = login.Redirection is null;
                    return (isKept ? transport : null, login);
                }
                Memory<byte> wanted = reader.Wanted;
                int count = transport.TryReceive(wanted.Span);
                if (count > 0)
                {
                    reader.Advance(wanted.Span, count);
                }
                else if (count == 0)
                {
                    await transport.WaitAsync(cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    throw new IOException("it hung up during the login");
                }
            }
        }
        finally
        {
            if (!isKept)
            {
                await transport.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private int Receive()
    {
        int count;
        ScsiTask[] answered;
        bool isOver, hasText;
        lock (_lock)
        {
            Memory<byte> wanted = _reader.Wanted;
            count = _transport.TryReceive(wanted.Span);
            if (count > 0)
            {
                _reader.Advance(wanted.Span, count);
            }
            answered = _session.TakeAnswered();
            (isOver, hasText) = (_session.IsOver, _session.TextAnswer is not null);
        }
        Array.ForEach(answered, t => t.Complete(isAnswered: true));
        if (hasText)
        {
            _ = _text.TrySetResult();
        }
        if (isOver)
        {
            throw new IOException("it ended the session");
        }
        if (count >= 0)
        {
            _pump.Start(); // an answer may have opened the window, or asked for data
        }
        return count;
    }

    private void End(Exception cause) => Break(cause as DiskImageException ?? Lost(cause));

    private DiskImageException Lost(Exception cause)
        => new(DiskImageErrorKind.Io, $"{Name}: the connection to the target is lost: {cause.Message}", Name, cause: cause);
}
