using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>A file of an SSH server.</summary>
/// <remarks>SFTP knows no holes: all of it is data. Nor does it know locks: two who write to one file are not kept from that.</remarks>
/// <param name="name">The file as a URI that leads to it again.</param>
/// <param name="server">The server.</param>
/// <param name="handle">The file, open there.</param>
/// <param name="attributes">What it is like.</param>
/// <param name="identity">Which file it is.</param>
/// <param name="writable">It is open for writing.</param>
/// <param name="ownsServer">The connection ends with the node.</param>
internal sealed class SshNode(
    string name,
    SshServer server,
    byte[] handle,
    SftpAttributes attributes,
    NodeIdentity identity,
    bool writable,
    bool ownsServer) : BlockNode
{
    private const int Page = 4096; // at multiples of which pieces of a request begin, where it begins at one
    private const int ZeroesAtOnce = 1 << 20;

    private readonly RangeLock _sizing = new(); // writes share it, a change of the length excludes them
    private long _length = attributes.Size ?? 0;

    public override string Name => name;

    public override long Length => Interlocked.Read(ref _length);

    public override bool IsReadOnly => !writable;

    public override bool GrowsOnWrite => true;

    public override NodeIdentity? Identity => identity;

    public override DateTimeOffset? LastWriteTime
        => attributes.Modified is { } seconds ? DateTimeOffset.FromUnixTimeSeconds(seconds) : null;

    public override BlockLimits Limits => new(InFlight: 8);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => InPiecesAsync(
            buffer.Length,
            server.Connection.Largest.Read,
            (at, length) => ReadPieceAsync(offset + at, buffer.Slice(at, length), cancellationToken));

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await _sizing.AcquireAsync(
            offset, offset + buffer.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            await InPiecesAsync(
                buffer.Length,
                server.Connection.Largest.Write,
                (at, length) => WritePieceAsync(offset + at, buffer.Slice(at, length), cancellationToken)).ConfigureAwait(false);
            Reaches(offset + buffer.Length);
        }
        finally
        {
            _sizing.Release(hold);
        }
    }

    /// <summary>What lies behind the end is zeroes when the file becomes longer, for which one of them is written.</summary>
    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length, inside = Math.Clamp(Length, offset, end);
        byte[] zeroes = new byte[Math.Clamp(inside - offset, 1, ZeroesAtOnce)];
        for (long at = offset; at < inside;)
        {
            int count = (int)Math.Min(zeroes.Length, inside - at);
            await WriteCoreAsync(at, zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            at += count;
        }
        if (end > inside)
        {
            await WriteCoreAsync(end - 1, zeroes.AsMemory(0, 1), cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        if (!server.Connection.Has(SftpWire.FileSync))
        {
            return; // which was said when it was opened
        }
        SftpRequest request = await RunAsync(SftpRequest.Sync(handle), cancellationToken).ConfigureAwait(false);
        if (request.Status != SftpStatus.Ok)
        {
            DiskImageException error = server.Error(request, "flush it", null, DiskImageErrorKind.WriteFailed);
            BreakWriting(error);
            throw error;
        }
    }

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await _sizing.AcquireAsync(0, long.MaxValue, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            long old = Length;
            if (preallocation == PreallocationMode.Falloc && length > old)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{Name}: SFTP has no way to claim space without writing it. Use full, or off.", Name);
            }
            if (length != old)
            {
                await SetLengthAsync(length, cancellationToken).ConfigureAwait(false);
            }
            if (preallocation == PreallocationMode.Full)
            {
                await ClaimAsync(old, length, claimed, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            _sizing.Release(hold);
        }
    }

    private async ValueTask ClaimAsync(long from, long to, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        byte[] zeroes = new byte[Math.Clamp(to - from, 0, server.Connection.Largest.Write)];
        for (long at = from; at < to;)
        {
            int count = (int)Math.Min(zeroes.Length, to - at);
            await WritePieceAsync(at, zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            at += count;
            claimed?.Report(at - from);
        }
    }

    protected override async ValueTask CloseCoreAsync()
    {
        if (server.Connection.Broken is null)
        {
            _ = await server.TryLastAsync(SftpRequest.OfHandle(SftpPacket.Close, handle)).ConfigureAwait(false);
        }
        if (ownsServer)
        {
            await server.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Does something in pieces of about the same length, all at once. It has ended when all of them have.</summary>
    private static async ValueTask InPiecesAsync(int length, int most, Func<int, int, ValueTask> work)
    {
        if (length <= most)
        {
            await work(0, length).ConfigureAwait(false);
            return;
        }
        int count = (length + most - 1) / most, piece = Math.Min(most, ((length + count - 1) / count + Page - 1) / Page * Page);
        var pieces = new List<Task>(count + 1);
        for (int at = 0; at < length; at += piece)
        {
            pieces.Add(work(at, Math.Min(piece, length - at)).AsTask());
        }
        await Task.WhenAll(pieces).ConfigureAwait(false);
    }

    /// <summary>A server may give less than it was asked for.</summary>
    private async ValueTask ReadPieceAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            SftpRequest request = await RunAsync(SftpRequest.Read(handle, offset, buffer), cancellationToken).ConfigureAwait(false);
            server.Require(request, $"read {buffer.Length:#,0} bytes at offset {offset:#,0}", offset);
            (offset, buffer) = (offset + request.Received, buffer[request.Received..]);
        }
    }

    private async ValueTask WritePieceAsync(long offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        SftpRequest request = await RunAsync(SftpRequest.Write(handle, offset, bytes), cancellationToken).ConfigureAwait(false);
        if (request.Status != SftpStatus.Ok)
        {
            await FailAsync(request, $"write {bytes.Length:#,0} bytes at offset {offset:#,0}", offset, bytes.Length, cancellationToken)
                .ConfigureAwait(false);
        }
    }

    private async ValueTask SetLengthAsync(long length, CancellationToken cancellationToken)
    {
        SftpRequest request = await RunAsync(
            SftpRequest.Set(handle, new SftpAttributes(Size: length)), cancellationToken).ConfigureAwait(false);
        if (request.Status != SftpStatus.Ok)
        {
            await FailAsync(request, $"make it {length:#,0} bytes long", null, Math.Max(0, length - Length), cancellationToken)
                .ConfigureAwait(false);
        }
        _ = Interlocked.Exchange(ref _length, length);
    }

    /// <summary>Servers have no status for a full disk, so they are asked how much room there is.</summary>
    private async ValueTask FailAsync(
        SftpRequest request, string doing, long? offset, long needed, CancellationToken cancellationToken)
    {
        if (request.Status == SftpStatus.Failure
            && await server.RoomAsync(handle, cancellationToken).ConfigureAwait(false) is { } room && room < needed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace, $"{Name}: cannot {doing}: the server has {room:#,0} bytes of room left there", Name, offset);
        }
        throw server.Error(request, doing, offset, DiskImageErrorKind.WriteFailed);
    }

    private async ValueTask<SftpRequest> RunAsync(SftpRequest request, CancellationToken cancellationToken)
    {
        try
        {
            return await server.Connection.RunAsync(request, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private void Reaches(long end)
    {
        for (long length = Length; end > length;)
        {
            long found = Interlocked.CompareExchange(ref _length, end, length);
            length = found == length ? end : found;
        }
    }
}
