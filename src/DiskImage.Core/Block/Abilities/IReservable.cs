namespace DiskImage.Block;

/// <summary>
/// A disk that can take the places for writes that are to come, so that parallel writers get them in the order of these calls.
/// </summary>
internal interface IReservable
{
    /// <summary>
    /// Takes places for a range that will be written as a whole. A hint: places that are not used are given back on closing.
    /// </summary>
    ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken);
}
