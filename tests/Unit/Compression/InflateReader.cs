namespace DiskImage.Tests.Compression;

/// <summary>A reader of raw deflate after RFC 1951 that is slow, plain and nobody else's: a judge of what is written.</summary>
internal sealed class InflateReader(byte[] input)
{
    private static readonly int[]
        s_lengthBase = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258],
        s_lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0],
        s_distanceBase =
        [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289,
            16385, 24577,
        ],
        s_distanceBits = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13],
        s_order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

    private readonly List<byte> _output = [];
    private int _bit;

    /// <summary>The furthest that any copy reached back.</summary>
    public int FurthestCopy { get; private set; }

    /// <summary>How many bytes the stream takes, its last one counted whole.</summary>
    public int Used => (_bit + 7) / 8;

    /// <summary>All that the stream holds.</summary>
    public byte[] Read()
    {
        bool last;
        do
        {
            last = Bits(1) == 1;
            switch (Bits(2))
            {
                case 0:
                    Stored();
                    break;
                case 1:
                    Coded(
                        [
                            .. Enumerable.Repeat(8, 144), .. Enumerable.Repeat(9, 112), .. Enumerable.Repeat(7, 24),
                            .. Enumerable.Repeat(8, 8),
                        ],
                        [.. Enumerable.Repeat(5, 30)]);
                    break;
                case 2:
                    Described();
                    break;
                default:
                    throw new InvalidDataException("a block of the reserved type");
            }
        }
        while (!last);
        return [.. _output];
    }

    private void Stored()
    {
        _bit = (_bit + 7) & ~7;
        int length = Bits(16);
        Assert.Equal(length, ~Bits(16) & 0xFFFF);
        for (int i = 0; i < length; i++)
        {
            _output.Add((byte)Bits(8));
        }
    }

    private void Described()
    {
        int literals = Bits(5) + 257, distances = Bits(5) + 1, count = Bits(4) + 4;
        int[] lengths = new int[19];
        for (int i = 0; i < count; i++)
        {
            lengths[s_order[i]] = Bits(3);
        }
        Dictionary<(int Length, int Code), int> code = Code(lengths);
        var all = new List<int>();
        while (all.Count < literals + distances)
        {
            int symbol = Symbol(code);
            all.AddRange(symbol switch
            {
                < 16 => [symbol],
                16 => Enumerable.Repeat(all[^1], 3 + Bits(2)),
                17 => Enumerable.Repeat(0, 3 + Bits(3)),
                _ => Enumerable.Repeat(0, 11 + Bits(7)),
            });
        }
        Coded(all.GetRange(0, literals), all.GetRange(literals, distances));
    }

    private void Coded(IReadOnlyList<int> literalLengths, IReadOnlyList<int> distanceLengths)
    {
        Dictionary<(int Length, int Code), int> literals = Code(literalLengths), distances = Code(distanceLengths);
        for (int symbol = Symbol(literals); symbol != 256; symbol = Symbol(literals))
        {
            if (symbol < 256)
            {
                _output.Add((byte)symbol);
                continue;
            }
            int length = s_lengthBase[symbol - 257] + Bits(s_lengthBits[symbol - 257]);
            int code = Symbol(distances);
            int distance = s_distanceBase[code] + Bits(s_distanceBits[code]);
            FurthestCopy = Math.Max(FurthestCopy, distance);
            for (; length > 0; length--)
            {
                _output.Add(_output[^distance]);
            }
        }
    }

    /// <summary>The canonical code of section 3.2.2.</summary>
    private static Dictionary<(int Length, int Code), int> Code(IReadOnlyList<int> lengths)
    {
        var code = new Dictionary<(int, int), int>();
        for (int length = 1, next = 0; length <= 15; length++, next <<= 1)
        {
            for (int symbol = 0; symbol < lengths.Count; symbol++)
            {
                if (lengths[symbol] == length)
                {
                    code.Add((length, next++), symbol);
                }
            }
        }
        return code;
    }

    private int Symbol(Dictionary<(int Length, int Code), int> code)
    {
        for (int length = 1, bits = 0; length <= 15; length++)
        {
            bits = (bits << 1) | Bits(1);
            if (code.TryGetValue((length, bits), out int symbol))
            {
                return symbol;
            }
        }
        throw new InvalidDataException("bits that are no symbol");
    }

    private int Bits(int count)
    {
        int value = 0;
        for (int i = 0; i < count; i++, _bit++)
        {
            value |= ((input[_bit / 8] >> (_bit % 8)) & 1) << i;
        }
        return value;
    }
}
