namespace DiskImage.Block;

/// <summary>A node that can say whether zeroing is quicker than writing zeroes.</summary>
public interface IFastZero
{
    /// <summary>Makes the range read as zeroes if that is quick. What it reads as is not known where it is not.</summary>
    /// <returns>False if it would be as slow as writing them; some of them may be written then.</returns>
    ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken);
}
