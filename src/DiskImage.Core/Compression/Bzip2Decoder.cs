using DiskImage.Block;
using ICSharpCode.SharpZipLib.BZip2;

namespace DiskImage.Compression;

/// <summary>bzip2 through SharpZipLib. The checksums of the blocks and of the stream are verified.</summary>
/// <remarks>
/// One stream, which must end where the output does; what stands behind it is not looked at.
///
/// Hostile input. A damaged stream ends in an exception of the library of whatever kind: each of them means damage here. It asks for 5
/// bytes for each byte of the largest block, 4.5 MB at most, whatever the stream says else; what it reads ends with the input, and no more
/// is asked of it than the output takes, and one byte.
/// </remarks>
internal sealed class Bzip2Decoder : IBlockDecompressor
{
    private const int Piece = 64 * 1024; // the library fills arrays: the bytes pass through one of this size, from a pool

    private Bzip2Decoder()
    {
    }

    /// <summary>The decoder, which has no state between calls.</summary>
    public static Bzip2Decoder Instance { get; } = new();

    /// <inheritdoc/>
    /// <exception cref="DiskImageException">Io: no memory.</exception>
    public unsafe bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        if (input.IsEmpty)
        {
            return false;
        }
        fixed (byte* source = input)
        {
            using var packed = new UnmanagedMemoryStream(source, input.Length);
            try
            {
                using var stream = new BZip2InputStream(packed);
                while (!output.IsEmpty)
                {
                    int count = stream.Read(output[..Math.Min(output.Length, Piece)]);
                    if (count == 0)
                    {
                        return false;
                    }
                    output = output[count..];
                }
                return stream.ReadByte() < 0;
            }
            catch (OutOfMemoryException e)
            {
                throw new DiskImageException(DiskImageErrorKind.Io, "there is no memory left for bzip2", cause: e);
            }
            catch (Exception)
            {
                return false;
            }
        }
    }
}
