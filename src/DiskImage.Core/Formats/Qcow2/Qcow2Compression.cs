using DiskImage.Block;
using DiskImage.Compression;

namespace DiskImage.Formats.Qcow2;

/// <summary>The codecs of the format's compression types.</summary>
internal static class Qcow2Compression
{
    /// <summary>Reads clusters of a type. Unknown types were refused with the header.</summary>
    public static IBlockDecompressor Decompressor(Qcow2CompressionType type) => type switch
    {
        Qcow2CompressionType.Zlib => DeflateCodec.Instance,
        _ => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"qcow2 compression type {type} cannot be read by this version"),
    };

    /// <summary>Writes clusters of a type.</summary>
    public static IBlockCompressor Compressor(Qcow2CompressionType type) => type switch
    {
        Qcow2CompressionType.Zlib => DeflateCodec.Instance,
        _ => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"qcow2 compression type {type} cannot be written by this version"),
    };
}
