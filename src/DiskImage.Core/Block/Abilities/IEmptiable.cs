namespace DiskImage.Block;

/// <summary>A disk that can drop everything its own layer holds.</summary>
public interface IEmptiable
{
    /// <summary>Afterwards the disk shows its backing image only.</summary>
    ValueTask MakeEmptyAsync(CancellationToken cancellationToken);

    /// <summary>
    /// The same where the backing image has just been made to read as the disk does, so that disks standing on this one go on to fit it.
    /// </summary>
    ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => MakeEmptyAsync(cancellationToken);
}
