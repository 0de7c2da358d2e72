using DiskImage.Block;

namespace DiskImage.Formats.Dmg;

/// <summary>The image inside its container.</summary>
internal sealed class DmgCipherNode(BlockNode file, long start, long length, ISectorCipher cipher) : CipherNode(file, start, cipher)
{
    public override long Length => length;

    public override bool IsReadOnly => true;
}
