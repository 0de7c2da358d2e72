using DiskImage.Block;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// Zstandard blocks: through the machine's zstd library where there is one; without it they can still be read, by
/// <see cref="ZstdDecoder"/>, but not written.
/// </summary>
/// <remarks>
/// A compressed block is one frame with its content size, without a checksum, at the library's default level: what QEMU writes.
/// Both readers take the same input: frames one behind another, skippable ones too, and rubbish behind the last.
/// </remarks>
internal sealed class ZstdCodec : IBlockDecompressor, IBlockCompressor
{
    private readonly ZstdLibrary? _library;

    /// <summary>A codec over a library, or over none.</summary>
    public ZstdCodec(ZstdLibrary? library) => _library = library;

    /// <summary>The codec of this machine.</summary>
    public static ZstdCodec Instance { get; } = new(ZstdLibrary.TryLoad());

    /// <summary>Blocks can be written.</summary>
    public bool CanCompress => _library is not null;

    /// <inheritdoc/>
    /// <exception cref="DiskImageException">Unsupported: see <see cref="CanCompress"/>.</exception>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        ThrowIfCannotCompress();
        return _library!.Compress(input, output);
    }

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
        => _library is null ? ZstdDecoder.Instance.TryDecompress(input, output) : _library.TryDecompress(input, output);

    /// <summary>To be called before a file is made whose blocks are to be written.</summary>
    /// <exception cref="DiskImageException">Unsupported: there is no library to compress with.</exception>
    public void ThrowIfCannotCompress()
    {
        if (_library is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"writing zstd needs the zstd library {ZstdLibrary.Wanted}, which was not found; install it or choose another compression (zstd can be read without it)");
        }
    }
}
