using System.Net;
using System.Net.Sockets;

namespace DiskImage.Tests.Support;

/// <summary>A server on this machine's loopback, on a port that is free. It ends with this, and with it all its connections.</summary>
internal abstract class LoopbackServer : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> _open = [];
    private readonly List<Task> _serving = [];
    private readonly CancellationTokenSource _ended = new();
    private Task _accepting = Task.CompletedTask;

    public int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    /// <summary>It is told to stop.</summary>
    protected CancellationToken Ended => _ended.Token;

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        await _ended.CancelAsync();
        lock (_open)
        {
            _open.ForEach(s => s.Dispose());
        }
        await _accepting;
        await Task.WhenAll(_serving);
        _ended.Dispose();
    }

    /// <summary>Begins; for the end of a constructor.</summary>
    protected void Listen()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(16);
        _accepting = Task.Run(AcceptAsync);
    }

    /// <summary>Serves a client until one of the two hangs up.</summary>
    protected abstract Task ServeAsync(NetworkStream client);

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                Socket client = await _listener.AcceptAsync();
                client.NoDelay = true;
                lock (_open)
                {
                    _open.Add(client);
                }
                _serving.Add(Task.Run(() => RunAsync(client)));
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It is told to stop.
        }
    }

    private async Task RunAsync(Socket client)
    {
        try
        {
            await using var stream = new NetworkStream(client, ownsSocket: true);
            await ServeAsync(stream);
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // One of the two is gone.
        }
    }
}
