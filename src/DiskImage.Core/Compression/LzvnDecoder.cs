using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>LZVN, the byte-oriented method that LZFSE uses for small blocks. Each step begins with a byte that tells its form.</summary>
internal static class LzvnDecoder
{
    /// <summary>Fills the output from <paramref name="written"/> on; matches reach back to its beginning.</summary>
    public static bool TryDecode(ReadOnlySpan<byte> input, Span<byte> output, int written)
    {
        int at = 0, distance = 0;
        while (at < input.Length)
        {
            byte code = input[at];
            int size, literals = 0, length = 0;
            switch (code)
            {
                case 0x06: // the end
                    return written == output.Length;
                case 0x0E or 0x16: // nothing
                    at++;
                    continue;
                case 0x1E or 0x26 or 0x2E or 0x36 or 0x3E or (>= 0x70 and < 0x80) or (>= 0xD0 and < 0xE0):
                    return false;
                case 0xF0:
                    size = 2;
                    length = size <= input.Length - at ? input[at + 1] + 16 : 0;
                    break;
                case > 0xF0:
                    size = 1;
                    length = code & 15;
                    break;
                case 0xE0:
                    size = 2;
                    literals = size <= input.Length - at ? input[at + 1] + 16 : 0;
                    break;
                case > 0xE0:
                    size = 1;
                    literals = code & 15;
                    break;
                case >= 0xA0 and < 0xC0: // 101LLMMM DDDDDDMM DDDDDDDD
                    size = 3;
                    if (size <= input.Length - at)
                    {
                        int pair = LittleEndian.U16(input, at + 1);
                        (literals, length, distance) = ((code >> 3) & 3, (((code & 7) << 2) | (pair & 3)) + 3, pair >> 2);
                    }
                    break;
                default: // LLMMMDDD
                    (literals, length) = (code >> 6, ((code >> 3) & 7) + 3);
                    size = (code & 7) switch { 6 => 1, 7 => 3, _ => 2 };
                    if (size <= input.Length - at)
                    {
                        distance = size switch
                        {
                            1 => distance,
                            3 => LittleEndian.U16(input, at + 1),
                            _ => ((code & 7) << 8) | input[at + 1],
                        };
                    }
                    break;
            }
            if (size > input.Length - at || literals > input.Length - at - size || literals > output.Length - written)
            {
                return false;
            }
            input.Slice(at + size, literals).CopyTo(output[written..]);
            (at, written) = (at + size + literals, written + literals);
            if (length > 0)
            {
                if (distance == 0 || distance > written || length > output.Length - written)
                {
                    return false;
                }
                Matches.Copy(output, written, distance, length);
                written += length;
            }
        }
        return false; // without its end
    }
}
