using System.IO.Compression;

namespace DiskImage.Compression;

/// <summary>
/// zlib streams (RFC 1950: deflate between a header and a checksum): by the zlib inside the .NET runtime where that can be called, else by
/// the runtime's public streams. The checksum is verified.
/// </summary>
/// <param name="zlib">The zlib; null for the public streams.</param>
internal sealed class ZlibCodec(RuntimeZlib? zlib) : IBlockDecompressor
{
    /// <summary>The codec of this runtime.</summary>
    public static ZlibCodec Instance { get; } = new(RuntimeZlib.TryLoad());

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
        => zlib is null ? ByStream(input, output) : zlib.TryDecompressZlib(input, output);

    private static bool ByStream(ReadOnlySpan<byte> input, Span<byte> output)
    {
        using var packed = new MemoryStream(input.ToArray());
        using var stream = new ZLibStream(packed, CompressionMode.Decompress);
        try
        {
            // the end is what the checksum is behind
            return stream.ReadAtLeast(output, output.Length, throwOnEndOfStream: false) == output.Length && stream.ReadByte() < 0;
        }
        catch (InvalidDataException)
        {
            return false;
        }
    }
}
