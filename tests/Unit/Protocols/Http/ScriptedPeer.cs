using System.Net;
using System.Net.Sockets;
using System.Text;

namespace DiskImage.Tests.Protocols.Http;

/// <summary>A request as a web server got it.</summary>
internal sealed record PeerRequest(string Path, Dictionary<string, string> Headers)
{
    /// <summary>The range that is asked for.</summary>
    public (int From, int To) Range
    {
        get
        {
            string[] ends = Headers["range"]["bytes=".Length..].Split('-');
            return (int.Parse(ends[0], System.Globalization.CultureInfo.InvariantCulture),
                int.Parse(ends[1], System.Globalization.CultureInfo.InvariantCulture));
        }
    }
}

/// <summary>A web server that answers each request with the bytes that a script makes of it, and hangs up where there are none.</summary>
internal sealed class ScriptedPeer : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly Func<PeerRequest, int, byte[]?> _script;
    private readonly Task _accepting;
    private int _count;

    public ScriptedPeer(Func<PeerRequest, int, byte[]?> script)
    {
        _script = script;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(64);
        _accepting = Task.Run(AcceptAsync);
    }

    public string Host => $"127.0.0.1:{((IPEndPoint)_listener.LocalEndPoint!).Port}";

    /// <summary>Requests so far.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>A whole answer: head and body.</summary>
    public static byte[] Answer(string head, ReadOnlySpan<byte> body)
        => [.. Encoding.ASCII.GetBytes($"HTTP/1.1 {head}\r\nContent-Length: {body.Length}\r\n\r\n"), .. body];

    /// <summary>The range of some contents that a request asks for.</summary>
    public static byte[] Part(PeerRequest request, byte[] contents, string more = "")
    {
        (int from, int to) = request.Range;
        to = Math.Min(to, contents.Length - 1);
        return Answer($"206 Partial Content\r\nContent-Range: bytes {from}-{to}/{contents.Length}{more}", contents.AsSpan(from, to - from + 1));
    }

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        await _accepting;
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                _ = ServeAsync(await _listener.AcceptAsync());
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // it is over
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        try
        {
            using var stream = new NetworkStream(socket, ownsSocket: true);
            using var reader = new StreamReader(stream, Encoding.ASCII);
            while (await reader.ReadLineAsync() is { Length: > 0 } first)
            {
                var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
                while (await reader.ReadLineAsync() is { Length: > 0 } line)
                {
                    string[] pair = line.Split(": ", 2);
                    headers[pair[0]] = pair[1];
                }
                byte[]? answer = _script(new PeerRequest(first.Split(' ')[1], headers), Interlocked.Increment(ref _count) - 1);
                if (answer is null)
                {
                    return;
                }
                await stream.WriteAsync(answer);
                string head = Encoding.ASCII.GetString(answer, 0, Math.Min(answer.Length, 400));
                if (!head.Contains("Content-Length", StringComparison.Ordinal)
                    || answer.Length < head.IndexOf("\r\n\r\n", StringComparison.Ordinal) + 4)
                {
                    return;
                }
                int body = int.Parse(
                    head.Split("Content-Length: ")[1].Split('\r')[0], System.Globalization.CultureInfo.InvariantCulture);
                if (answer.Length < head.IndexOf("\r\n\r\n", StringComparison.Ordinal) + 4 + body)
                {
                    return; // cut
                }
            }
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            // the client hung up
        }
    }
}
