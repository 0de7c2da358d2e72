using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Protocols.Gluster;

/// <summary>
/// A connection to a volume. The library's calls wait until they are done, so they run on threads of its own, a few at once.
/// </summary>
internal sealed class GlusterVolume : IAsyncDisposable
{
    /// <summary>Calls at once.</summary>
    public const int Threads = 8;

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2); // the library gives a silent server up after 42 s. Ours

    private readonly BlockingCollection<Action> _calls = [];
    private readonly Lock _lock = new(); // guards the number of threads
    private readonly nint _volume;
    private readonly TaskCompletionSource _quiet = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _threads, _idle, _isClosed;
    private int _outstanding = 1; // calls that have not ended, and one for as long as it is open

    private GlusterVolume(IGlusterLibrary library, nint volume, string name) => (Library, _volume, Name) = (library, volume, name);

    /// <summary>The library.</summary>
    public IGlusterLibrary Library { get; }

    /// <summary>What the file is called in messages.</summary>
    public string Name { get; }

    /// <summary>Connects to a volume by the first of its servers that answers.</summary>
    /// <exception cref="DiskImageException">None answers, or there is no such volume.</exception>
    public static async ValueTask<GlusterVolume> OpenAsync(
        IGlusterLibrary library, GlusterPlace place, Action<Wording> warn, CancellationToken cancellationToken)
    {
        if (place.Servers.Any(s => s.IsRdma))
        {
            warn($"{place.Name}: GlusterFS has no RDMA any more, TCP is used. Write gluster:// for gluster+rdma://.");
        }
        nint handle = library.New(place.Volume);
        if (handle == 0)
        {
            throw new DiskImageException(DiskImageErrorKind.Io, $"{place.Name}: GlusterFS's library has no memory left", place.Name);
        }
        var volume = new GlusterVolume(library, handle, place.Name);
        try
        {
            _ = await volume.CallAsync(
                fs =>
                {
                    foreach (GlusterServer server in place.Servers)
                    {
                        GlusterResult added = library.AddServer(fs, server.IsUnix ? "unix" : "tcp", server.Host, server.Port);
                        if (!added.IsGood)
                        {
                            throw volume.Error(added, $"use its server {server}", DiskImageErrorKind.InvalidOption);
                        }
                    }
                    GlusterResult logged = library.Log(fs, place.LogFile ?? "/dev/null", place.Debug);
                    if (!logged.IsGood)
                    {
                        throw volume.Error(logged, $"write the log {place.LogFile}", DiskImageErrorKind.InvalidOption);
                    }
                    GlusterResult connected = library.Connect(fs);
                    return connected.IsGood ? connected : throw new DiskImageException(
                        DiskImageErrorKind.Io,
                        $"{place.Name}: cannot connect to volume '{place.Volume}' by {string.Join(", ", place.Servers)}: "
                            + $"{Text(connected.Error)}. Is the volume started, and does glusterd listen there? The option 'logfile' says "
                            + "where GlusterFS's library writes what it tried.",
                        place.Name);
                },
                cancellationToken).ConfigureAwait(false);
            return volume;
        }
        catch
        {
            await volume.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>
    /// Calls the library on one of its threads. Whoever is cancelled does not wait any more; the call goes on, so it must use no memory of
    /// the caller's.
    /// </summary>
    public Task<T> CallAsync<T>(Func<nint, T> call, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        _ = Interlocked.Increment(ref _outstanding);
        _calls.Add(
            () =>
            {
                try
                {
                    done.SetResult(call(_volume));
                }
                catch (Exception e)
                {
                    done.SetException(e);
                }
            },
            CancellationToken.None);
        lock (_lock)
        {
            if (_threads < Threads && _calls.Count > Volatile.Read(ref _idle))
            {
                _threads++;
                new Thread(Serve) { IsBackground = true, Name = "GlusterFS" }.Start();
            }
        }
        return done.Task.WaitAsync(cancellationToken);
    }

    /// <summary>What the library says to a call, as an error.</summary>
    /// <param name="result">How it ended.</param>
    /// <param name="doing">What failed.</param>
    /// <param name="otherwise">The kind where the number says nothing better.</param>
    /// <param name="offset">Where in the file.</param>
    public DiskImageException Error(GlusterResult result, Wording doing, DiskImageErrorKind otherwise, long? offset = null)
    {
        DiskImageErrorKind kind = result.Error switch
        {
            2 => DiskImageErrorKind.NotFound, // ENOENT
            1 or 13 => DiskImageErrorKind.AccessDenied, // EPERM, EACCES
            17 => DiskImageErrorKind.AlreadyExists, // EEXIST
            27 or 28 or 122 => DiskImageErrorKind.NoSpace, // EFBIG, ENOSPC, EDQUOT
            30 => DiskImageErrorKind.ReadOnly, // EROFS
            _ => otherwise,
        };
        return new(kind, $"{Name}: cannot {doing}: {Text(result.Error)}", Name, offset);
    }

    /// <summary>
    /// Ends the connection when all calls have ended that were begun, and does not wait for that: the library takes ten seconds for it, in
    /// which nothing is done any more for a file that is closed. A call that does not end within two minutes keeps the connection: it is
    /// lost, which is better than to end it below a call.
    /// </summary>
    public ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isClosed, 1) == 0)
        {
            Finish(); // the share of being open
            _ = Task.Run(EndAsync);
        }
        return default;
    }

    private async Task EndAsync()
    {
        try
        {
            await _quiet.Task.WaitAsync(s_patience).ConfigureAwait(false);
            _ = await CallAsync(Library.End, CancellationToken.None).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // It hangs for good.
        }
        _calls.CompleteAdding();
    }

    private static string Text(int error) => error == 0 ? "the library does not say why" : Marshal.GetPInvokeErrorMessage(error);

    private void Serve()
    {
        _ = Interlocked.Increment(ref _idle);
        foreach (Action call in _calls.GetConsumingEnumerable())
        {
            _ = Interlocked.Decrement(ref _idle);
            call();
            _ = Interlocked.Increment(ref _idle);
            Finish();
        }
    }

    private void Finish()
    {
        if (Interlocked.Decrement(ref _outstanding) == 0)
        {
            _ = _quiet.TrySetResult();
        }
    }
}
