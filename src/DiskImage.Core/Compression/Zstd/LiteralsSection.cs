namespace DiskImage.Compression.Zstd;

/// <summary>The first part of a compressed block: all bytes that are not copies of earlier ones (RFC 8878, section 3.1.1.3.1).</summary>
internal static unsafe class LiteralsSection
{
    private const int Raw = 0, Rle = 1, Compressed = 2;

    /// <summary>
    /// Decodes the section at the start of a block into the workspace's literals: how many there are, at most
    /// <paramref name="maxLength"/>, and how many bytes the section takes. False if it is damaged.
    /// </summary>
    public static bool TryDecode(ZstdWorkspace workspace, ReadOnlySpan<byte> input, int maxLength, out int length, out int used)
    {
        length = used = 0;
        if (input.IsEmpty)
        {
            return false;
        }
        int type = input[0] & 3;
        int sizeFormat = (input[0] >> 2) & 3;
        return type is Raw or Rle
            ? TryStore(workspace, input, type, sizeFormat, maxLength, out length, out used)
            : TryDecompress(workspace, input, type, sizeFormat, maxLength, out length, out used);
    }

    private static bool TryStore(ZstdWorkspace workspace, ReadOnlySpan<byte> input, int type, int sizeFormat, int maxLength, out int length, out int used)
    {
        length = 0;
        used = sizeFormat switch
        {
            1 => 2,
            3 => 3,
            _ => 1,
        };
        if (input.Length < used)
        {
            return false;
        }
        length = used switch
        {
            1 => input[0] >> 3,
            2 => (input[0] >> 4) | (input[1] << 4),
            _ => (input[0] >> 4) | (input[1] << 4) | (input[2] << 12),
        };
        int stored = type == Raw ? length : 1;
        if (length > maxLength || stored > input.Length - used)
        {
            return false;
        }
        Span<byte> literals = new(workspace.Literals, length);
        if (type == Raw)
        {
            input.Slice(used, length).CopyTo(literals);
        }
        else
        {
            literals.Fill(input[used]);
        }
        used += stored;
        return true;
    }

    private static bool TryDecompress(ZstdWorkspace workspace, ReadOnlySpan<byte> input, int type, int sizeFormat, int maxLength, out int length, out int used)
    {
        length = 0;
        used = sizeFormat switch
        {
            2 => 4,
            3 => 5,
            _ => 3,
        };
        if (input.Length < used)
        {
            return false;
        }
        ulong header = 0;
        for (int i = used - 1; i >= 0; i--)
        {
            header = (header << 8) | input[i];
        }
        int width = sizeFormat switch
        {
            2 => 14,
            3 => 18,
            _ => 10,
        };
        length = (int)(header >> 4) & ((1 << width) - 1);
        int compressed = (int)(header >> (4 + width)) & ((1 << width) - 1);
        if (length > maxLength || compressed > input.Length - used)
        {
            return false;
        }
        ReadOnlySpan<byte> streams = input.Slice(used, compressed);
        used += compressed;
        if (type == Compressed)
        {
            if (!workspace.Huffman.TryRead(streams, out int tree))
            {
                return false;
            }
            streams = streams[tree..];
        }
        else if (!workspace.Huffman.IsReady)
        {
            return false;
        }
        fixed (byte* source = streams)
        {
            return sizeFormat == 0
                ? HuffmanStreams.TryDecodeOne(workspace.Huffman.Cells, source, streams.Length, workspace.Literals, length)
                : HuffmanStreams.TryDecodeFour(workspace.Huffman.Cells, source, streams.Length, workspace.Literals, length);
        }
    }
}
