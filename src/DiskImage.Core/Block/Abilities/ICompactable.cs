namespace DiskImage.Block;

/// <summary>A disk whose file can be made smaller in place.</summary>
public interface ICompactable
{
    /// <summary>
    /// Gives up space that is unused or zero, moves what is behind it down, and truncates the file. Safe against a crash at any
    /// point. Returns the bytes by which the file became shorter.
    /// </summary>
    ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken);
}
