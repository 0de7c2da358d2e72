using System.Buffers;
using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>bzip2: blocks that are sorted (Burrows-Wheeler), moved to front and Huffman-coded, one after the other.</summary>
/// <remarks>
/// <para>There is no specification but the published format description; the layout is: "BZh" and the block size in 100,000 bytes, blocks that begin
/// with the digits of π, an end with the digits of √π. All numbers are big-endian and not aligned. The checksum of each block is verified.</para>
/// <para>Memory: 4 bytes for each byte of the largest block, 3.6 MB at most, from a pool.</para>
/// </remarks>
internal sealed class Bzip2Decoder : IBlockDecompressor
{
    private const ulong BlockMagic = 0x3141_5926_5359, EndMagic = 0x1772_4538_5090;
    private const int GroupSize = 50, MaxTables = 6, MaxSymbols = 258, MaxCodeBits = 20, MaxSelectors = 18_002, LookupBits = 11;

    private static readonly uint[] s_crc = CrcTables();

    /// <summary>The decoder, which has no state between calls.</summary>
    public static Bzip2Decoder Instance { get; } = new();

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        if (input.Length < 4 || !input.StartsWith("BZh"u8) || input[3] is < (byte)'1' or > (byte)'9')
        {
            return false;
        }
        int blockSize = (input[3] - '0') * 100_000, written = 0;
        var bits = new BitReader(input[4..]);
        int[] block = ArrayPool<int>.Shared.Rent(blockSize);
        try
        {
            var state = new State();
            while (written < output.Length)
            {
                if (bits.Take48() != BlockMagic || !TryDecodeBlock(ref bits, state, block.AsSpan(0, blockSize), output, ref written))
                {
                    return false;
                }
            }
            return bits.Take48() == EndMagic;
        }
        finally
        {
            ArrayPool<int>.Shared.Return(block);
        }
    }

    /// <summary>Eight tables: what a byte does to the checksum now, and with one to seven bytes behind it.</summary>
    private static uint[] CrcTables()
    {
        uint[] tables = new uint[8 * 256];
        for (uint i = 0; i < 256; i++)
        {
            uint crc = i << 24;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc << 1) ^ ((crc & 0x8000_0000) != 0 ? 0x04C1_1DB7u : 0);
            }
            tables[i] = crc;
        }
        for (int i = 256; i < tables.Length; i++)
        {
            tables[i] = (tables[i - 256] << 8) ^ tables[tables[i - 256] >> 24];
        }
        return tables;
    }

    /// <summary>The checksum, highest bit first, eight bytes a step.</summary>
    private static uint Crc(ReadOnlySpan<byte> bytes)
    {
        uint[] t = s_crc;
        uint crc = uint.MaxValue;
        for (; bytes.Length >= 8; bytes = bytes[8..])
        {
            uint a = BigEndian.U32(bytes, 0) ^ crc, b = BigEndian.U32(bytes, 4);
            crc = t[1792 + (a >> 24)] ^ t[1536 + ((a >> 16) & 0xFF)] ^ t[1280 + ((a >> 8) & 0xFF)] ^ t[1024 + (a & 0xFF)]
                ^ t[768 + (b >> 24)] ^ t[512 + ((b >> 16) & 0xFF)] ^ t[256 + ((b >> 8) & 0xFF)] ^ t[b & 0xFF];
        }
        foreach (byte value in bytes)
        {
            crc = (crc << 8) ^ t[(crc >> 24) ^ value];
        }
        return ~crc;
    }

    private static bool TryDecodeBlock(ref BitReader bits, State state, Span<int> block, Span<byte> output, ref int written)
    {
        uint crc = bits.Take(32);
        bool isRandomised = bits.Take(1) != 0; // of versions before 0.9.5
        uint origin = bits.Take(24);
        if (isRandomised || !TryReadTables(ref bits, state) || !TryReadSymbols(ref bits, state, block, out int count) || origin >= (uint)count)
        {
            return false;
        }
        Link(state, block[..count]);
        return TryWrite(block[..count], (int)origin, crc, output, ref written);
    }

    /// <summary>Which bytes occur, which table each group uses, and the tables.</summary>
    private static bool TryReadTables(ref BitReader bits, State state)
    {
        uint rows = bits.Take(16);
        state.Bytes = 0;
        for (int row = 0; row < 16; row++)
        {
            uint columns = (rows & (0x8000u >> row)) != 0 ? bits.Take(16) : 0;
            for (int column = 0; column < 16; column++)
            {
                if ((columns & (0x8000u >> column)) != 0)
                {
                    state.Used[state.Bytes++] = (byte)((row * 16) + column);
                }
            }
        }
        int tables = (int)bits.Take(3), symbols = state.Bytes + 2;
        state.Selectors = (int)bits.Take(15);
        if (state.Bytes == 0 || tables is < 2 or > MaxTables || state.Selectors == 0)
        {
            return false;
        }
        Span<byte> order = [0, 1, 2, 3, 4, 5];
        for (int i = 0; i < state.Selectors; i++)
        {
            int moved = 0;
            while (bits.Take(1) != 0)
            {
                if (++moved >= tables)
                {
                    return false;
                }
            }
            byte table = order[moved];
            order[..moved].CopyTo(order[1..]);
            order[0] = table;
            if (i < MaxSelectors)
            {
                state.Selector[i] = table; // some programs write more than there are groups
            }
        }
        state.Selectors = Math.Min(state.Selectors, MaxSelectors);
        Span<byte> lengths = stackalloc byte[MaxSymbols];
        for (int table = 0; table < tables; table++)
        {
            int length = (int)bits.Take(5);
            for (int symbol = 0; symbol < symbols; symbol++)
            {
                while (true)
                {
                    if (length is < 1 or > MaxCodeBits || bits.IsPastEnd)
                    {
                        return false;
                    }
                    if (bits.Take(1) == 0)
                    {
                        break;
                    }
                    length += bits.Take(1) == 0 ? 1 : -1;
                }
                lengths[symbol] = (byte)length;
            }
            state.Tables[table].Build(lengths[..symbols]);
        }
        return !bits.IsPastEnd;
    }

    /// <summary>Runs and places in the list of bytes used last, until the end of the block.</summary>
    private static bool TryReadSymbols(ref BitReader bits, State state, Span<int> block, out int count)
    {
        Span<byte> recent = stackalloc byte[256];
        state.Used.AsSpan(0, state.Bytes).CopyTo(recent);
        int[] counts = state.Counts;
        Array.Clear(counts);
        count = 0;
        int end = state.Bytes + 1, group = 0, left = 0, run = 0, weight = 1;
        HuffmanTable table = state.Tables[0];
        while (true)
        {
            if (left == 0)
            {
                if (group >= state.Selectors || bits.IsPastEnd)
                {
                    return false;
                }
                table = state.Tables[state.Selector[group++]];
                left = GroupSize;
            }
            left--;
            int symbol = table.Next(ref bits);
            if ((uint)symbol <= 1)
            {
                if (weight > 1 << 21)
                {
                    return false;
                }
                run += weight << symbol;
                weight <<= 1;
                continue;
            }
            if (run > 0)
            {
                if (run > block.Length - count)
                {
                    return false;
                }
                byte repeated = recent[0];
                block.Slice(count, run).Fill(repeated);
                counts[repeated] += run;
                count += run;
                (run, weight) = (0, 1);
            }
            if (symbol == end)
            {
                return count > 0 && !bits.IsPastEnd;
            }
            if (symbol < 0 || count >= block.Length)
            {
                return false;
            }
            int place = symbol - 1;
            byte value = recent[place];
            if (place <= 8)
            {
                for (int k = place; k > 0; k--)
                {
                    recent[k] = recent[k - 1];
                }
            }
            else
            {
                recent[..place].CopyTo(recent[1..]);
            }
            recent[0] = value;
            block[count++] = value;
            counts[value]++;
        }
    }

    /// <summary>The inverse of the sort: puts into each entry, above its byte, the number of the entry that follows it.</summary>
    private static void Link(State state, Span<int> block)
    {
        int sum = 0;
        int[] next = state.Counts;
        for (int i = 0; i < 256; i++)
        {
            (next[i], sum) = (sum, sum + next[i]);
        }
        for (int i = 0; i < block.Length; i++)
        {
            block[next[block[i] & 0xFF]++] |= i << 8;
        }
    }

    /// <summary>Follows the chain, and undoes the first step: four equal bytes are followed by a count of more of them.</summary>
    private static bool TryWrite(ReadOnlySpan<int> block, int origin, uint expected, Span<byte> output, ref int written)
    {
        int at = block[origin] >>> 8, same = 0, last = -1, to = written;
        for (int i = 0; i < block.Length; i++)
        {
            int entry = block[at], value = entry & 0xFF;
            at = entry >>> 8;
            if (same == 4)
            {
                if (value > output.Length - to)
                {
                    return false;
                }
                output.Slice(to, value).Fill((byte)last);
                to += value;
                same = 0;
                last = -1;
                continue;
            }
            same = value == last ? same + 1 : 1;
            last = value;
            if ((uint)to >= (uint)output.Length)
            {
                return false;
            }
            output[to++] = (byte)value;
        }
        uint crc = Crc(output[written..to]);
        written = to;
        return crc == expected;
    }

    /// <summary>Bits from the highest of each byte on. Past the end they are zero, and that is noted.</summary>
    private ref struct BitReader(ReadOnlySpan<byte> input)
    {
        private readonly ReadOnlySpan<byte> _input = input;
        private ulong _bits;
        private int _count, _at;

        /// <summary>True if more was taken than there is.</summary>
        public readonly bool IsPastEnd => _at - (_count / 8) > _input.Length;

        public uint Peek(int count)
        {
            if (_count < count)
            {
                Fill();
            }
            return (uint)(_bits >> (_count - count)) & (uint)((1UL << count) - 1);
        }

        public void Skip(int count) => _count -= count;

        public uint Take(int count)
        {
            uint taken = Peek(count);
            _count -= count;
            return taken;
        }

        public ulong Take48() => ((ulong)Take(24) << 24) | Take(24);

        private void Fill()
        {
            while (_count <= 56)
            {
                _bits = (_bits << 8) | (_at < _input.Length ? _input[_at] : 0u);
                _at++;
                _count += 8;
            }
        }
    }

    /// <summary>What one call needs besides the block.</summary>
    private sealed class State
    {
        public byte[] Used { get; } = new byte[256];

        public int Bytes { get; set; }

        public byte[] Selector { get; } = new byte[MaxSelectors];

        public int Selectors { get; set; }

        public int[] Counts { get; } = new int[256];

        public HuffmanTable[] Tables { get; } = [new(), new(), new(), new(), new(), new()];
    }

    /// <summary>A canonical Huffman code of up to 20 bits; the short ones are looked up at once.</summary>
    private sealed class HuffmanTable
    {
        private readonly short[] _lookup = new short[1 << LookupBits]; // symbol << 5 | length; 0 for a longer code
        private readonly short[] _symbols = new short[MaxSymbols];
        private readonly int[] _first = new int[MaxCodeBits + 2], _limit = new int[MaxCodeBits + 2], _index = new int[MaxCodeBits + 2];

        public void Build(ReadOnlySpan<byte> lengths)
        {
            Array.Clear(_lookup);
            int code = 0, at = 0;
            for (int length = 1; length <= MaxCodeBits; length++, code <<= 1)
            {
                (_first[length], _index[length]) = (code, at);
                for (int symbol = 0; symbol < lengths.Length; symbol++)
                {
                    if (lengths[symbol] != length)
                    {
                        continue;
                    }
                    if (length <= LookupBits && code < 1 << length)
                    {
                        _lookup.AsSpan(code << (LookupBits - length), 1 << (LookupBits - length)).Fill((short)((symbol << 5) | length));
                    }
                    _symbols[at++] = (short)symbol;
                    code++;
                }
                _limit[length] = code;
            }
        }

        /// <summary>The next symbol; -1 if the bits are no code.</summary>
        public int Next(ref BitReader bits)
        {
            int entry = _lookup[bits.Peek(LookupBits)];
            if (entry != 0)
            {
                bits.Skip(entry & 31);
                return entry >> 5;
            }
            uint peeked = bits.Peek(MaxCodeBits);
            for (int length = 1; length <= MaxCodeBits; length++)
            {
                int code = (int)(peeked >> (MaxCodeBits - length));
                if (code >= _first[length] && code < _limit[length])
                {
                    bits.Skip(length);
                    return _symbols[_index[length] + code - _first[length]];
                }
            }
            return -1;
        }
    }
}
