namespace DiskImage.Formats.Qcow2;

/// <summary>What was taken and counted up since some moment, so that all of it can be given back.</summary>
internal sealed partial class Qcow2Refcounts
{
    private List<(long Offset, long Length)>? _account; // null: none is kept
    private List<(long Offset, long Length)> _owed = []; // to be counted down again

    /// <summary>True if something noted is still to be counted down again.</summary>
    public bool Owes => _owed.Count > 0;

    /// <summary>From here on what is taken or counted up is noted.</summary>
    public void KeepAccount() => _account = [];

    /// <summary>What was noted stays as it is.</summary>
    public void CloseAccount() => _account = null;

    /// <summary>What was noted is to be counted down again, and nothing more is noted.</summary>
    public void OweAccount() => (_owed, _account) = (_account ?? [], null);

    /// <summary>Counts down what is owed. If it fails, what is not done yet stays owed.</summary>
    public async ValueTask UndoAsync()
    {
        while (_owed.Count > 0)
        {
            (long offset, long length) = _owed[^1];
            long last = _geometry.Clusters(offset + length) - 1, start = Math.Max(offset, HostOffset(last & -PerBlock)); // as far as one block goes
            await AddAsync(start, offset + length - start, -1).ConfigureAwait(false);
            _owed.RemoveAt(_owed.Count - 1);
            if (start > offset)
            {
                _owed.Add((offset, start - offset));
            }
        }
    }

    private void Note(long offset, long length)
    {
        if (_account is not null)
        {
            Append(_account, offset, length);
        }
    }
}
