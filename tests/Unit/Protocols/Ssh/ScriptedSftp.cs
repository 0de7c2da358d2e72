using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Protocols.Ssh;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>A request as a server gets it.</summary>
internal readonly record struct SftpAsked(SftpPacket Type, uint Id, byte[] Body);

/// <summary>
/// A server that answers each request with what a script makes of it, and hangs up where that is nothing, or after so many bytes.
/// </summary>
internal sealed class ScriptedSftp : IAsyncDisposable
{
    private readonly Socket _client, _server;
    private readonly Task _serving;
    private readonly Func<SftpAsked, byte[]?> _script;
    private int _budget;

    private ScriptedSftp(Socket client, Socket server, Func<SftpAsked, byte[]?> script, int budget)
    {
        (_client, _server, _script, _budget) = (client, server, script, budget);
        _serving = Task.Run(ServeAsync);
    }

    /// <summary>Starts it, with a client connected.</summary>
    /// <param name="script">What it answers.</param>
    /// <param name="budget">Bytes of answers until it hangs up.</param>
    /// <param name="held">Bytes that lie between the two at most, about; 0 for what the system thinks best.</param>
    public static async Task<ScriptedSftp> StartAsync(Func<SftpAsked, byte[]?> script, int budget = int.MaxValue, int held = 0)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        if (held > 0)
        {
            (listener.ReceiveBufferSize, client.SendBufferSize) = (held / 2, held / 2);
        }
        listener.Listen();
        await client.ConnectAsync(listener.LocalEndPoint!);
        return new ScriptedSftp(client, await listener.AcceptAsync(), script, budget);
    }

    /// <summary>Our side's connection to it.</summary>
    public async Task<SftpConnection> ConnectAsync()
    {
        var stream = new NetworkStream(_client, ownsSocket: true);
        return await SftpConnection.OpenAsync(new SftpTransport(stream, stream), "scripted", CancellationToken.None);
    }

    /// <summary>A file of it.</summary>
    public async Task<SshNode> OpenAsync(long size = 1 << 20)
        => new(
            "scripted", new SshServer(await ConnectAsync(), "scripted"), [7], new SftpAttributes(Size: size), new NodeIdentity("ssh:scripted"),
            writable: true, ownsServer: true);

    public async ValueTask DisposeAsync()
    {
        _client.Dispose();
        _server.Dispose();
        await _serving;
    }

    private async Task ServeAsync()
    {
        try
        {
            await using var stream = new NetworkStream(_server, ownsSocket: true);
            while (true)
            {
                byte[] head = new byte[5];
                await stream.ReadExactlyAsync(head);
                byte[] rest = new byte[BinaryPrimitives.ReadInt32BigEndian(head) - 1];
                await stream.ReadExactlyAsync(rest);
                var asked = new SftpAsked((SftpPacket)head[4], BinaryPrimitives.ReadUInt32BigEndian(rest), rest[4..]);
                byte[]? answer = _script(asked);
                if (answer is null)
                {
                    return;
                }
                int count = Math.Min(answer.Length, _budget);
                _budget -= count;
                await stream.WriteAsync(answer.AsMemory(0, count));
                if (_budget == 0)
                {
                    return;
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or SocketException)
        {
            // The client is gone.
        }
    }
}
