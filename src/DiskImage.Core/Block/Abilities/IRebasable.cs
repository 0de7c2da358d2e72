namespace DiskImage.Block;

/// <summary>A disk whose reference to its backing image can be changed.</summary>
public interface IRebasable
{
    /// <summary>
    /// Writes another reference, without looking at contents: whoever calls it has made sure that the disk reads the same, or
    /// wants otherwise. The open graph keeps the old backing node.
    /// </summary>
    /// <param name="backingFile">The name as it is to stand in the image; null for none.</param>
    /// <param name="backingFormat">Its format; null if unknown.</param>
    /// <param name="backing">The new backing image, open, for formats that record its identity; null if there is none or
    /// it is not at hand.</param>
    /// <param name="cancellationToken">Stops before anything is written.</param>
    ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken);
}
