using System.Diagnostics;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// The connections to one export: as many as its server allows and the work needs. It carries a request over one of them, and over a new
/// one if that is lost and somebody waits for it to come back.
/// </summary>
/// <remarks>
/// What was lost on the way is asked again, so a request may reach the server twice; none of those that are sent does any more the second
/// time. What the server took before the loss and did not flush may be gone with a server that died: as QEMU, we trust it to have kept it.
/// </remarks>
internal sealed class NbdConnections : IAsyncDisposable
{
    /// <summary>Requests that are under way at once, waiting for a connection included; others wait for one of them. Ours.</summary>
    public const int MostRequests = 64;

    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(50), s_longestPause = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim _slots = new(MostRequests, MostRequests);
    private readonly SemaphoreSlim _connecting = new(1, 1); // guards what is added to the list
    private readonly CancellationTokenSource _closing = new();
    private readonly NbdPlace _place;
    private readonly NbdWishes _wishes;
    private readonly TimeSpan _delay;
    private readonly int _most;
    private NbdConnection[] _connections; // replaced as a whole
    private DiskImageException? _over; // why there is none any more
    private Task _growing = Task.CompletedTask;
    private int _isGrowing;

    private NbdConnections(NbdPlace place, NbdWishes wishes, TimeSpan delay, int most, NbdConnection first)
    {
        (_place, _wishes, _delay, Info) = (place, wishes, delay, first.Info);
        _most = first.Info.Can(NbdExportFlags.CanMultiConnect) ? most : 1;
        _connections = [first];
    }

    /// <summary>What was agreed on.</summary>
    public NbdExportInfo Info { get; }

    /// <summary>How many there are.</summary>
    public int Count => _connections.Length;

    /// <summary>Connects.</summary>
    /// <param name="place">Where to.</param>
    /// <param name="wishes">What is wanted.</param>
    /// <param name="options">How long is waited, and how many connections are made.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">As the first connection says.</exception>
    public static async ValueTask<NbdConnections> OpenAsync(
        NbdPlace place, NbdWishes wishes, NbdOptions options, CancellationToken cancellationToken)
    {
        NbdConnection first = await UntilAsync(
            place, wishes, TimeSpan.FromSeconds(options.OpenTimeout), cancellationToken).ConfigureAwait(false);
        return new NbdConnections(place, wishes, TimeSpan.FromSeconds(options.ReconnectDelay), (int)options.Connections, first);
    }

    /// <summary>Has a request answered.</summary>
    /// <param name="make">Makes it, anew for each time that it is sent.</param>
    /// <param name="cancellationToken">Stops waiting; then nothing is put into the request's buffer any more.</param>
    /// <exception cref="DiskImageException">There is no connection any more: why the last one was lost.</exception>
    public async ValueTask<NbdRequest> RunAsync(Func<NbdRequest> make, CancellationToken cancellationToken)
    {
        await _slots.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            while (true)
            {
                NbdConnection connection = await ChooseAsync(cancellationToken).ConfigureAwait(false);
                NbdRequest request = make();
                if (await connection.RunAsync(request, cancellationToken).ConfigureAwait(false))
                {
                    return request;
                }
                if (_delay == TimeSpan.Zero)
                {
                    throw End(connection.Broken!);
                }
            }
        }
        finally
        {
            _ = _slots.Release();
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        await _growing.ConfigureAwait(false);
        await Closing.AllAsync(_connections.Select(c => (Func<ValueTask>)c.DisposeAsync)).ConfigureAwait(false);
        _closing.Dispose();
        _slots.Dispose();
        _connecting.Dispose();
    }

