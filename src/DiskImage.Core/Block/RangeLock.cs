namespace DiskImage.Block;

/// <summary>
/// Orders requests that touch the same bytes: shared holds may overlap each other, an exclusive hold overlaps nothing.
/// </summary>
/// <remarks>
/// One list in order of arrival. A request is granted when no earlier entry conflicts with it, so nobody starves. The list
/// is as long as there are requests in flight (a handful), which is why a scan is enough. A wait that is cancelled leaves the list, and
/// whoever waited for it alone goes on. Entries are reused, so an uncontended hold allocates nothing.
/// </remarks>
internal sealed class RangeLock
{
    private readonly Lock _sync = new(); // guards both lists and every entry's fields
    private readonly List<Hold> _entries = [];
    private readonly Stack<Hold> _spare = [];

    /// <summary>Takes [<paramref name="start"/>, <paramref name="end"/>). Give it back with <see cref="Release"/>.</summary>
    /// <exception cref="OperationCanceledException">It was cancelled while it waited; nothing is held.</exception>
    public ValueTask<Hold> AcquireAsync(long start, long end, bool exclusive, CancellationToken cancellationToken = default)
    {
        Hold hold;
        TaskCompletionSource<Hold> waiter;
        lock (_sync)
        {
            hold = _spare.TryPop(out Hold? spare) ? spare : new Hold();
            (hold.Start, hold.End, hold.Exclusive) = (start, end, exclusive);
            _entries.Add(hold);
            if (!Conflicts(_entries.Count - 1))
            {
                hold.Granted = true;
                return new(hold);
            }
            hold.Granted = false;
            hold.Waiter = waiter = new TaskCompletionSource<Hold>(TaskCreationOptions.RunContinuationsAsynchronously);
        }
        return new(cancellationToken.CanBeCanceled ? WaitAsync(hold, waiter, cancellationToken) : waiter.Task);
    }

    /// <summary>Gives a hold back and wakes whoever it kept waiting.</summary>
    public void Release(Hold hold)
    {
        lock (_sync)
        {
            Remove(hold);
        }
    }

    /// <summary>Runs something while nothing is held by anybody else.</summary>
    /// <typeparam name="T">What it returns.</typeparam>
    /// <param name="work">The work. It sees to its own cancelling.</param>
    /// <param name="cancellationToken">Stops waiting for the others.</param>
    public async ValueTask<T> AloneAsync<T>(Func<ValueTask<T>> work, CancellationToken cancellationToken)
    {
        Hold hold = await AcquireAsync(0, long.MaxValue, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            return await work().ConfigureAwait(false);
        }
        finally
        {
            Release(hold);
        }
    }

    /// <summary>Does work while a range is held.</summary>
    public async ValueTask WithinAsync(
        long start, long end, bool exclusive, Func<ValueTask> work, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(work);
        Hold hold = await AcquireAsync(start, end, exclusive, cancellationToken).ConfigureAwait(false);
        try
        {
            await work().ConfigureAwait(false);
        }
        finally
        {
            Release(hold);
        }
    }

    /// <inheritdoc cref="AloneAsync{T}"/>
    public async ValueTask AloneAsync(Func<ValueTask> work, CancellationToken cancellationToken)
        => await AloneAsync(
            async () =>
            {
                await work().ConfigureAwait(false);
                return true;
            },
            cancellationToken).ConfigureAwait(false);

    private async Task<Hold> WaitAsync(Hold hold, TaskCompletionSource<Hold> waiter, CancellationToken cancellationToken)
    {
        CancellationTokenRegistration cancel = cancellationToken.UnsafeRegister(
            (_, token) =>
            {
                lock (_sync)
                {
                    if (waiter.TrySetCanceled(token))
                    {
                        hold.Waiter = null;
                        Remove(hold);
                    }
                }
            },
            null);
        await using (cancel.ConfigureAwait(false))
        {
            return await waiter.Task.ConfigureAwait(false);
        }
    }

    private void Remove(Hold hold)
    {
        _ = _entries.Remove(hold);
        _spare.Push(hold);
        for (int i = 0; i < _entries.Count; i++)
        {
            Hold waiting = _entries[i];
            if (!waiting.Granted && !Conflicts(i))
            {
                waiting.Granted = true;
                _ = waiting.Waiter!.TrySetResult(waiting);
                waiting.Waiter = null;
            }
        }
    }

    private bool Conflicts(int index)
    {
        Hold mine = _entries[index];
        for (int i = 0; i < index; i++)
        {
            Hold other = _entries[i];
            if ((mine.Exclusive || other.Exclusive) && mine.Start < other.End && other.Start < mine.End)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>A range that is held or waited for.</summary>
    internal sealed class Hold
    {
        internal long Start, End;
        internal bool Exclusive, Granted;
        internal TaskCompletionSource<Hold>? Waiter;
    }
}
