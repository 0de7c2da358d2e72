namespace DiskImage.Block;

/// <summary>A disk that can tell how scattered its blocks lie in its file.</summary>
public interface IFragmented
{
    /// <summary>
    /// Of the stored blocks, in the disk's order, the percentage that does not lie right behind the stored block before; a gap too small
    /// for a block is none. Null if the table of blocks is too large to be read for that. Of a chain, this layer's.
    /// </summary>
    ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken);
}
