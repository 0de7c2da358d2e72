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
internal sealed class BlkDebugRules
{
    private readonly Lock _lock = new(); // of everything below
    private readonly IReadOnlyList<StateChange> _states;
    private readonly List<InjectedError> _left;
    private readonly List<InjectedError> _armed = [];
    private readonly List<(DebugEvent Event, string Tag)> _breakpoints = [];
    private readonly List<(string Tag, TaskCompletionSource Going)> _suspended = [];
    private int _state = 1;

    /// <summary>Of a filter that was just opened, which is an event itself.</summary>
    public BlkDebugRules(IReadOnlyList<InjectedError> errors, IReadOnlyList<StateChange> states)
    {
        (_left, _states) = ([.. errors], states);
        Act(DebugEvent.None);
    }

    public Action<string, bool>? Told { get; set; }

    /// <summary>An event. It waits where a breakpoint holds the request up.</summary>
    public ValueTask RaiseAsync(DebugEvent what)
    {
        List<Task>? held = null;
        lock (_lock)
        {
            Act(what);
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
        return held is null ? default : new(Task.WhenAll(held));
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
    public bool GoOn(string tag)
    {
        TaskCompletionSource going;
        lock (_lock)
        {
            int at = _suspended.FindIndex(s => s.Tag.Equals(tag, StringComparison.Ordinal));
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
            isThere = _breakpoints.RemoveAll(b => b.Tag.Equals(tag, StringComparison.Ordinal)) > 0;
        }
        while (GoOn(tag))
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
            return _suspended.Exists(s => s.Tag.Equals(tag, StringComparison.Ordinal));
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

    /// <summary>Arms errors, and changes the state.</summary>
    private void Act(DebugEvent what)
    {
        int state = _state;
        bool isFirst = true;
        foreach (InjectedError error in _left.Where(e => e.At == what && Fits(e.State)))
        {
            if (isFirst)
            {
                _armed.Clear();
            }
            isFirst = false;
            _armed.Add(error);
        }
        foreach (StateChange change in _states.Where(c => c.At == what && Fits(c.State)))
        {
            _state = (int)change.NewState;
        }

        bool Fits(long wanted) => wanted == 0 || wanted == state;
    }
}
