namespace DiskImage.Block;

/// <summary>
/// A disk that records the state of the backing image it was made on, and refuses one that was changed since. A change on purpose, such as
/// a merge, is announced first and confirmed afterwards: in between, and after a crash, the disk takes both states.
/// </summary>
internal interface IBackingRecord
{
    /// <summary>
    /// Records, durably, that the open backing image may be found as it is now or as the changes leave it that are made to it next, in this
    /// graph. Layers do this from the top down.
    /// </summary>
    /// <param name="changesThis">What this disk shows changes by that too, so that disks standing on it are to know
    /// it by a new state.</param>
    /// <param name="cancellationToken">Stops before anything is written.</param>
    ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken);

    /// <summary>Records that the backing image is now as it is; the changes to it are durable.</summary>
    ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken);
}
