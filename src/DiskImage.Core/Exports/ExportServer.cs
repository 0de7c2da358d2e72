using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>How long a client is waited for before it is cut off.</summary>
/// <param name="Handshake">For all of the handshake.</param>
/// <param name="Stall">In the middle of a message, and for it to take an answer.</param>
internal sealed record ExportTimes(TimeSpan Handshake, TimeSpan Stall)
{
    /// <summary>Ours.</summary>
    public static ExportTimes Default { get; } = new(TimeSpan.FromSeconds(30), TimeSpan.FromSeconds(60));
}

/// <summary>How a server's connections are secured.</summary>
public sealed class ExportSecurity
{
    private ExportSecurity(INbdServerTls tls) => Tls = tls;

    internal INbdServerTls Tls { get; }

    /// <summary>
    /// By the certificate in a folder: <c>server-cert.pem</c> and <c>server-key.pem</c>. With <c>ca-cert.pem</c> beside them clients must
    /// show a certificate of that authority.
    /// </summary>
    /// <exception cref="DiskImageException">It is not there, or cannot be read.</exception>
    public static ExportSecurity ByCertificate(string folder) => new(new NbdServerX509(folder));

    /// <summary>By keys that clients know, too, from a file with a line <c>name:hexadecimal digits</c> for each.</summary>
    /// <exception cref="DiskImageException">It is not there, or cannot be read.</exception>
    public static ExportSecurity ByKeys(string file) => new(NbdPsk.Server(file));
}

/// <summary>Serves disks to NBD clients, until it is disposed.</summary>
/// <remarks>It is no node: it stands above the disks that it serves, as a job does, and owns none of them.</remarks>
public sealed class ExportServer : IAsyncDisposable
{
    private const int MostClients = 256; // at a time. Ours

    private readonly Socket _listener;
    private readonly INbdServerTls? _tls;
    private readonly ExportTimes _times;
    private readonly string? _socketPath;
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentDictionary<Task, byte> _clients = new();
    private readonly Task _accepting;
    private int _isDisposed;

    private ExportServer(
        Socket listener, string? socketPath, IReadOnlyList<ExportDisk> disks, INbdServerTls? tls, ExportTimes times)
    {
        (_listener, _socketPath, Disks, _tls, _times) = (listener, socketPath, disks, tls, times);
        Address = listener.LocalEndPoint!;
        _accepting = Task.Run(AcceptAsync);
    }

    /// <summary>Where it listens.</summary>
    public EndPoint Address { get; }

    /// <summary>Its connections must be under TLS.</summary>
    public bool IsSecure => _tls is not null;

    /// <summary>What it serves; the first is what clients get who name none.</summary>
    public IReadOnlyList<ExportDisk> Disks { get; }

    /// <summary>Begins to serve.</summary>
    /// <param name="address">Where to listen: an address and port (0 for a free one), or a unix socket.</param>
    /// <param name="disks">What to serve.</param>
    /// <param name="security">How connections are secured; null for not at all.</param>
    /// <param name="cancellationToken">Stops the beginning.</param>
    /// <exception cref="DiskImageException">
    /// AlreadyExists, AccessDenied, Io: it cannot listen there; InvalidOption: two disks have one name; what a disk's bitmaps say.
    /// </exception>
    public static ValueTask<ExportServer> StartAsync(
        EndPoint address, IReadOnlyList<ExportDisk> disks, ExportSecurity? security, CancellationToken cancellationToken)
        => StartAsync(address, disks, security?.Tls, ExportTimes.Default, cancellationToken);

    /// <inheritdoc cref="StartAsync(EndPoint, IReadOnlyList{ExportDisk}, ExportSecurity?, CancellationToken)"/>
    internal static async ValueTask<ExportServer> StartAsync(
        EndPoint address, IReadOnlyList<ExportDisk> disks, INbdServerTls? tls, ExportTimes times, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(address);
        if (disks.DistinctBy(d => d.Name, StringComparer.Ordinal).Count() != disks.Count
            || disks.FirstOrDefault(d => System.Text.Encoding.UTF8.GetByteCount(d.Name) > NbdWire.MaximumText) is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"Exports of one server need names of their own, of at most {NbdWire.MaximumText:#,0} bytes. Given: "
                    + string.Join(", ", disks.Select(d => $"'{d.Name}'")));
        }
        foreach (ExportDisk disk in disks)
        {
            await disk.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        string? path = (address as UnixDomainSocketEndPoint)?.ToString();
        return new ExportServer(await ListenAsync(address, path, cancellationToken).ConfigureAwait(false), path, disks, tls, times);
    }

