using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What was taken and counted up since some moment, so that all of it can be given back.</summary>
internal sealed class Qcow2RefcountAccount(Qcow2Disk disk)
{
    private Qcow2Ranges? _noted; // null: none is kept
    private Qcow2Ranges? _owed; // to be counted down again

    /// <summary>True if something noted is still to be counted down again.</summary>
    public bool Owes => _owed is { All.Count: > 0 };

    /// <summary>From here on what is taken or counted up is noted.</summary>
    public void Keep() => _noted = new Qcow2Ranges(disk.Geometry);

    /// <summary>What was noted stays as it is.</summary>
    public void Close() => _noted = null;

    /// <summary>What was noted is to be counted down again, and nothing more is noted.</summary>
    public void Owe() => (_owed, _noted) = (_noted, null);

    /// <summary>Nothing is noted, and nothing owed: the counts are others.</summary>
    public void Forget() => (_noted, _owed) = (null, null);

    /// <summary>Something was taken or counted up.</summary>
    public void Note(HostOffset place, long length) => _noted?.Add(place, length);

    /// <summary>Counts down what is owed. If it fails, what is not done yet stays owed.</summary>
    public async ValueTask UndoAsync(MetadataSession.Held held)
    {
        while (_owed is { All: [.., FileRange last] } owed)
        {
            HostOffset start = disk.Refcounts.StartInLastBlock(last);
            await disk.Refcounts.AddAsync(held, start, last.End - start.Value, -1).ConfigureAwait(false);
            owed.TakeLast(start);
        }
    }
}
