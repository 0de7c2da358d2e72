using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>A server that one is logged in to: what can be asked about its files, with errors in the house's terms.</summary>
/// <param name="connection">The connection.</param>
/// <param name="name">What the file that all is about is called in messages.</param>
/// <param name="leave">Told at the end that the connection is not used any more; null to close it.</param>
internal sealed class SshServer(SftpConnection connection, string name, Func<SftpConnection, ValueTask>? leave = null) : IAsyncDisposable
{
    private static readonly TimeSpan s_farewell = TimeSpan.FromSeconds(2); // for what is done at the end, whatever happened. Ours

    /// <summary>What the file that all is about is called.</summary>
    public string Name => name;

    /// <summary>The connection.</summary>
    public SftpConnection Connection => connection;

    /// <summary>What is under a path, symbolic links followed; null for nothing.</summary>
    /// <exception cref="DiskImageException">AccessDenied and the like: what the server says.</exception>
    public ValueTask<SftpAttributes?> LookAsync(string path, CancellationToken cancellationToken)
        => LookAsync(SftpPacket.Stat, path, cancellationToken);

    /// <summary>The same, of a symbolic link itself.</summary>
    public ValueTask<SftpAttributes?> LookAtNameAsync(string path, CancellationToken cancellationToken)
        => LookAsync(SftpPacket.LinkStat, path, cancellationToken);

    /// <summary>Opens a file.</summary>
    /// <exception cref="DiskImageException">NotFound, AccessDenied and the like: what the server says.</exception>
    public async ValueTask<byte[]> OpenAsync(
        string path, SftpOpen how, SftpAttributes attributes, string doing, CancellationToken cancellationToken)
    {
        SftpRequest opened = await connection.RunAsync(SftpRequest.Open(path, how, attributes), cancellationToken).ConfigureAwait(false);
        Require(opened, doing);
        return opened.Answer;
    }

    /// <summary>What an open file is like.</summary>
    public async ValueTask<SftpAttributes> AttributesAsync(byte[] handle, CancellationToken cancellationToken)
    {
        SftpRequest told = await connection.RunAsync(
            SftpRequest.OfHandle(SftpPacket.FileStat, handle), cancellationToken).ConfigureAwait(false);
        Require(told, "ask for the length of");
        return told.Attributes;
    }

    /// <summary>Where a path leads, symbolic links followed as far as the server does that.</summary>
    public async ValueTask<string> ResolveAsync(string path, CancellationToken cancellationToken)
    {
        SftpRequest told = await connection.RunAsync(
            SftpRequest.OfPath(SftpPacket.RealPath, path), cancellationToken).ConfigureAwait(false);
        Require(told, "find");
        return Encoding.UTF8.GetString(told.Answer);
    }

    /// <summary>Runs a request that must succeed.</summary>
    public async ValueTask RunAsync(SftpRequest request, string doing, CancellationToken cancellationToken)
        => Require(await connection.RunAsync(request, cancellationToken).ConfigureAwait(false), doing);

    /// <summary>Runs a request at the end, bounded in time; whether it succeeded.</summary>
    public async ValueTask<bool> TryLastAsync(SftpRequest request)
    {
        using var enough = new CancellationTokenSource(s_farewell);
        try
        {
            return (await connection.RunAsync(request, enough.Token).ConfigureAwait(false)).Status == SftpStatus.Ok;
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            return false; // the server is gone, or too slow to be told
        }
    }

    /// <summary>Bytes of room where an open file is; null where the server does not tell.</summary>
    public async ValueTask<long?> RoomAsync(byte[] handle, CancellationToken cancellationToken)
    {
        if (!connection.Has(SftpWire.FileSystem))
        {
            return null;
        }
        SftpRequest told = await connection.RunAsync(SftpRequest.FileSystem(handle), cancellationToken).ConfigureAwait(false);
        if (told.Status != SftpStatus.Ok || told.Answer.Length < 40)
        {
            return null;
        }
        // unit of requests, unit of what follows, units in all, free, free for who asks
        UInt128 room = (UInt128)BinaryPrimitives.ReadUInt64BigEndian(told.Answer.AsSpan(8))
            * BinaryPrimitives.ReadUInt64BigEndian(told.Answer.AsSpan(32));
        return room > long.MaxValue ? long.MaxValue : (long)room;
    }

    /// <summary>Throws if a request failed.</summary>
    /// <exception cref="DiskImageException">What the server says.</exception>
    public void Require(SftpRequest request, string doing, long? offset = null, DiskImageErrorKind failure = DiskImageErrorKind.Io)
    {
        if (request.Status != SftpStatus.Ok)
        {
            throw Error(request, doing, offset, failure);
        }
    }

    /// <summary>What a request failed with.</summary>
    /// <param name="request">The request.</param>
    /// <param name="doing">What it was to do, as it stands before "it" or a place.</param>
    /// <param name="offset">Where in the file.</param>
    /// <param name="failure">The kind of what the server gives no reason for.</param>
    public DiskImageException Error(SftpRequest request, string doing, long? offset, DiskImageErrorKind failure)
    {
        (DiskImageErrorKind kind, string what) = request.Status switch
        {
            SftpStatus.EndOfFile => (DiskImageErrorKind.Io, "it ends before that"),
            SftpStatus.NoSuchFile => (DiskImageErrorKind.NotFound, "no such file"),
            SftpStatus.PermissionDenied => (DiskImageErrorKind.AccessDenied, "the server does not permit it"),
            SftpStatus.Unsupported => (DiskImageErrorKind.Unsupported, "the server does not know how"),
            SftpStatus.BadMessage => (failure, "the server does not take such a request"),
            SftpStatus.Failure => (failure, "the server failed to, and gives no reason"),
            _ => (failure, $"the server answers with status {(uint)request.Status}"),
        };
        bool isNews = request.Status is not (SftpStatus.NoSuchFile or SftpStatus.PermissionDenied)
            && request.StatusText is { Length: > 0 } and not "Failure";
        return new DiskImageException(
            kind, $"{name}: cannot {doing}: {what}{(isNews ? $" ({request.StatusText})" : "")}", name, offset);
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => leave is null ? connection.DisposeAsync() : leave(connection);

    private async ValueTask<SftpAttributes?> LookAsync(SftpPacket type, string path, CancellationToken cancellationToken)
    {
        SftpRequest told = await connection.RunAsync(SftpRequest.OfPath(type, path), cancellationToken).ConfigureAwait(false);
        if (told.Status == SftpStatus.NoSuchFile)
        {
            return null;
        }
        Require(told, "look at it");
        return told.Attributes;
    }
}
