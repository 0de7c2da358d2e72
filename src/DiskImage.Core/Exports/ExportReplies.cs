using System.Buffers;
using System.Net.Sockets;
using DiskImage.Protocols;

namespace DiskImage.Exports;

/// <summary>
/// What goes to one client: whole answers, one at a time. Short ones may be gathered and go out together. A client that takes none for too
/// long is cut off.
/// </summary>
/// <param name="transport">The connection.</param>
/// <param name="stall">How long it may take none.</param>
/// <param name="room">For as many answers as may wait to be sent.</param>
/// <param name="stop">Ends it.</param>
internal sealed class ExportReplies(
    SocketTransport transport, TimeSpan stall, SemaphoreSlim room, CancellationToken stop) : IDisposable
{
    /// <summary>Bytes of an answer that can be gathered, at the most.</summary>
    public const int Longest = 512 << 10; // ours

    private readonly SemaphoreSlim _sending = new(1, 1);
    private readonly CancellationTokenSource _limit = CancellationTokenSource.CreateLinkedTokenSource(stop);
    private byte[]? _gathered;
    private int _used;

    /// <summary>Room for a further answer, in which what was gathered goes out if need be. Only one caller at a time gathers.</summary>
    public async ValueTask<Memory<byte>> RoomAsync(int length)
    {
        if (_used + length > Longest)
        {
            await FlushAsync().ConfigureAwait(false);
        }
        _gathered ??= ArrayPool<byte>.Shared.Rent(Longest);
        return _gathered.AsMemory(_used, length);
    }

    /// <summary>So many bytes of the room are an answer now.</summary>
    public void Add(int length) => _used += length;

    /// <summary>
    /// Sends what was gathered. It does not wait for a client that takes no answers now, which may be waiting for us to take its requests,
    /// but only for the room that they have.
    /// </summary>
    public async ValueTask FlushAsync()
    {
        if (_gathered is not { } gathered)
        {
            return;
        }
        ValueTask sending = SendAsync(gathered.AsMemory(0, _used));
        (_gathered, _used) = (null, 0);
        if (!sending.IsCompleted)
        {
            await room.WaitAsync(CancellationToken.None).ConfigureAwait(false); // what has it ends when everything does
            _ = FinishAsync(sending, gathered);
            return;
        }
        try
        {
            await sending.ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(gathered);
        }
    }

    /// <summary>Sends whole answers.</summary>
    /// <exception cref="OperationCanceledException">The client took none, or everything ends.</exception>
    public async ValueTask SendAsync(ReadOnlyMemory<byte> answer)
    {
        await _sending.WaitAsync(stop).ConfigureAwait(false);
        try
        {
            ValueTask sending = transport.SendAsync(answer, _limit.Token);
            if (sending.IsCompleted)
            {
                await sending.ConfigureAwait(false); // most of them: what can be had without a clock
                return;
            }
            _limit.CancelAfter(stall);
            await sending.ConfigureAwait(false);
            _limit.CancelAfter(Timeout.InfiniteTimeSpan);
        }
        finally
        {
            _ = _sending.Release();
        }
    }

    private async Task FinishAsync(ValueTask sending, byte[] gathered)
    {
        try
        {
            await sending.ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            transport.Abort(); // whoever receives ends the client
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(gathered);
            _ = room.Release();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_gathered is not null)
        {
            ArrayPool<byte>.Shared.Return(_gathered);
        }
        _limit.Dispose();
        _sending.Dispose();
    }
}