    /// <summary>Cuts all clients off, waits until nothing is under way any more, and makes what they wrote durable.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
        {
            return;
        }
        await _stop.CancelAsync().ConfigureAwait(false);
        _listener.Dispose();
        await _accepting.ConfigureAwait(false);
        await Task.WhenAll(_clients.Keys).ConfigureAwait(false);
        if (_socketPath is not null)
        {
            System.IO.File.Delete(_socketPath);
        }
        _stop.Dispose();
        await Closing.AllAsync(Disks.Select(d => (Func<ValueTask>)(() => d.Node.FlushAsync()))).ConfigureAwait(false);
    }

    private static async ValueTask<Socket> ListenAsync(EndPoint address, string? path, CancellationToken cancellationToken)
    {
        // of the address's own family, so that it is called as it was given
        var listener = new Socket(address.AddressFamily, SocketType.Stream, path is null ? ProtocolType.Tcp : ProtocolType.Unspecified);
        try
        {
            if (path is not null && System.IO.File.Exists(path))
            {
                await RemoveStaleAsync(path, cancellationToken).ConfigureAwait(false);
            }
            listener.Bind(address);
            listener.Listen(64);
            return listener;
        }
        catch (Exception e) when (e is SocketException or UnauthorizedAccessException || (e is IOException and not DiskImageException))
        {
            listener.Dispose();
            DiskImageErrorKind kind = e is SocketException socket
                ? socket.SocketErrorCode switch
                {
                    SocketError.AddressAlreadyInUse => DiskImageErrorKind.AlreadyExists,
                    SocketError.AccessDenied => DiskImageErrorKind.AccessDenied,
                    _ => DiskImageErrorKind.Io,
                }
                : DiskImageErrorKind.AccessDenied;
            throw new DiskImageException(kind, $"{path ?? address.ToString()}: cannot listen there: {e.Message}", path, cause: e);
        }
        catch
        {
            listener.Dispose();
            throw;
        }
    }

    /// <summary>A socket that nobody listens at was left by a server that died. Anything else stays.</summary>
    private static async ValueTask RemoveStaleAsync(string path, CancellationToken cancellationToken)
    {
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await probe.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken).ConfigureAwait(false);
        }
        catch (SocketException e) when (
            e.SocketErrorCode == SocketError.ConnectionRefused && new FileInfo(path) is { Length: 0 } file
            && (OperatingSystem.IsWindows() || IsSocket(file)))
        {
            file.Delete();
            return;
        }
        catch (SocketException)
        {
            // something else than a socket
        }
        throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{path}: is there already, and in use or no socket", path);
    }

    private static bool IsSocket(FileInfo file)
        => !file.Attributes.HasFlag(FileAttributes.Directory) && !file.Attributes.HasFlag(FileAttributes.ReparsePoint);

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            Socket socket;
            try
            {
                socket = await _listener.AcceptAsync(_stop.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
            catch (SocketException)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(100)).ConfigureAwait(false); // no descriptors left, or the client went at once
                continue;
            }
            if (_clients.Count >= MostClients)
            {
                socket.Dispose();
                continue;
            }
            Task serving = ServeAsync(socket);
            _ = _clients.TryAdd(serving, 0);
            _ = serving.ContinueWith(
                done => _clients.TryRemove(done, out _), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        string name = socket.AddressFamily == AddressFamily.Unix ? "client" : $"client {socket.RemoteEndPoint}";
        var client = new ExportClient(socket, name, _times, _stop.Token);
        await using (client.ConfigureAwait(false))
        {
            await client.ServeAsync(Disks, _tls).ConfigureAwait(false);
        }
    }
}
