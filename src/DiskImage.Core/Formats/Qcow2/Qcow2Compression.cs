using DiskImage.Compression;

namespace DiskImage.Formats.Qcow2;

/// <summary>The codecs of the format's compression types. Unknown types were refused with the header.</summary>
internal static class Qcow2Compression
{
    /// <summary>Reads clusters of a type.</summary>
    public static IBlockDecompressor Decompressor(Qcow2CompressionType type)
        => type == Qcow2CompressionType.Zstd ? ZstdCodec.Instance : DeflateCodec.Instance;

    /// <summary>Writes clusters of a type.</summary>
    public static IBlockCompressor Compressor(Qcow2CompressionType type)
        => type == Qcow2CompressionType.Zstd ? ZstdCodec.Instance : DeflateCodec.Instance;
}
