using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>Stands for the cipher of an image that was opened without its secret: whoever needs its data is told so.</summary>
internal sealed class LockedCipher(string name, int sectorSize, bool isByPlace) : ISectorCipher
{
    public int SectorSize { get; } = sectorSize;

    public bool IsByPlace { get; } = isByPlace;

    public void Encrypt(Span<byte> data, long offset) => throw Secrets.Required(name);

    public void Decrypt(Span<byte> data, long offset) => throw Secrets.Required(name);

    public void Dispose()
    {
    }
}
