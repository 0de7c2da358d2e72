namespace DiskImage.Protocols.Nbd;

/// <summary>A run of an export as a context tells of it.</summary>
internal readonly record struct NbdExtent(long Length, ulong Flags);

/// <summary>One request on its way: what is asked, and what came back of the answer so far.</summary>
internal sealed class NbdRequest
{
    private const int MostPieces = 4096; // of an answer out of order. Ours

    private readonly TaskCompletionSource<bool> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<(long Start, long End)> _pieces = []; // what came, in order, neighbours joined

    /// <summary>What is asked.</summary>
    public required NbdCommand Command { get; init; }

    /// <summary>How.</summary>
    public NbdCommandFlags Flags { get; init; }

    /// <summary>Of which bytes: the first one …</summary>
    public long Offset { get; init; }

    /// <summary>… and how many.</summary>
    public long Length { get; init; }

    /// <summary>What is written.</summary>
    public ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>Where what is read goes; empty once nobody waits for it any more.</summary>
    public Memory<byte> Buffer { get; set; }

    /// <summary>All of it is with the server, or on its way there.</summary>
    public bool IsSent { get; set; }

    /// <summary>By which the answer names it.</summary>
    public ulong Cookie { get; set; }

    /// <summary>The first error of the answer.</summary>
    public NbdError Error { get; set; }

    /// <summary>What the server says of it.</summary>
    public string? ErrorText { get; set; }

    /// <summary>What the contexts told, by their numbers.</summary>
    public Dictionary<uint, List<NbdExtent>> Status { get; } = [];

    /// <summary>Ends with the answer (true), or with the connection (false).</summary>
    public Task<bool> Done => _done.Task;

    /// <summary>All of what was to be read has come.</summary>
    public bool IsWhole => _pieces is [(0, var end)] && end == Length;

    /// <summary>Notes that bytes of the answer have come, counted from the beginning of the request.</summary>
    /// <returns>False if one of them came before, or there are too many pieces.</returns>
    public bool Cover(long start, long length)
    {
        long end = start + length;
        int at = _pieces.Count;
        while (at > 0 && _pieces[at - 1].Start >= start)
        {
            at--;
        }
        if ((at > 0 && _pieces[at - 1].End > start) || (at < _pieces.Count && _pieces[at].Start < end) || _pieces.Count >= MostPieces)
        {
            return false;
        }
        if (at < _pieces.Count && _pieces[at].Start == end)
        {
            end = _pieces[at].End;
            _pieces.RemoveAt(at);
        }
        if (at > 0 && _pieces[at - 1].End == start)
        {
            _pieces[at - 1] = (_pieces[at - 1].Start, end);
        }
        else
        {
            _pieces.Insert(at, (start, end));
        }
        return true;
    }

    /// <summary>The answer is there, or there will be none.</summary>
    public void Complete(bool isAnswered) => _done.TrySetResult(isAnswered);
}
