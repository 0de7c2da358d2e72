using System.Buffers;
using System.Diagnostics;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Protocols;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>
/// Serves one client from its first byte to its last. What it may have under way is bounded, in requests and bytes; a client that stops in
/// the middle of a message, takes no answers, or breaks the protocol is cut off.
/// </summary>
internal sealed class ExportClient : IAsyncDisposable
{
    private const int Unit = 1 << 20; // of the memory that requests have
    private const int Units = 34; // one request of the longest kind, or many small ones
    private const int LongestShort = 256 << 10; // bytes of a request that is short. Ours

    private readonly SocketTransport _transport;
    private readonly string _name;
    private readonly ExportTimes _times;
    private readonly SemaphoreSlim _room = new(Units, Units);
    private readonly Pace _pace = new();
    private readonly ExportReplies _replies;
    private readonly CancellationTokenSource _stop, _stalled; // the latter when it stops in the middle of a message
    private volatile bool _isCutOff; // what it still has asked for is not done any more

    /// <summary>Takes over a connection.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="name">What the client is called in messages.</param>
    /// <param name="times">How long it is waited for.</param>
    /// <param name="stop">Ends it.</param>
    public ExportClient(Socket socket, string name, ExportTimes times, CancellationToken stop)
    {
        (_transport, _name, _times) = (SocketTransport.Of(socket), name, times);
        _stop = CancellationTokenSource.CreateLinkedTokenSource(stop);
        _stalled = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        _replies = new ExportReplies(_transport, times.Stall, _room, _stop.Token);
    }

