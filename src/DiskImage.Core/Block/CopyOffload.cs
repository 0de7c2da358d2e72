namespace DiskImage.Block;

/// <summary>How bytes may get from one node to another without passing through this process.</summary>
public enum CopyOffload
{
    /// <summary>Both have the same storage afterwards, until one of them is written to (reflink, block clone): nothing is moved.</summary>
    Share,

    /// <summary>That, or the host moves them itself (copy_file_range).</summary>
    ShareOrMove,
}

/// <summary>What became of a copy that the host was to make.</summary>
/// <param name="Done">Bytes from its beginning on that are there; the rest, maybe all, is to be read and written.</param>
/// <param name="Shared">How many of them share their storage.</param>
public readonly record struct CopyOutcome(long Done, long Shared);
