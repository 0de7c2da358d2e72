namespace DiskImage.Compression;

/// <summary>
/// Raw deflate streams (RFC 1951, no zlib or gzip wrapping): by the zlib inside the .NET runtime where that can be called, else by
/// the runtime's public streams. Either reads what the other writes.
/// </summary>
internal sealed class DeflateCodec : IBlockDecompressor, IBlockCompressor
{
    private readonly RuntimeZlib? _zlib;

    /// <summary>A codec over a zlib, or over the public streams.</summary>
    public DeflateCodec(RuntimeZlib? zlib) => _zlib = zlib;

    /// <summary>The codec of this runtime.</summary>
    public static DeflateCodec Instance { get; } = new(RuntimeZlib.TryLoad());

    /// <inheritdoc/>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
        => Noise.Is(input) ? null : _zlib is null ? DeflateStreams.Compress(input, output) : _zlib.Compress(input, output);

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
        => _zlib is null ? DeflateStreams.TryDecompress(input, output) : _zlib.TryDecompress(input, output);
}
