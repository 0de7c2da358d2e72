namespace DiskImage.Metadata;

/// <summary>
/// The space of a file that a format hands out. How it keeps what is free is its own (<see cref="SpaceMap"/>, or a list of gaps); what is given
/// up is free only after the flush that makes the giving up durable: <see cref="FreeAfterFlush"/>, then the session's flush.
/// </summary>
/// <remarks>The session's lock guards it.</remarks>
internal abstract class FileSpace
{
    private readonly List<FileRange> _waiting = [];

    /// <summary>Bytes that wait for a flush.</summary>
    public long Waiting { get; private set; }

    /// <summary>Gives space back that nothing in the file, as it is on the disk, refers to.</summary>
    public abstract void Free(MetadataSession.Held held, long offset, long length);

    /// <summary>Gives space back once the file no longer refers to it.</summary>
    public void FreeAfterFlush(MetadataSession.Held held, long offset, long length)
    {
        _ = held; // the proof is all that is wanted
        if (_waiting.Count > 0 && _waiting[^1] is var last && last.End == offset)
        {
            _waiting[^1] = last with { End = last.End + length };
        }
        else
        {
            _waiting.Add(new(offset, offset + length));
        }
        Waiting += length;
    }

    /// <summary>What was given up is durable: frees it, and tells what it is.</summary>
    public IReadOnlyList<FileRange> Release(MetadataSession.Held held)
    {
        if (_waiting.Count == 0)
        {
            return [];
        }
        FileRange[] freed = [.. _waiting];
        _waiting.Clear();
        Waiting = 0;
        foreach (FileRange range in freed)
        {
            Free(held, range.Start, range.Length);
        }
        return freed;
    }
}
