using System.Security;
using DiskImage.Block;

namespace DiskImage.Protocols.Ssh;

/// <summary>In which way one logs in: who does, where, by which program, and with which secrets, the very ones that were given.</summary>
/// <param name="Program">The system's OpenSSH.</param>
/// <param name="Server">The server, its key's check and the user; no file.</param>
/// <param name="Password">Of the user; null for none.</param>
/// <param name="Passphrase">Of the key file; null for none.</param>
internal sealed record SshWay(SshProgram Program, SshPlace Server, SecureString? Password, SecureString? Passphrase);

/// <summary>
/// Connections that nobody uses, kept for a moment for whoever would log in in the same way: to look at a place, make an image there and
/// open what was made takes one login, not three.
/// </summary>
internal sealed class SshConnections
{
    private static readonly TimeSpan s_stay = TimeSpan.FromSeconds(3), s_answer = TimeSpan.FromSeconds(2); // ours

    private readonly Lock _lock = new();
    private readonly Dictionary<SshWay, Stay> _idle = [];

    /// <summary>One that is kept and still answers; null for none.</summary>
    /// <param name="way">How one would log in.</param>
    /// <param name="name">What the file that all is about is called in messages.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<SftpConnection?> TryTakeAsync(SshWay way, string name, CancellationToken cancellationToken)
    {
        Stay? stay;
        lock (_lock)
        {
            _ = _idle.Remove(way, out stay);
        }
        if (stay is null)
        {
            return null;
        }
        SftpConnection kept = stay.Connection;
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        enough.CancelAfter(s_answer);
        try
        {
            _ = await kept.RunAsync(SftpRequest.OfPath(SftpPacket.RealPath, "."), enough.Token).ConfigureAwait(false);
            kept.Name = name;
            return kept;
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            await kept.DisposeAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            return null; // it is gone, so one logs in
        }
    }

    /// <summary>Keeps one that is not used any more; closes it if it is lost, still waits for something, or another one is kept.</summary>
    public async ValueTask LeaveAsync(SshWay way, SftpConnection connection)
    {
        var stay = new Stay(connection);
        bool isKept = connection.IsIdle;
        lock (_lock)
        {
            isKept = isKept && _idle.TryAdd(way, stay);
        }
        if (isKept)
        {
            _ = EndAsync(way, stay);
        }
        else
        {
            await connection.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task EndAsync(SshWay way, Stay stay)
    {
        await Task.Delay(s_stay).ConfigureAwait(false);
        lock (_lock)
        {
            if (_idle.GetValueOrDefault(way) != stay)
            {
                return; // it was of use again
            }
            _ = _idle.Remove(way);
        }
        await stay.Connection.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>One time that a connection is kept.</summary>
    private sealed class Stay(SftpConnection connection)
    {
        public SftpConnection Connection => connection;
    }
}
