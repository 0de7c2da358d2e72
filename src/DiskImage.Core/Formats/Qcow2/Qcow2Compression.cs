using DiskImage.Compression;
using DiskImage.Compression.Zstd;

namespace DiskImage.Formats.Qcow2;

/// <summary>The codecs of the format's compression types. Unknown types were refused with the header.</summary>
internal static class Qcow2Compression
{
    /// <summary>Reads clusters of a type.</summary>
    public static IBlockDecompressor Decompressor(Qcow2CompressionType type)
        => type == Qcow2CompressionType.Zstd ? ZstdCodec.Instance : DeflateCodec.Instance;

    /// <summary>Writes clusters of a type.</summary>
    /// <exception cref="Block.DiskImageException">Unsupported: this machine has nothing to compress it with.</exception>
    public static IBlockCompressor Compressor(Qcow2CompressionType type)
    {
        if (type != Qcow2CompressionType.Zstd)
        {
            return DeflateCodec.Instance;
        }
        ZstdCodec.Instance.ThrowIfCannotCompress();
        return ZstdCodec.Instance;
    }
}
