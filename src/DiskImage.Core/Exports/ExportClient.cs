using System.Buffers;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>
/// Serves one client from its first byte to its last. What it may have under way is bounded, in requests and bytes; a client that stops in
/// the middle of a message, takes no answers, or breaks the protocol is cut off.
/// </summary>
internal sealed class ExportClient : IAsyncDisposable
{
    private const int Unit = 1 << 20; // of the memory that requests have
    private const int Units = 33; // one request of the longest kind, or many small ones

    private readonly NbdTransport _transport;
    private readonly string _name;
    private readonly ExportTimes _times;
    private readonly SemaphoreSlim _room = new(Units, Units);
    private readonly SemaphoreSlim _sending = new(1, 1);
    private readonly CancellationTokenSource _stop;

    /// <summary>Takes over a connection.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="name">What the client is called in messages.</param>
    /// <param name="times">How long it is waited for.</param>
    /// <param name="stop">Ends it.</param>
    public ExportClient(Socket socket, string name, ExportTimes times, CancellationToken stop)
    {
        (_transport, _name, _times) = (NbdTransport.Of(socket), name, times);
        _stop = CancellationTokenSource.CreateLinkedTokenSource(stop);
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
        _stop.Dispose();
        _room.Dispose();
        _sending.Dispose();
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
        var requests = new ExportRequests(disk);
        try
        {
            while (await NextAsync(session).ConfigureAwait(false) is { } asked && asked.Command != NbdCommand.Disconnect)
            {
                NbdError error = requests.Check(asked);
                if (error == NbdError.None && asked.Command == NbdCommand.BlockStatus && agreed.Contexts.Count == 0)
                {
                    error = NbdError.Invalid; // nothing was agreed on that could be told
                }
                bool isRead = asked.Command == NbdCommand.Read && error == NbdError.None;
                bool isWrite = asked.HasPayload && error == NbdError.None;
                int head = isRead ? session.DataHead : 0, length = isRead || isWrite ? (int)asked.Length : 0;
                int units = Math.Max(1, (head + length + Unit - 1) / Unit);
                for (int i = 0; i < units; i++)
                {
                    await _room.WaitAsync(_stop.Token).ConfigureAwait(false);
                }
                byte[] buffer = ArrayPool<byte>.Shared.Rent(Math.Max(NbdServerSession.LongestHead, head + length));
                try
                {
                    if (asked.HasPayload)
                    {
                        session.Take(isWrite ? buffer.AsMemory(0, length) : default);
                        while (!session.IsComplete)
                        {
                            session.Advance(await ReceiveInsideAsync(session.Wanted).ConfigureAwait(false));
                        }
                    }
                }
                catch
                {
                    GiveBack(buffer, units);
                    throw;
                }
                session.Next();
                _ = Task.Run(
                    () => ProcessAsync(disk, requests, session, agreed, asked, error, buffer, head, length, units), CancellationToken.None);
            }
        }
        finally
        {
            for (int i = 0; i < Units; i++)
            {
                await _room.WaitAsync(CancellationToken.None).ConfigureAwait(false); // until nothing is under way any more
            }
        }
    }

    private async Task ProcessAsync(
        ExportDisk disk,
        ExportRequests requests,
        NbdServerSession session,
        NbdServerHandshake agreed,
        NbdAsked asked,
        NbdError error,
        byte[] buffer,
        int head,
        int length,
        int units)
    {
        try
        {
            ReadOnlyMemory<byte> answer = default;
            if (error == NbdError.None)
            {
                try
                {
                    if (asked.Command == NbdCommand.BlockStatus)
                    {
                        answer = await StatusAsync(requests, session, agreed, asked).ConfigureAwait(false);
                    }
                    else
                    {
                        // what has begun to be written is not stopped: the client may be gone, its data are not
                        await requests.RunAsync(
                            asked, buffer.AsMemory(head, length), asked.HasPayload ? CancellationToken.None : _stop.Token)
                            .ConfigureAwait(false);
                    }
                }
                catch (DiskImageException e)
                {
                    error = ExportRequests.ErrorOf(e);
                }
            }
            bool isDone = error == NbdError.None;
            if (isDone && head > 0)
            {
                session.AnswerData(asked, buffer);
                answer = buffer.AsMemory(0, head + length);
            }
            else if (answer.IsEmpty)
            {
                answer = buffer.AsMemory(0, session.Answer(asked, error, buffer));
            }
            await SendAsync(answer).ConfigureAwait(false);
            disk.Count(
                isDone && head > 0 ? length : 0,
                isDone && asked.Command is NbdCommand.Write or NbdCommand.WriteZeroes ? (long)asked.Length : 0,
                !isDone);
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            _transport.Abort(); // whoever receives ends the client
        }
        finally
        {
            GiveBack(buffer, units);
        }
    }

    private async ValueTask<byte[]> StatusAsync(
        ExportRequests requests, NbdServerSession session, NbdServerHandshake agreed, NbdAsked asked)
    {
        var answer = new ArrayBufferWriter<byte>();
        int[] contexts = [.. agreed.Contexts.Order()];
        foreach (int context in contexts)
        {
            List<NbdExtent> told = await requests.StatusAsync(
                context, asked, session.IsExtended, _stop.Token).ConfigureAwait(false);
            answer.Write(session.AnswerStatus(asked, (uint)context, told, context == contexts[^1]));
        }
        return answer.WrittenSpan.ToArray();
    }

    private void GiveBack(byte[] buffer, int units)
    {
        ArrayPool<byte>.Shared.Return(buffer);
        _ = _room.Release(units);
    }

    private async ValueTask SendAsync(ReadOnlyMemory<byte> answer)
    {
        await _sending.WaitAsync(_stop.Token).ConfigureAwait(false);
        try
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
            limit.CancelAfter(_times.Stall);
            await _transport.SendAsync(answer, limit.Token).ConfigureAwait(false);
        }
        finally
        {
            _ = _sending.Release();
        }
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
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        limit.CancelAfter(_times.Stall);
        return await ReceiveAsync(into, limit.Token).ConfigureAwait(false);
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
            await _transport.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        return count;
    }
}
