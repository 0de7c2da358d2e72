namespace DiskImage.Block;

/// <summary>A disk whose places hold noise until they are written, as those of encrypted images do.</summary>
public interface INoiseWhenNew
{
    /// <summary>True if a new disk does not read as zeroes where nothing was written, so zeroes have to be.</summary>
    bool IsNoiseWhenNew { get; }
}
