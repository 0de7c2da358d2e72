using System.Diagnostics;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>How a link is made, and what it puts up with.</summary>
/// <param name="Name">What the target is called in messages.</param>
/// <param name="Portal">Where it listens.</param>
/// <param name="Wishes">What is wanted of a login.</param>
/// <param name="Lun">The logical unit.</param>
/// <param name="Reconnect">How long commands wait for a lost connection to come back; zero: they fail.</param>
/// <param name="Timeout">How long a command may go without an answer; zero: for ever.</param>
internal sealed record IscsiWay(string Name, IscsiPortal Portal, IscsiWishes Wishes, int Lun, TimeSpan Reconnect, TimeSpan Timeout);

/// <summary>
/// The way to one logical unit: a session, and a new one in its place if it is lost. It repeats what was answered with a unit attention, or
/// put off.
/// </summary>
/// <remarks>
/// Repeating is safe. What a unit attention, busy or a full task set answers was not begun. What was in flight when a connection was lost
/// is asked again in a session with the same identifiers, whose login ends the old session and all its commands first (session
/// reinstatement, RFC 7143, 6.3.5): none of them comes late, and none does more the second time. The unit must be the same as before. What
/// was answered before the loss and not flushed is trusted to be there still, as QEMU does.
/// </remarks>
internal sealed class IscsiLink : IAsyncDisposable
{
    private const int MostAttempts = 16; // of a command that is put off; with the pauses some 15 seconds. Ours
    private const int MostLosses = 4; // of connections, for one command: it may be what breaks them. Ours

    private static readonly TimeSpan s_login = TimeSpan.FromSeconds(30); // ours
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(20), s_longestPause = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim _connecting = new(1, 1); // guards the connection
    private readonly IscsiWay _way;
    private IscsiConnection _connection;
    private DiskImageException? _over; // why there is none any more

    private IscsiLink(IscsiWay way, IscsiConnection connection, ScsiUnit unit) => (_way, _connection, Unit) = (way, connection, unit);

    /// <summary>What the unit is.</summary>
    public ScsiUnit Unit { get; }

    /// <summary>What the last login agreed on.</summary>
    public IscsiAgreement Agreed => _connection.Agreed;

    /// <summary>Logs in and asks what the unit is.</summary>
    /// <exception cref="DiskImageException">What the target says.</exception>
    public static async ValueTask<IscsiLink> OpenAsync(IscsiWay way, CancellationToken cancellationToken)
    {
        IscsiConnection? connection = null;
        try
        {
            connection = await IscsiConnection.OpenAsync(
                way.Name, way.Portal, way.Wishes, Sooner(s_login, way.Timeout), cancellationToken).ConfigureAwait(false);
            return new IscsiLink(way, connection, await AskAsync(way, connection, cancellationToken).ConfigureAwait(false));
        }
        catch
        {
            if (connection is not null)
            {
                await connection.DisposeAsync().ConfigureAwait(false);
            }
            way.Wishes.Credentials.Dispose();
            throw;
        }
    }

    /// <summary>Has a command answered over one connection; it is put off, and repeated, as the target says.</summary>
    /// <param name="connection">The connection.</param>
    /// <param name="timeout">How long an answer may take; zero: for ever.</param>
    /// <param name="make">Makes the command, anew for each time that it is sent.</param>
    /// <param name="cancellationToken">Stops waiting; then nobody's memory is used any more.</param>
    /// <returns>Null if the connection was lost.</returns>
    public static async ValueTask<ScsiTask?> AnswerAsync(
        IscsiConnection connection, TimeSpan timeout, Func<ScsiTask> make, CancellationToken cancellationToken)
    {
        TimeSpan pause = s_firstPause;
        for (int i = 1; ; i++)
        {
            ScsiTask task = make();
            if (!await AnswerOnceAsync(connection, timeout, task, cancellationToken).ConfigureAwait(false))
            {
                return null;
            }
            bool isAttention = task is { Status: ScsiStatus.CheckCondition, Sense.Key: ScsiSenseKey.UnitAttention };
            bool isPutOff = task.Status is ScsiStatus.Busy or ScsiStatus.TaskSetFull
                || (task.Status == ScsiStatus.CheckCondition && task.Sense is { Key: ScsiSenseKey.AbortedCommand }
                    or { Key: ScsiSenseKey.NotReady, Asc: 0x04, Ascq: 0x01 or 0x0A or 0x14 });
            if ((!isAttention && !isPutOff) || i == MostAttempts)
            {
                return task;
            }
            if (isPutOff)
            {
                await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
                pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
            }
        }
    }

