using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>Apple data compression, the first of the Apple disk images' methods: literals and two forms of matches, byte by byte.</summary>
/// <remarks>
/// There is no published specification. 1xxxxxxx: x + 1 literals follow. 01xxxxxx and 16 bits of distance: x + 4 bytes. 00xxxxdd and 8 more
/// bits of distance: x + 3 bytes. A distance of 0 is the byte before.
/// </remarks>
internal sealed class AdcDecoder : IBlockDecompressor
{
    private const int Literals = 0x80, Long = 0x40;

    /// <summary>The decoder, which has no state.</summary>
    public static AdcDecoder Instance { get; } = new();

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        int at = 0, written = 0;
        while (written < output.Length)
        {
            if (at >= input.Length)
            {
                return false;
            }
            byte code = input[at++];
            if ((code & Literals) != 0)
            {
                int count = (code & 0x7F) + 1;
                if (count > input.Length - at || count > output.Length - written)
                {
                    return false;
                }
                input.Slice(at, count).CopyTo(output[written..]);
                (at, written) = (at + count, written + count);
                continue;
            }
            bool isLong = (code & Long) != 0;
            int extra = isLong ? 2 : 1;
            if (extra > input.Length - at)
            {
                return false;
            }
            int length = isLong ? (code & 0x3F) + 4 : ((code >> 2) & 0xF) + 3;
            int distance = (isLong ? BigEndian.U16(input, at) : ((code & 3) << 8) | input[at]) + 1;
            at += extra;
            if (distance > written || length > output.Length - written)
            {
                return false;
            }
            Matches.Copy(output, written, distance, length);
            written += length;
        }
        return true;
    }
}

/// <summary>The step that all dictionary coders share.</summary>
internal static class Matches
{
    /// <summary>Repeats what stands before a place; the caller has checked that source and target are inside.</summary>
    public static void Copy(Span<byte> output, int at, int distance, int length)
    {
        if (distance >= length)
        {
            output.Slice(at - distance, length).CopyTo(output[at..]);
        }
        else if (distance == 1)
        {
            output.Slice(at, length).Fill(output[at - 1]);
        }
        else
        {
            for (int i = at; i < at + length; i++)
            {
                output[i] = output[i - distance];
            }
        }
    }
}
