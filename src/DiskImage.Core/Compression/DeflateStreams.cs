using System.IO.Compression;

namespace DiskImage.Compression;

/// <summary>Raw deflate by the runtime's public streams, for where <see cref="RuntimeZlib"/> cannot be had.</summary>
/// <remarks>
/// The public streams look back 32 KiB when they write, with no way to say otherwise, and QEMU inflates qcow2 clusters with a window of
/// 4 KiB. So a block is written 4 KiB at a time, each piece by a stream of its own that knows nothing of the pieces before. A piece
/// ends with the empty stored block of a flush (RFC 1951, section 3.2.4), on a whole byte and without the mark of the last block, so
/// that the pieces one behind another are one stream; an empty last block ends it. That costs some of the compression and nothing
/// else. Reading needs no such thing: a window of 32 KiB reads every smaller one.
/// </remarks>
internal static class DeflateStreams
{
    private const int Window = 4096; // QEMU's

    private static readonly byte[] s_emptyLastBlock = [0x03, 0x00]; // last, fixed codes, end of block

    /// <summary>As <see cref="IBlockCompressor.Compress"/>.</summary>
    public static int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        using var packed = new MemoryStream();
        for (int at = 0; at < input.Length; at += Window)
        {
            long end;
            using (var deflate = new DeflateStream(packed, CompressionLevel.Optimal, leaveOpen: true))
            {
                deflate.Write(input.Slice(at, Math.Min(Window, input.Length - at)));
                deflate.Flush();
                end = packed.Length;
            }
            packed.SetLength(end); // without what closing added: the mark of the end
            if (end > output.Length)
            {
                return null;
            }
        }
        packed.Write(s_emptyLastBlock);
        return packed.GetBuffer().AsSpan(0, (int)packed.Length).TryCopyTo(output) ? (int)packed.Length : null;
    }

    /// <summary>As <see cref="IBlockDecompressor.TryDecompress"/>.</summary>
    public static bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        using var packed = new MemoryStream(input.ToArray());
        using var deflate = new DeflateStream(packed, CompressionMode.Decompress);
        try
        {
            return deflate.ReadAtLeast(output, output.Length, throwOnEndOfStream: false) == output.Length;
        }
        catch (InvalidDataException)
        {
            return false;
        }
    }
}
