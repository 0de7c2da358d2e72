using System.Buffers.Binary;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>Writes frames by hand, with every choice open, right or wrong.</summary>
internal sealed class ZstdFrameBuilder
{
    /// <summary>The extra bits of each code: of literal lengths, of match lengths (RFC 8878, section 3.1.1.3.2.1.1).</summary>
    private static readonly int[]
        s_literalBits = [.. new int[16], 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        s_matchBits = [.. new int[32], 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

    private readonly List<byte> _bytes = [];
    private readonly List<int> _blocks = [];

    /// <summary>A frame with a window descriptor and no content size; 0x38 is a window of 128 KiB.</summary>
    public static ZstdFrameBuilder Windowed(byte window = 0x38, byte flags = 0) => Raw([0x28, 0xB5, 0x2F, 0xFD, flags, window]);

    /// <summary>A frame of a single segment that says its size in one byte.</summary>
    public static ZstdFrameBuilder Sized(byte size, byte flags = 0) => Raw([0x28, 0xB5, 0x2F, 0xFD, (byte)(0x20 | flags), size]);

    public static ZstdFrameBuilder Raw(ReadOnlySpan<byte> bytes)
    {
        var frame = new ZstdFrameBuilder();
        frame._bytes.AddRange(bytes);
        return frame;
    }

    public static byte[] Skippable(int variant, params byte[] content)
        => [(byte)(0x50 + variant), 0x2A, 0x4D, 0x18, (byte)content.Length, 0, 0, 0, .. content];

    public ZstdFrameBuilder RawBlock(params byte[] content) => Block(0, content.Length, content);

    public ZstdFrameBuilder RleBlock(byte value, int count) => Block(1, count, [value]);

    /// <summary>A compressed block of literals and sequences, each section as it stands.</summary>
    public ZstdFrameBuilder CompressedBlock(byte[] literals, byte[] sequences)
        => Block(2, literals.Length + sequences.Length, [.. literals, .. sequences]);

    public ZstdFrameBuilder Block(int type, int size, byte[] content)
    {
        _blocks.Add(_bytes.Count);
        int header = (size << 3) | (type << 1);
        _bytes.AddRange([(byte)header, (byte)(header >> 8), (byte)(header >> 16), .. content]);
        return this;
    }

    /// <summary>The frame, its last block marked as the last.</summary>
    public byte[] Done()
    {
        byte[] bytes = [.. _bytes];
        bytes[_blocks[^1]] |= 1;
        return bytes;
    }

    /// <summary>The frame with the checksum of some bytes.</summary>
    public byte[] Done(ReadOnlySpan<byte> hashed)
    {
        byte[] sum = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(sum, (uint)XxHash64.Hash(hashed));
        return [.. Done(), .. sum];
    }

    /// <summary>A literals section that is stored, of up to 4095 bytes.</summary>
    public static byte[] Literals(params byte[] bytes)
        => bytes.Length < 32
            ? [(byte)(bytes.Length << 3), .. bytes]
            : [(byte)((bytes.Length << 4) | 4), (byte)(bytes.Length >> 4), .. bytes];

    /// <summary>The literals section of a Huffman code in one stream: type 2 with a tree, 3 without.</summary>
    public static byte[] HuffmanLiterals(int type, int count, params byte[] content)
    {
        int header = type | (count << 4) | (content.Length << 14);
        return [(byte)header, (byte)(header >> 8), (byte)(header >> 16), .. content];
    }

    /// <summary>
    /// A sequences section where each of the three symbols is the same in every sequence (RLE mode), so that the stream holds extra
    /// bits only: per sequence those of the offset, the match length and the literal length.
    /// </summary>
    public static byte[] Sequences(
        byte literalCode, byte offsetCode, byte matchCode, params (uint Offset, uint Match, uint Literals)[] extra)
    {
        var bits = new List<bool>();
        foreach ((uint offset, uint match, uint literals) in extra.Reverse())
        {
            Append(literals, s_literalBits[literalCode]);
            Append(match, s_matchBits[matchCode]);
            Append(offset, offsetCode);
        }
        return [(byte)extra.Length, 0x54, literalCode, offsetCode, matchCode, .. Stream(bits)];

        void Append(uint value, int count)
        {
            for (int i = 0; i < count; i++)
            {
                bits.Add(((value >> i) & 1) != 0);
            }
        }
    }

    /// <summary>A stream to be read from its end: the bits, the 1 that ends them, padding.</summary>
    public static byte[] Stream(List<bool> bits)
    {
        byte[] stream = new byte[(bits.Count / 8) + 1];
        for (int i = 0; i <= bits.Count; i++)
        {
            stream[i / 8] |= (byte)(i == bits.Count || bits[i] ? 1 << (i % 8) : 0);
        }
        return stream;
    }
}
