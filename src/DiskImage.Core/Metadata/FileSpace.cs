namespace DiskImage.Metadata;

/// <summary>
/// The space of a file that a format hands out. How it keeps what is free is its own (<see cref="SpaceMap"/>, or a list of gaps); what is
/// given up is free only after the flush that makes the giving up durable: <see cref="FreeAfterFlush"/>, then the session's flush.
/// </summary>
/// <remarks>The session's lock guards it.</remarks>
internal abstract class FileSpace
{
    private readonly List<FileRange> _waiting = [];

    /// <summary>Bytes that wait for a flush.</summary>
    public long Waiting { get; private set; }

    /// <summary>True if nothing waits for a flush.</summary>
    protected bool IsNothingWaiting => _waiting.Count == 0;

    /// <summary>Gives space back that nothing in the file, as it is on the disk, refers to.</summary>
    public abstract ValueTask FreeAsync(MetadataSession.Held held, long offset, long length);

    /// <summary>Gives space back once the file no longer refers to it.</summary>
    public void FreeAfterFlush(MetadataSession.Held held, long offset, long length)
    {
        _ = held; // the proof is all that is wanted
        if (length == 0)
        {
            return; // a table of no entries
        }
        if (_waiting.Count > 0 && _waiting[^1] is var last && last.End == offset && MayJoin(offset))
        {
            _waiting[^1] = last with { End = last.End + length };
        }
        else
        {
            _waiting.Add(new(offset, offset + length));
        }
        Waiting += length;
    }

    /// <summary>What was given up is durable: frees it, and tells what has become free.</summary>
    public virtual async ValueTask<IReadOnlyList<FileRange>> ReleaseAsync(MetadataSession.Held held)
    {
        if (_waiting.Count == 0)
        {
            return [];
        }
        FileRange[] freed = [.. _waiting];
        ForgetWaiting();
        foreach (FileRange range in freed)
        {
            await FreeAsync(held, range.Start, range.Length).ConfigureAwait(false);
        }
        return freed;
    }

    /// <summary>True if what is given up at an offset can be told of together with what lies before it.</summary>
    protected virtual bool MayJoin(long offset) => true;

    /// <summary>The range that was given up last.</summary>
    protected FileRange LastWaiting => _waiting[^1];

    /// <summary>The end of the range that was given up last, from an offset on, does not wait any more.</summary>
    protected void TakeWaiting(long start)
    {
        FileRange last = _waiting[^1];
        Waiting -= last.End - start;
        if (start > last.Start)
        {
            _waiting[^1] = last with { End = start };
        }
        else
        {
            _waiting.RemoveAt(_waiting.Count - 1);
        }
    }

    /// <summary>Nothing waits any more.</summary>
    protected void ForgetWaiting()
    {
        _waiting.Clear();
        Waiting = 0;
    }
}
