using System.Net.Sockets;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>Stands between a client and a server at unix sockets, and cuts all connections when so many bytes have come from the server.</summary>
internal sealed class CuttingProxy : IAsyncDisposable
{
    private readonly string _server;
    private readonly Queue<long> _cuts;
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly List<Socket> _open = [];
    private readonly Task _accepting;
    private long _passed;

    public CuttingProxy(string path, string server, IEnumerable<long> cuts)
    {
        (_server, _cuts) = (server, new Queue<long>(cuts));
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen(16);
        _accepting = Task.Run(AcceptAsync);
    }

    /// <summary>How often it has cut.</summary>
    public int Cuts { get; private set; }

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        Cut();
        await _accepting;
    }

    private void Cut()
    {
        lock (_open)
        {
            _open.ForEach(s => s.Dispose());
            _open.Clear();
        }
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                Socket client = await _listener.AcceptAsync();
                var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await server.ConnectAsync(new UnixDomainSocketEndPoint(_server));
                lock (_open)
                {
                    _open.Add(client);
                    _open.Add(server);
                }
                _ = PassAsync(client, server, counts: false);
                _ = PassAsync(server, client, counts: true);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // it is over
        }
    }

    private async Task PassAsync(Socket from, Socket to, bool counts)
    {
        byte[] buffer = new byte[32 << 10];
        try
        {
            int count;
            while ((count = await from.ReceiveAsync(buffer)) > 0)
            {
                bool cuts = false;
                lock (_cuts)
                {
                    if (counts && (_passed += count) > 0 && _cuts.TryPeek(out long at) && _passed >= at)
                    {
                        _ = _cuts.Dequeue();
                        cuts = true;
                        Cuts++;
                    }
                }
                if (cuts)
                {
                    Cut();
                    return;
                }
                for (int sent = 0; sent < count;)
                {
                    sent += await to.SendAsync(buffer.AsMemory(sent, count - sent));
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // cut
        }
        from.Dispose();
        to.Dispose();
    }
}