    /// <summary>Serves it until it goes, or must go. Whatever happens, all it asked for has ended when this returns.</summary>
    /// <param name="disks">What it may choose from.</param>
    /// <param name="tls">How its connection is secured; null for not at all.</param>
    public async Task ServeAsync(IReadOnlyList<ExportDisk> disks, INbdServerTls? tls)
    {
        ExportDisk? entered = null;
        string? Enter(NbdOffer chosen)
        {
            ExportDisk disk = disks.First(d => ReferenceEquals(d.Offer, chosen));
            string? why = disk.TryEnter();
            entered = why is null ? disk : null;
            return why;
        }
        try
        {
            var handshake = new NbdServerHandshake(
                _name, new NbdServerOffer([.. disks.Select(d => d.Offer)], tls is not null, tls is not null, Enter));
            handshake.Start();
            using (var limit = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token))
            {
                limit.CancelAfter(_times.Handshake);
                await HandshakeAsync(handshake, tls, limit.Token).ConfigureAwait(false);
            }
            if (entered is not null)
            {
                await TransmitAsync(entered, handshake).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is DiskImageException or IOException or SocketException or OperationCanceledException
            or ObjectDisposedException or System.Security.Authentication.AuthenticationException)
        {
            if (!_stop.IsCancellationRequested || e is DiskImageException)
            {
                entered?.Count(0, 0, isError: true); // cut off; what it says is nobody's concern here
            }
        }
        finally
        {
            entered?.Leave();
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _transport.DisposeAsync().ConfigureAwait(false);
        _replies.Dispose();
        _stalled.Dispose();
        _stop.Dispose();
        _room.Dispose();
    }

    private async ValueTask HandshakeAsync(NbdServerHandshake handshake, INbdServerTls? tls, CancellationToken cancellationToken)
    {
        while (true)
        {
            await _transport.SendAsync(handshake.TakeOutput(), cancellationToken).ConfigureAwait(false);
            if (handshake.IsOver)
            {
                return;
            }
            if (handshake.AwaitsTls)
            {
                await _transport.SecureAsync(plain => tls!.AcceptAsync(plain, cancellationToken)).ConfigureAwait(false);
                handshake.Resume();
                continue;
            }
            handshake.Advance(await ReceiveAsync(handshake.Wanted, cancellationToken).ConfigureAwait(false));
        }
    }

    private async Task TransmitAsync(ExportDisk disk, NbdServerHandshake agreed)
    {
        var session = new NbdServerSession(_name, agreed.IsStructured, agreed.IsExtended);
        var talk = new Talk(disk, session, agreed, new ExportRequests(disk), new ExportReads(disk.Node, session));
        bool isNear = disk.Node.RequestsAtOnce == 0; // it answers without waiting
        try
        {
            while (!_isCutOff && await NextAsync(session).ConfigureAwait(false) is { } asked && asked.Command != NbdCommand.Disconnect)
            {
                NbdError error = talk.Requests.Check(asked);
                if (error == NbdError.None && asked.Command == NbdCommand.BlockStatus && agreed.Contexts.Count == 0)
                {
                    error = NbdError.Invalid; // nothing was agreed on that could be told
                }
                if (isNear && _pace.IsQuick && IsShort(asked, error))
                {
                    await AnswerAtOnceAsync(talk, asked, error).ConfigureAwait(false);
                }
                else
                {
                    await BeginAsync(talk, asked, error).ConfigureAwait(false);
                }
            }
            await _replies.FlushAsync().ConfigureAwait(false);
        }
        finally
        {
            for (int i = 0; i < Units; i++)
            {
                await _room.WaitAsync(CancellationToken.None).ConfigureAwait(false); // until nothing is under way any more
            }
        }
    }

    /// <summary>It takes no time worth another thread, unless the storage is slow.</summary>
    private static bool IsShort(in NbdAsked asked, NbdError error)
        => (error != NbdError.None && !asked.HasPayload)
            || (asked.Command is NbdCommand.Read or NbdCommand.Write && asked.Length <= LongestShort
            && (asked.Command == NbdCommand.Read || !asked.Flags.HasFlag(NbdCommandFlags.Fua)));

    /// <summary>Does a short request here and now; its answer waits for those that follow as long as they are here already.</summary>
    private async ValueTask AnswerAtOnceAsync(Talk talk, NbdAsked asked, NbdError error)
    {
        bool isRead = asked.Command == NbdCommand.Read && error == NbdError.None;
        byte[]? payload = asked.HasPayload ? ArrayPool<byte>.Shared.Rent((int)asked.Length) : null;
        try
        {
            Memory<byte> data = payload.AsMemory(0, payload is null ? 0 : (int)asked.Length);
            await TakePayloadAsync(talk.Session, data).ConfigureAwait(false);
            talk.Session.Next();
            int room = isRead ? ExportReads.Longest((int)asked.Length) : NbdServerSession.LongestHead;
            Memory<byte> answer = await _replies.RoomAsync(room).ConfigureAwait(false);
            long start = Stopwatch.GetTimestamp();
            _replies.Add(await DoAsync(talk, asked, error, data, answer).ConfigureAwait(false));
            _pace.Took(Stopwatch.GetElapsedTime(start));
        }
        finally
        {
            if (payload is not null)
            {
                ArrayPool<byte>.Shared.Return(payload);
            }
        }
        if (_transport.Held < talk.Session.Wanted.Length)
        {
            await _replies.FlushAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Has a request done beside what follows, within what a client may have under way.</summary>
    private async ValueTask BeginAsync(Talk talk, NbdAsked asked, NbdError error)
    {
        bool isRead = asked.Command == NbdCommand.Read && error == NbdError.None;
        int payload = asked.HasPayload && error == NbdError.None ? (int)asked.Length : 0;
        int length = isRead ? ExportReads.Longest((int)asked.Length) : Math.Max(payload, NbdServerSession.LongestHead);
        int units = Math.Min(Units, (length + Unit - 1) / Unit);
        await _replies.FlushAsync().ConfigureAwait(false);
        await TakeRoomAsync(units).ConfigureAwait(false);
        if (_isCutOff)
        {
            _ = _room.Release(units);
            throw new IOException("the client took no answers");
        }
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await TakePayloadAsync(talk.Session, buffer.AsMemory(0, payload)).ConfigureAwait(false);
        }
        catch
        {
            GiveBack(buffer, units);
            throw;
        }
        talk.Session.Next();
        _ = Task.Run(() => ProcessAsync(talk, asked, error, buffer, payload, units), CancellationToken.None);
    }

    /// <summary>All of the room, or none: whoever ends the client waits for what was taken to come back.</summary>
    private async ValueTask TakeRoomAsync(int units)
    {
        int taken = 0;
        try
        {
            for (; taken < units; taken++)
            {
                await _room.WaitAsync(_stop.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (taken > 0)
        {
            _ = _room.Release(taken);
            throw;
        }
    }

    /// <summary>Takes what comes behind a request; what has no place is dropped.</summary>
    private async ValueTask TakePayloadAsync(NbdServerSession session, Memory<byte> into)
    {
        session.Take(into);
        while (!session.IsComplete)
        {
            session.Advance(await ReceiveInsideAsync(session.Wanted).ConfigureAwait(false));
        }
    }

    private async Task ProcessAsync(Talk talk, NbdAsked asked, NbdError error, byte[] buffer, int payload, int units)
    {
        try
        {
            long start = Stopwatch.GetTimestamp();
            if (asked.Command == NbdCommand.BlockStatus && error == NbdError.None)
            {
                await _replies.SendAsync(await StatusAsync(talk, asked).ConfigureAwait(false)).ConfigureAwait(false);
                return;
            }
            // what was written is in the buffer, and the answer to it goes there afterwards
            int count = await DoAsync(talk, asked, error, buffer.AsMemory(0, payload), buffer).ConfigureAwait(false);
            if (IsShort(asked, error))
            {
                _pace.Took(Stopwatch.GetElapsedTime(start));
            }
            await _replies.SendAsync(buffer.AsMemory(0, count)).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            _isCutOff = true;
            _transport.Abort(); // whoever receives ends the client
        }
        finally
        {
            GiveBack(buffer, units);
        }
    }

    /// <summary>Does a request and makes its answer.</summary>
    /// <returns>Bytes of the answer.</returns>
    private async ValueTask<int> DoAsync(Talk talk, NbdAsked asked, NbdError error, Memory<byte> payload, Memory<byte> answer)
    {
        if (error == NbdError.None)
        {
            try
            {
                if (asked.Command == NbdCommand.Read)
                {
                    int count = await talk.Reads.AnswerAsync(asked, answer, _stop.Token).ConfigureAwait(false);
                    talk.Disk.Count((long)asked.Length, 0, isError: false);
                    return count;
                }
                // what has begun to be written is not stopped: the client may be gone, its data are not
                await talk.Requests.RunAsync(asked, payload, asked.HasPayload ? CancellationToken.None : _stop.Token).ConfigureAwait(false);
            }
            catch (DiskImageException e)
            {
                error = ExportRequests.ErrorOf(e);
            }
        }
        bool isWritten = error == NbdError.None && asked.Command is NbdCommand.Write or NbdCommand.WriteZeroes;
        talk.Disk.Count(0, isWritten ? (long)asked.Length : 0, error != NbdError.None);
        return talk.Session.Answer(asked, error, answer.Span);
    }

    private async ValueTask<byte[]> StatusAsync(Talk talk, NbdAsked asked)
    {
        NbdServerSession session = talk.Session;
        var answer = new ArrayBufferWriter<byte>();
        int[] contexts = [.. talk.Agreed.Contexts.Order()];
        try
        {
            foreach (int context in contexts)
            {
                List<NbdExtent> told = await talk.Requests.StatusAsync(
                    context, asked, session.IsExtended, _stop.Token).ConfigureAwait(false);
                answer.Write(session.AnswerStatus(asked, (uint)context, told, context == contexts[^1]));
            }
            talk.Disk.Count(0, 0, isError: false);
            return answer.WrittenSpan.ToArray();
        }
        catch (DiskImageException e)
        {
            byte[] refusal = new byte[NbdServerSession.LongestHead];
            talk.Disk.Count(0, 0, isError: true);
            return refusal[..session.Answer(asked, ExportRequests.ErrorOf(e), refusal)];
        }
    }

    private void GiveBack(byte[] buffer, int units)
    {
        ArrayPool<byte>.Shared.Return(buffer);
        _ = _room.Release(units);
    }

    /// <summary>The next request, without its payload; null where the client has gone between two of them.</summary>
    private async ValueTask<NbdAsked?> NextAsync(NbdServerSession session)
    {
        while (session.Asked is null)
        {
            int count = session.IsInside
                ? await ReceiveInsideAsync(session.Wanted).ConfigureAwait(false)
                : await ReceiveOrEndAsync(session.Wanted, _stop.Token).ConfigureAwait(false);
            if (count < 0)
            {
                return null;
            }
            session.Advance(count);
        }
        return session.Asked;
    }

    /// <summary>In the middle of a message: it goes on soon, or never.</summary>
    private async ValueTask<int> ReceiveInsideAsync(Memory<byte> into)
    {
        int count = _transport.TryReceive(into.Span);
        if (count > 0)
        {
            return count;
        }
        _stalled.CancelAfter(_times.Stall);
        count = await ReceiveAsync(into, _stalled.Token).ConfigureAwait(false);
        _stalled.CancelAfter(Timeout.InfiniteTimeSpan);
        return count;
    }

    private async ValueTask<int> ReceiveAsync(Memory<byte> into, CancellationToken cancellationToken)
    {
        int count = await ReceiveOrEndAsync(into, cancellationToken).ConfigureAwait(false);
        return count < 0 ? throw new IOException("the client hung up in the middle of a message") : count;
    }

    private async ValueTask<int> ReceiveOrEndAsync(Memory<byte> into, CancellationToken cancellationToken)
    {
        int count;
        while ((count = _transport.TryReceive(into.Span)) == 0)
        {
            await _replies.FlushAsync().ConfigureAwait(false); // nobody is kept waiting while we do
            await _transport.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        return count;
    }

    /// <summary>A conversation about an export.</summary>
    private sealed record Talk(
        ExportDisk Disk, NbdServerSession Session, NbdServerHandshake Agreed, ExportRequests Requests, ExportReads Reads);

    /// <summary>Whether the storage has answered so quickly lately that another thread would only cost time.</summary>
    private sealed class Pace
    {
        private static readonly TimeSpan s_quick = TimeSpan.FromMilliseconds(1); // ours

        private bool _isSlow;

        public bool IsQuick => !Volatile.Read(ref _isSlow);

        public void Took(TimeSpan time) => Volatile.Write(ref _isSlow, time > s_quick);
    }
}