    /// <summary>Has a command answered.</summary>
    /// <inheritdoc cref="AnswerAsync"/>
    /// <exception cref="DiskImageException">There is no connection any more: why the last one was lost.</exception>
    public async ValueTask<ScsiTask> RunAsync(Func<ScsiTask> make, CancellationToken cancellationToken)
    {
        for (int losses = 0; ; losses++)
        {
            IscsiConnection connection = await ChooseAsync(losses >= MostLosses, cancellationToken).ConfigureAwait(false);
            if (await AnswerAsync(connection, _way.Timeout, make, cancellationToken).ConfigureAwait(false) is { } task)
            {
                return task;
            }
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _connection.DisposeAsync().ConfigureAwait(false);
        _way.Wishes.Credentials.Dispose();
        _connecting.Dispose();
    }

    private static async ValueTask<bool> AnswerOnceAsync(
        IscsiConnection connection, TimeSpan timeout, ScsiTask task, CancellationToken cancellationToken)
    {
        if (timeout == TimeSpan.Zero)
        {
            return await connection.RunAsync(task, cancellationToken).ConfigureAwait(false);
        }
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(timeout);
        try
        {
            return await connection.RunAsync(task, limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            connection.Break(new DiskImageException(
                DiskImageErrorKind.Io,
                $"{connection.Name}: the target did not answer a command within {timeout.TotalSeconds:0} s",
                connection.Name));
            return false;
        }
    }

    private static ValueTask<ScsiUnit> AskAsync(IscsiWay way, IscsiConnection connection, CancellationToken cancellationToken)
        => ScsiUnit.AskAsync(
            way.Name,
            way.Lun,
            async (make, stop) => await AnswerAsync(connection, way.Timeout, make, stop).ConfigureAwait(false) ?? throw connection.Broken!,
            needsMedium: true,
            cancellationToken);

    private static TimeSpan Sooner(TimeSpan one, TimeSpan other) => other == TimeSpan.Zero || one < other ? one : other;

    private async ValueTask<IscsiConnection> ChooseAsync(bool isLost, CancellationToken cancellationToken)
    {
        IscsiConnection connection = Volatile.Read(ref _connection);
        if (connection.Broken is null && !isLost)
        {
            return connection;
        }
        await _connecting.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_over is not null)
            {
                throw _over;
            }
            if (_connection.Broken is { } cause)
            {
                if (isLost || _way.Reconnect == TimeSpan.Zero)
                {
                    throw _over = cause;
                }
                await ReconnectAsync(cause, cancellationToken).ConfigureAwait(false);
            }
            return _connection;
        }
        finally
        {
            _ = _connecting.Release();
        }
    }

    private async ValueTask ReconnectAsync(DiskImageException cause, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        TimeSpan Left() => _way.Reconnect - Stopwatch.GetElapsedTime(start);
        await _connection.DisposeAsync().ConfigureAwait(false);
        for (TimeSpan pause = s_firstPause; ; pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause)
        {
            IscsiConnection? made = null;
            try
            {
                TimeSpan limit = Left() is var left && left > TimeSpan.FromSeconds(1) ? left : TimeSpan.FromSeconds(1);
                made = await IscsiConnection.OpenAsync(
                    _way.Name, _connection.Portal, _way.Wishes, Sooner(limit, _way.Timeout), cancellationToken).ConfigureAwait(false);
                ScsiUnit unit = await AskAsync(_way, made, cancellationToken).ConfigureAwait(false);
                if (!unit.IsSame(Unit))
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Corrupt,
                        $"{_way.Name}: is another unit since the connection was lost and made anew: it has {unit.Length:#,0} bytes and the "
                            + $"serial number '{unit.Serial}', and had {Unit.Length:#,0} and '{Unit.Serial}'",
                        _way.Name);
                }
                Volatile.Write(ref _connection, made);
                return;
            }
            catch (Exception e)
            {
                if (made is not null)
                {
                    await made.DisposeAsync().ConfigureAwait(false);
                }
                if (e is not DiskImageException error)
                {
                    throw;
                }
                if (error.Kind is not (DiskImageErrorKind.Io or DiskImageErrorKind.NotFound) || Left() < pause)
                {
                    throw _over = new DiskImageException(
                        error.Kind,
                        $"{cause.Wording}. It did not come back within {_way.Reconnect.TotalSeconds:0} s: {error.Wording}",
                        _way.Name,
                        cause: error);
                }
            }
            await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
        }
    }
}
