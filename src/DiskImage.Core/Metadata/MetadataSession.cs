using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// What a format has to keep in step while an image is open: the metadata lock, the order in which changes reach the file, and the space
/// that is given up. Whoever needs the lock asks for the proof that it is held (<see cref="Held"/>).
/// </summary>
/// <remarks>
/// The lock is held for look-ups and changes in memory and for the metadata I/O they cause, never for guest data. Waiting for it can be
/// cancelled. If a write fails, what was to be written stays to be written, and nothing is given back. That no flush succeeds after one
/// has failed is the file's to see to (<see cref="BlockNode.BreakWriting"/>).
/// </remarks>
/// <param name="file">The image's file.</param>
/// <param name="flush">Makes all changes durable, for a format with a journal; null if the stores do it in their order.</param>
/// <param name="released">Told of each range that has become free; null to give it back to the host.</param>
/// <param name="dataFile">Where guest data goes, if not to <paramref name="file"/>.</param>
internal sealed class MetadataSession(
    BlockNode file,
    Func<MetadataSession.Held, CancellationToken, ValueTask>? flush = null,
    Func<FileRange, CancellationToken, ValueTask>? released = null,
    BlockNode? dataFile = null) : IDisposable
{
    private readonly SemaphoreSlim _gate = new(1, 1);

    /// <summary>The order of the stores of this image.</summary>
    public WriteOrder Order { get; } = new(file) { DataFile = dataFile };

    /// <summary>Which of the file's space is taken; null until it is known, which it must be before the first change.</summary>
    public FileSpace? Space { get; set; }

    /// <summary>Takes the lock. Dispose what is returned.</summary>
    public ValueTask<Held> EnterAsync(CancellationToken cancellationToken)
    {
        Task wait = _gate.WaitAsync(cancellationToken);
        return wait.IsCompletedSuccessfully ? new(new Held(this)) : AfterAsync(wait);

        async ValueTask<Held> AfterAsync(Task entered)
        {
            await entered.ConfigureAwait(false);
            return new Held(this);
        }
    }

    /// <summary>Runs something under the lock.</summary>
    public async ValueTask RunAsync(Func<Held, ValueTask> work, CancellationToken cancellationToken)
    {
        using Held held = await EnterAsync(cancellationToken).ConfigureAwait(false);
        await work(held).ConfigureAwait(false);
    }

    /// <summary>Runs something under the lock.</summary>
    public async ValueTask<T> RunAsync<T>(Func<Held, ValueTask<T>> work, CancellationToken cancellationToken)
    {
        using Held held = await EnterAsync(cancellationToken).ConfigureAwait(false);
        return await work(held).ConfigureAwait(false);
    }

    /// <summary>Writes back all changes in their order and makes them durable; only then is the space that they gave up free.</summary>
    public async ValueTask FlushAsync(Held held, CancellationToken cancellationToken)
    {
        Require(held);
        await Order.TellAsync(DebugEvent.FlushToOs).ConfigureAwait(false);
        if (flush is null)
        {
            await Order.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await flush(held, cancellationToken).ConfigureAwait(false);
        }
        foreach (FileRange free in Space is null ? [] : await Space.ReleaseAsync(held).ConfigureAwait(false))
        {
            if (released is not null)
            {
                await released(free, cancellationToken).ConfigureAwait(false);
            }
            else if (free.Start < file.Length) // it may have been cut off since
            {
                await file.DiscardAsync(free.Start, Math.Min(free.End, file.Length) - free.Start, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Writes back what is left to write, and looks at the image under the lock.</summary>
    /// <param name="check">Looks.</param>
    /// <param name="bytes">Told that all of the disk is done.</param>
    /// <param name="length">The disk's length.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public ValueTask<CheckReport> CheckAsync(
        Func<CancellationToken, ValueTask<CheckReport>> check,
        IProgress<long>? bytes,
        long length,
        CancellationToken cancellationToken) => RunAsync(
        async held =>
        {
            if (!file.IsReadOnly)
            {
                await FlushAsync(held, cancellationToken).ConfigureAwait(false);
            }
            CheckReport report = await check(cancellationToken).ConfigureAwait(false);
            bytes?.Report(length);
            return report;
        },
        cancellationToken);

    public void Dispose() => _gate.Dispose();

    internal void Require(Held held)
        => ArgumentOutOfRangeException.ThrowIfNotEqual(ReferenceEquals(held.Session, this), true, nameof(held));

    /// <summary>The proof that the lock of a session is held. Made by the session only; disposed once.</summary>
    internal readonly struct Held(MetadataSession session) : IDisposable
    {
        /// <summary>Whose lock it is.</summary>
        public MetadataSession Session => session;

        public void Dispose() => session._gate.Release();
    }
}
