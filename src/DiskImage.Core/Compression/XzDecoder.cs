using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>
/// .xz streams with the one filter LZMA2. Spec: the .xz file format, version 1.2. The checks behind blocks are passed over.
/// </summary>
internal sealed class XzDecoder : IBlockDecompressor
{
    private const int StreamHeader = 12, FilterLzma2 = 0x21;

    /// <summary>The decoder, which has no state between calls.</summary>
    public static XzDecoder Instance { get; } = new();

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        if (input.Length < StreamHeader || !input.StartsWith((ReadOnlySpan<byte>)[0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0]))
        {
            return false;
        }
        int check = input[7] & 15, at = StreamHeader, written = 0;
        int checkBytes = check == 0 ? 0 : 4 << ((check - 1) / 3); // spec, 2.1.1.2
        LzmaDecoder? decoder = null;
        while (written < output.Length)
        {
            if (at >= input.Length || input[at] == 0) // the index: the stream ends
            {
                return false;
            }
            int headerBytes = (input[at] + 1) * 4;
            if (headerBytes > input.Length - at || !HasOnlyLzma2(input.Slice(at, headerBytes - 4)))
            {
                return false;
            }
            int start = at + headerBytes, end = start;
            decoder ??= new LzmaDecoder();
            if (!Lzma2.TryDecode(decoder, input, ref end, output, ref written))
            {
                return false;
            }
            long next = start + Round.Up(end - start, 4) + checkBytes;
            if (next > input.Length)
            {
                return false;
            }
            at = (int)next;
        }
        return true;
    }

    /// <summary>Spec, 3.1: size, flags, two optional sizes, filters.</summary>
    private static bool HasOnlyLzma2(ReadOnlySpan<byte> header)
    {
        byte flags = header.Length > 1 ? header[1] : (byte)0xFF;
        int at = 2;
        for (int bit = 0x40; bit <= 0x80; bit <<= 1)
        {
            if ((flags & bit) != 0)
            {
                while (at < header.Length && (header[at] & 0x80) != 0)
                {
                    at++;
                }
                at++;
            }
        }
        return (flags & 0x3F) == 0 && at + 3 <= header.Length && header[at] == FilterLzma2 && header[at + 1] == 1;
    }
}
