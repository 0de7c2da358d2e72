namespace DiskImage.Metadata;

/// <summary>How scattered a disk's blocks lie in its file. They come in the disk's order; those that are not stored do not come.</summary>
internal sealed class FragmentCounter
{
    private long _blocks, _apart, _end = -1;

    /// <summary>Of the stored blocks, the percentage that does not follow the stored one before, rounded; 0 if none is stored.</summary>
    public int Percentage => _blocks == 0 ? 0 : (int)Math.Round(100d * _apart / _blocks, MidpointRounding.AwayFromZero);

    /// <summary>Counts a stored block. A gap before it that is too small for a block is none: programs align blocks.</summary>
    public void Add(long offset, long length)
    {
        bool follows = _end < 0 || (offset >= _end && offset - _end < length);
        _apart += follows ? 0 : 1;
        _blocks++;
        _end = offset + length;
    }
}
