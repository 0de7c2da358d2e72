using DiskImage.Block;

namespace DiskImage.Filters.BlkDebug;

/// <summary>
/// The rules of an error injector and the state it is in. QEMU, docs/devel/testing/blkdebug.rst.
/// </summary>
/// <remarks>
/// There is a number, the state, 1 at first. An event acts by the rules that name it and ask for no state but this: errors of them are
/// armed, in place of those that were armed before; a rule of state gives the number that holds when all rules have had their turn; a
/// breakpoint holds the request up, once. An event that no rule of errors answers to leaves what is armed as it is. Then each request is
/// made the first armed error that it fits, until others are armed; an error that is made once is never armed again.
/// </remarks>
internal sealed class BlkDebugRules(IReadOnlyList<InjectedError> errors, IReadOnlyList<StateChange> states)
{
    private readonly Lock _lock = new(); // of everything below
    private readonly List<InjectedError> _left = [.. errors];
    private readonly List<InjectedError> _armed = [];
    private readonly List<(DebugEvent Event, string Tag)> _breakpoints = [];
    private readonly List<(string Tag, TaskCompletionSource Going)> _suspended = [];
    private int _state = 1;

    public Action<string, bool>? Told { get; set; }

    /// <summary>An event. Returns what to wait for, null for nothing.</summary>
    public Task? Raise(DebugEvent what)
    {
        List<Task>? held = null;
        lock (_lock)
        {
            int state = _state;
            bool isFirst = true;
            foreach (InjectedError error in _left)
            {
                if (error.At == what && Fits(error.State, state))
                {
                    if (isFirst)
                    {
                        _armed.Clear();
                    }
                    isFirst = false;
                    _armed.Add(error);
                }
            }
            foreach (StateChange change in states)
            {
                _state = change.At == what && Fits(change.State, state) ? (int)change.NewState : _state;
            }
            for (int i = 0; i < _breakpoints.Count;)
            {
                if (_breakpoints[i].Event != what)
                {
                    i++;
                    continue;
                }
                var going = new TaskCompletionSource();
                string tag = _breakpoints[i].Tag;
                _breakpoints.RemoveAt(i);
                _suspended.Add((tag, going));
                (held ??= []).Add(going.Task);
                Told?.Invoke(tag, true);
            }
        }
        return held is null ? null : Task.WhenAll(held);

        static bool Fits(long wanted, int state) => wanted == 0 || wanted == state;
    }

    /// <summary>The error that a request is made; null for none.</summary>
    public InjectedError? ErrorOf(BlkDebugRequests kind, long offset, long length)
    {
        lock (_lock)
        {
            InjectedError? error = _armed.Find(e => e.Matches(kind, offset, length));
            if (error is { Error: > 0, Once: true })
            {
                _ = _armed.Remove(error);
                _ = _left.Remove(error);
            }
            return error is { Error: > 0 } ? error : null;
        }
    }

    /// <summary>Has the next request that comes to an event stop there.</summary>
    public void Break(DebugEvent what, string tag)
    {
        lock (_lock)
        {
            _breakpoints.Add((what, tag));
        }
    }

    /// <summary>Lets the request of this name that was stopped first go on.</summary>
    public bool Resume(string tag)
    {
        TaskCompletionSource going;
        lock (_lock)
        {
            int at = _suspended.FindIndex(s => s.Tag == tag);
            if (at < 0)
            {
                return false;
            }
            going = _suspended[at].Going;
            _suspended.RemoveAt(at);
            Told?.Invoke(tag, false);
        }
        going.SetResult(); // what goes on may come to further events
        return true;
    }

    /// <summary>Takes back the breakpoints of this name, and lets go on what stopped at them.</summary>
    public bool Remove(string tag)
    {
        bool isThere;
        lock (_lock)
        {
            isThere = _breakpoints.RemoveAll(b => b.Tag == tag) > 0;
        }
        while (Resume(tag))
        {
            isThere = true;
        }
        return isThere;
    }

    /// <summary>True while a request of this name is stopped.</summary>
    public bool IsSuspended(string tag)
    {
        lock (_lock)
        {
            return _suspended.Exists(s => s.Tag == tag);
        }
    }

    /// <summary>Lets everything go on, and takes all breakpoints back.</summary>
    public void RemoveAll()
    {
        while (true)
        {
            string? tag;
            lock (_lock)
            {
                tag = _suspended.Select(s => s.Tag).Concat(_breakpoints.Select(b => b.Tag)).FirstOrDefault();
            }
            if (tag is null)
            {
                return;
            }
            _ = Remove(tag);
        }
    }
}
