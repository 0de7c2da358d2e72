using System.Globalization;
using System.Management.Automation;
using System.Runtime.ExceptionServices;
using System.Threading.Channels;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>
/// Runs a cmdlet's work off the pipeline thread while every call into <see cref="PSCmdlet"/> stays on it.
/// </summary>
/// <remarks>
/// The work runs on the thread pool and posts its calls to a bounded queue that the pipeline thread serves until the work has
/// ended. Ctrl+C and a pipeline that wants no more (<c>Select-Object -First</c>) cancel the work and wait for its end, so images
/// are closed and half-made ones removed before the prompt returns.
/// </remarks>
public abstract class PipelineCmdlet : PSCmdlet, IDisposable
{
    private const int QueuedCalls = 64; // output may run ahead of a slow pipeline by so many calls
    private const int MostAtOnce = 256; // objects of a stream that one call writes

    private readonly CancellationTokenSource _stop = new();
    private ChannelWriter<Action>? _calls;
    private ExceptionDispatchInfo? _failure; // of a call; only the pipeline thread touches it

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what the cmdlet holds.</summary>
    /// <param name="disposing">True if called by <see cref="Dispose()"/>.</param>
    protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            _stop.Dispose();
        }
    }

    /// <summary>True if the work is to end: what it throws then is only that.</summary>
    private protected bool IsStopping => _stop.IsCancellationRequested;

    /// <summary>Runs work to its end and serves its calls meanwhile. To be called on the pipeline thread.</summary>
    protected void Run(Func<CancellationToken, Task> work)
    {
        var calls = Channel.CreateBounded<Action>(new BoundedChannelOptions(QueuedCalls) { SingleReader = true });
        _calls = calls.Writer;
        CancellationToken stop = _stop.Token;
        Task running = Task.Run(
            async () =>
            {
                // of this flow only: numbers in messages look the same everywhere
                CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
                try
                {
                    await work(stop).ConfigureAwait(false);
                }
                finally
                {
                    _ = calls.Writer.TryComplete();
                }
            },
            CancellationToken.None);

        // Not cut short by the stop token: see the class's remarks.
        while (calls.Reader.WaitToReadAsync(CancellationToken.None).AsTask().GetAwaiter().GetResult())
        {
            while (calls.Reader.TryRead(out Action? call))
            {
                call();
            }
        }
        try
        {
            running.GetAwaiter().GetResult();
        }
        catch (Exception e) when (_failure is not null || (e is OperationCanceledException && stop.IsCancellationRequested))
        {
            // The work ended because it was told to.
        }
        _failure?.Throw();
    }

    /// <summary>Has the pipeline thread make a call, without waiting for it. Calls are made in the order they are posted.</summary>
    protected ValueTask PostAsync(Action call)
        => _calls!.WriteAsync(
            () =>
            {
                if (_failure is null)
                {
                    Try(call);
                }
            },
            _stop.Token);

    /// <summary>Like <see cref="PostAsync"/>, but drops the call if the queue is full: for progress.</summary>
    protected bool TryPost(Action call)
        => _calls!.TryWrite(() =>
        {
            if (_failure is null)
            {
                Try(call);
            }
        });

    /// <summary>
    /// Has the pipeline thread compute something, and waits for it. What it throws comes back to the caller, but for PowerShell's own
    /// exceptions: these end the pipeline.
    /// </summary>
    protected async Task<T> AskAsync<T>(Func<T> question)
    {
        var answer = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Action call = () =>
        {
            try
            {
                if (_failure is null)
                {
                    Try(() => answer.SetResult(question()), isQuestion: true);
                }
            }
            catch (Exception e)
            {
                answer.SetException(e);
            }
            _ = answer.TrySetCanceled(CancellationToken.None);
        };
        await _calls!.WriteAsync(call, _stop.Token).ConfigureAwait(false);
        return await answer.Task.ConfigureAwait(false);
    }

    /// <summary>Writes an object, whole even if it is a list.</summary>
    protected ValueTask OutputAsync(object output) => PostAsync(() => WriteObject(output, enumerateCollection: false));

    /// <summary>
    /// Writes the objects of a stream: the first at once, then more and more with one call, since a call from thread to thread takes longer
    /// than an object.
    /// </summary>
    private protected async Task OutputAllAsync<T>(IAsyncEnumerable<T> stream, Func<T, object> output, CancellationToken cancellationToken)
    {
        var batch = new List<object>();
        int size = 1;
        try
        {
            await foreach (T next in stream.WithCancellation(cancellationToken).ConfigureAwait(false))
            {
                batch.Add(output(next));
                if (batch.Count == size)
                {
                    await WriteAsync(batch).ConfigureAwait(false);
                    size = Math.Min(2 * size, MostAtOnce);
                    batch = new List<object>(size);
                }
            }
        }
        catch (DiskImageException)
        {
            await WriteAsync(batch).ConfigureAwait(false); // what came before it is known
            throw;
        }
        await WriteAsync(batch).ConfigureAwait(false);

        ValueTask WriteAsync(List<object> objects) => PostAsync(() => WriteObject(objects, enumerateCollection: true));
    }

    /// <summary>Says what was decided, if the user listens.</summary>
    protected ValueTask VerboseAsync(string text) => PostAsync(() => WriteVerbose(Printable.Of(text)));

    /// <inheritdoc/>
    protected override void StopProcessing() => _stop.Cancel();

    /// <summary>
    /// A call that throws (the pipeline is stopping, or an error was to stop it) ends the work; <see cref="Run"/> rethrows.
    /// </summary>
    private void Try(Action call, bool isQuestion = false)
    {
        try
        {
            call();
        }
        catch (Exception e) when (e is RuntimeException || !isQuestion)
        {
            _failure = ExceptionDispatchInfo.Capture(e);
            _stop.Cancel();
        }
    }
}