    /// <summary>The connection with the least to do; a new one where there is none any more and one may be waited for.</summary>
    private async ValueTask<NbdConnection> ChooseAsync(CancellationToken cancellationToken)
    {
        if (Volatile.Read(ref _over) is { } over)
        {
            throw over;
        }
        NbdConnection[] connections = Volatile.Read(ref _connections);
        NbdConnection? best = null;
        foreach (NbdConnection connection in connections)
        {
            if (connection.Broken is null && (best is null || connection.InFlight < best.InFlight))
            {
                best = connection;
            }
        }
        if (best is null)
        {
            return await ReconnectAsync(cancellationToken).ConfigureAwait(false);
        }
        if (best.InFlight > 0 && connections.Length < _most && Interlocked.Exchange(ref _isGrowing, 1) == 0)
        {
            _growing = Task.Run(GrowAsync, CancellationToken.None);
        }
        return best;
    }

    private async ValueTask<NbdConnection> ReconnectAsync(CancellationToken cancellationToken)
    {
        await _connecting.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_over is not null)
            {
                throw _over;
            }
            if (Array.Find(_connections, c => c.Broken is null) is { } there)
            {
                return there;
            }
            DiskImageException cause = _connections[0].Broken!;
            if (_delay == TimeSpan.Zero)
            {
                throw End(cause);
            }
            NbdConnection made;
            try
            {
                made = await UntilAsync(_place, _wishes, _delay, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e)
            {
                throw End(new DiskImageException(
                    e.Kind, $"{cause.Wording}. It did not come back within {_delay.TotalSeconds:0} s: {e.Wording}", _place.Name, cause: e));
            }
            if (!IsSame(made.Info))
            {
                await made.DisposeAsync().ConfigureAwait(false);
                throw End(new DiskImageException(
                    DiskImageErrorKind.Io,
                    $"{_place.Name}: is another export since the connection was lost and made anew: it has {made.Info.Length:#,0} bytes, "
                        + $"and had {Info.Length:#,0}, or it allows less",
                    _place.Name));
            }
            NbdConnection[] old = _connections;
            Volatile.Write(ref _connections, [made]);
            foreach (NbdConnection lost in old)
            {
                await lost.DisposeAsync().ConfigureAwait(false);
            }
            _ = Interlocked.Exchange(ref _isGrowing, 0);
            return made;
        }
        finally
        {
            _ = _connecting.Release();
        }
    }

    /// <summary>Makes the further connections. A server that does not want them keeps the one it has.</summary>
    private async Task GrowAsync()
    {
        try
        {
            while (true)
            {
                NbdConnection further = await NbdConnection.OpenAsync(_place, _wishes, _closing.Token).ConfigureAwait(false);
                await _connecting.WaitAsync(CancellationToken.None).ConfigureAwait(false);
                bool isTaken = IsSame(further.Info) && _connections.Length < _most && _over is null;
                if (isTaken)
                {
                    Volatile.Write(ref _connections, [.. _connections, further]);
                }
                _ = _connecting.Release();
                if (!isTaken)
                {
                    await further.DisposeAsync().ConfigureAwait(false);
                    return;
                }
            }
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            // As many as there are will do.
        }
    }

    private static async ValueTask<NbdConnection> UntilAsync(
        NbdPlace place, NbdWishes wishes, TimeSpan limit, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        for (TimeSpan pause = s_firstPause; ; pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause)
        {
            try
            {
                return await NbdConnection.OpenAsync(place, wishes, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (
                e.Kind is DiskImageErrorKind.Io or DiskImageErrorKind.NotFound && Stopwatch.GetElapsedTime(start) + pause < limit)
            {
                await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>What was agreed on now is good for requests that were made for what was agreed on before.</summary>
    private bool IsSame(NbdExportInfo now)
        => now.Length == Info.Length && (now.Flags & Info.Flags) == Info.Flags && now.MinimumBlock == Info.MinimumBlock
            && now.IsStructured == Info.IsStructured && now.IsExtended == Info.IsExtended && now.MaximumPayload == Info.MaximumPayload
            && now.Contexts.Keys.Order(StringComparer.Ordinal)
                .SequenceEqual(Info.Contexts.Keys.Order(StringComparer.Ordinal), StringComparer.Ordinal);

    private DiskImageException End(DiskImageException cause) => Interlocked.CompareExchange(ref _over, cause, null) ?? cause;
}
