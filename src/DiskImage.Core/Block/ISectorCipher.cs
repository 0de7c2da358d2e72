namespace DiskImage.Block;

/// <summary>
/// What lies between a disk and the place that holds its bytes: whole sectors are encoded before they are stored and decoded after they
/// are read, in place. Any number of threads may use it at once. Disposing it clears its keys.
/// </summary>
public interface ISectorCipher : IDisposable
{
    /// <summary>Bytes that are encoded together; a power of two.</summary>
    int SectorSize { get; }

    /// <summary>True if a sector is encoded by its place in the file, false if by the offset that the disk shows it at.</summary>
    bool IsByPlace { get; }

    /// <summary>Encodes whole sectors.</summary>
    /// <param name="data">The sectors.</param>
    /// <param name="offset">The first one's offset in bytes: see <see cref="IsByPlace"/>.</param>
    void Encrypt(Span<byte> data, long offset);

    /// <summary>Decodes whole sectors.</summary>
    /// <param name="data">The sectors.</param>
    /// <param name="offset">The first one's offset in bytes: see <see cref="IsByPlace"/>.</param>
    void Decrypt(Span<byte> data, long offset);
}
