namespace DiskImage.Block;

/// <summary>
/// Orders requests that touch the same bytes: shared holds may overlap each other, an exclusive hold overlaps nothing.
/// </summary>
/// <remarks>
/// One list in order of arrival. A request is granted when no earlier entry conflicts with it, so nobody starves. The list
/// is as long as there are requests in flight (a handful), which is why a scan is enough. Waiting cannot be cancelled: what
/// it waits for is I/O already under way. Entries are reused, so an uncontended hold allocates nothing.
/// </remarks>
internal sealed class RangeLock
{
    private readonly Lock _sync = new(); // guards both lists and every entry's fields
    private readonly List<Hold> _entries = [];
    private readonly Stack<Hold> _spare = [];

    /// <summary>Takes [<paramref name="start"/>, <paramref name="end"/>). Give it back with <see cref="Release"/>.</summary>
    public ValueTask<Hold> AcquireAsync(long start, long end, bool exclusive)
    {
        lock (_sync)
        {
            Hold hold = _spare.TryPop(out Hold? spare) ? spare : new Hold();
            (hold.Start, hold.End, hold.Exclusive) = (start, end, exclusive);
            _entries.Add(hold);
            if (!Conflicts(_entries.Count - 1))
            {
                hold.Granted = true;
                return new(hold);
            }
            hold.Granted = false;
            hold.Waiter = new TaskCompletionSource<Hold>(TaskCreationOptions.RunContinuationsAsynchronously);
            return new(hold.Waiter.Task);
        }
    }

    /// <summary>Gives a hold back and wakes whoever it kept waiting.</summary>
    public void Release(Hold hold)
    {
        lock (_sync)
        {
            _entries.Remove(hold);
            _spare.Push(hold);
            for (int i = 0; i < _entries.Count; i++)
            {
                Hold waiting = _entries[i];
                if (!waiting.Granted && !Conflicts(i))
                {
                    waiting.Granted = true;
                    waiting.Waiter!.SetResult(waiting);
                    waiting.Waiter = null;
                }
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
