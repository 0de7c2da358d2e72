using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>A gateway to a cluster in memory: serves it over TCP, and what it says can be changed, cut off, held back.</summary>
internal sealed class ScriptedSheep : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> _open = [];
    private readonly List<Task> _serving = [];
    private readonly Task _accepting;
    private long _requests;

    public ScriptedSheep(ScriptedCluster? cluster = null)
    {
        Cluster = cluster ?? new ScriptedCluster();
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(16);
        _accepting = Task.Run(AcceptAsync);
    }

    public ScriptedCluster Cluster { get; }

    public int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    /// <summary>Requests that have come, over all connections.</summary>
    public long Requests => Interlocked.Read(ref _requests);

    /// <summary>The bytes of each answer go through it.</summary>
    public Func<byte[], byte[]> Damage { get; set; } = b => b;

    /// <summary>After so many requests that were done, counted from now, the connection is cut without an answer; -1 for never.</summary>
    public long CutAfter { get; set; } = -1;

    /// <summary>Bytes of answers that are sent before the connection is cut; -1 for all.</summary>
    public long CutAfterBytes { get; set; } = -1;

    /// <summary>Nothing is answered any more.</summary>
    public volatile bool Hangs;

    public string Url(string vdi) => $"sheepdog://127.0.0.1:{Port}/{vdi}";

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        lock (_open)
        {
            _open.ForEach(s => s.Dispose());
        }
        await _accepting;
        await Task.WhenAll(_serving);
    }

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
                _serving.Add(Task.Run(() => ServeAsync(client)));
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It is told to stop.
        }
    }

    private async Task ServeAsync(Socket client)
    {
        try
        {
            using var stream = new NetworkStream(client, ownsSocket: true);
            byte[] header = new byte[ScriptedCluster.Header];
            while (true)
            {
                await stream.ReadExactlyAsync(header);
                int length = (header[2] & 1) != 0 ? BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(12)) : 0;
                byte[] request = [.. header, .. new byte[length]];
                await stream.ReadExactlyAsync(request.AsMemory(ScriptedCluster.Header));
                _ = Interlocked.Increment(ref _requests);
                byte[] answer;
                lock (Cluster)
                {
                    if (CutAfter == 0)
                    {
                        return;
                    }
                    CutAfter -= CutAfter > 0 ? 1 : 0;
                    answer = Damage(Cluster.Answer(request));
                }
                while (Hangs)
                {
                    await Task.Delay(20);
                }
                if (CutAfterBytes >= 0)
                {
                    int count = (int)Math.Min(CutAfterBytes, answer.Length);
                    CutAfterBytes -= count;
                    await stream.WriteAsync(answer.AsMemory(0, count));
                    if (count < answer.Length)
                    {
                        return;
                    }
                    continue;
                }
                await stream.WriteAsync(answer);
            }
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
        {
            // The client is gone.
        }
    }
}
