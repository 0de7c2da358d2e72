using System.Numerics;
using System.Runtime.InteropServices;
using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>Apple's LZFSE: a run of blocks that are raw, LZVN, or matches and literals under finite-state entropy coding.</summary>
/// <remarks>
/// <para>The format is that of Apple's published reference implementation. A block begins with four letters: <c>bvx-</c> raw, <c>bvxn</c>
/// LZVN, <c>bvx1</c> and <c>bvx2</c> entropy-coded with plain or packed tables, <c>bvx$</c> the end. Matches reach back
/// into earlier blocks.</para>
/// <para>Memory: about 60 KiB a call, whatever the input says.</para>
/// </remarks>
internal sealed class LzfseDecoder : IBlockDecompressor
{
    private const uint RawMagic = 0x2D78_7662, PlainMagic = 0x3178_7662, PackedMagic = 0x3278_7662, LzvnMagic = 0x6E78_7662;
    private const int LSymbols = 20, MSymbols = 20, DSymbols = 64, LiteralSymbols = 256;
    private const int Symbols = LSymbols + MSymbols + DSymbols + LiteralSymbols;
    private const int LStates = 64, MStates = 64, DStates = 256, LiteralStates = 1024;
    private const int MaxMatches = 10_000, MaxLiterals = 4 * MaxMatches;
    private const int PackedHeader = 32, PlainHeader = 52 + (Symbols * 2); // two bytes fill it up

    private static readonly byte[] s_lBits = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 5, 8];
    private static readonly byte[] s_mBits = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 5, 8, 11];
    private static readonly byte[] s_dBits = [.. Enumerable.Range(0, DSymbols).Select(i => (byte)(i / 4))];
    private static readonly int[] s_lBase = Bases(s_lBits), s_mBase = Bases(s_mBits), s_dBase = Bases(s_dBits);

    /// <summary>The decoder, which has no state between calls.</summary>
    public static LzfseDecoder Instance { get; } = new();

    /// <inheritdoc/>
    public bool TryDecompress(ReadOnlySpan<byte> input, Span<byte> output)
    {
        int at = 0, written = 0;
        Tables? tables = null;
        while (written < output.Length)
        {
            if (input.Length - at < 8)
            {
                return false;
            }
            uint magic = LittleEndian.U32(input, at), raw = LittleEndian.U32(input, at + 4);
            if (raw > (uint)(output.Length - written))
            {
                return false;
            }
            Span<byte> target = output[..(written + (int)raw)];
            switch (magic)
            {
                case RawMagic when raw <= (uint)(input.Length - at - 8):
                    input.Slice(at + 8, (int)raw).CopyTo(output[written..]);
                    at += 8 + (int)raw;
                    break;
                case LzvnMagic when input.Length - at >= 12 && LittleEndian.U32(input, at + 8) is var packed
                    && packed <= (uint)(input.Length - at - 12):
                    if (!LzvnDecoder.TryDecode(input.Slice(at + 12, (int)packed), target, written))
                    {
                        return false;
                    }
                    at += 12 + (int)packed;
                    break;
                case PlainMagic or PackedMagic:
                    tables ??= new Tables();
                    if (Header.Read(input[at..], magic == PackedMagic, tables.Frequencies) is not { } header
                        || !TryDecodeBlock(input, at + header.Size, header, tables, target, written))
                    {
                        return false;
                    }
                    at += header.Size + header.LiteralBytes + header.MatchBytes;
                    break;
                default:
                    return false; // among them the end, which comes too early
            }
            if (raw == 0 && magic is RawMagic)
            {
                return false; // nothing to be won from it
            }
            written += (int)raw;
        }
        return true;
    }

    private static int[] Bases(byte[] bits)
    {
        int[] bases = new int[bits.Length];
        for (int i = 1; i < bits.Length; i++)
        {
            bases[i] = bases[i - 1] + (1 << bits[i - 1]);
        }
        return bases;
    }

    private static bool TryDecodeBlock(ReadOnlySpan<byte> input, int at, in Header header, Tables tables, Span<byte> output, int written)
    {
        if (header.LiteralBytes > input.Length - at || header.MatchBytes > input.Length - at - header.LiteralBytes || !tables.TryBuild())
        {
            return false;
        }
        int literalsEnd = at + header.LiteralBytes;
        return TryDecodeLiterals(input, literalsEnd, header, tables)
            && TryDecodeMatches(input, literalsEnd + header.MatchBytes, header, tables, output, written);
    }

    /// <summary>Four states take turns; the bits are read from the end backwards.</summary>
    private static bool TryDecodeLiterals(ReadOnlySpan<byte> input, int end, in Header header, Tables tables)
    {
        if (!Bits.TryBegin(input, end, header.LiteralBits, out Bits bits))
        {
            return false;
        }
        (int s0, int s1, int s2, int s3) = header.LiteralStates;
        ReadOnlySpan<Entry> table = tables.Literal;
        Span<byte> literals = tables.Literals;
        for (int i = 0; i < header.Literals; i += 4)
        {
            if (!bits.TryFill())
            {
                return false;
            }
            literals[i] = (byte)Next(table, ref s0, ref bits);
            literals[i + 1] = (byte)Next(table, ref s1, ref bits);
            literals[i + 2] = (byte)Next(table, ref s2, ref bits);
            literals[i + 3] = (byte)Next(table, ref s3, ref bits);
        }
        return true;
    }

    private static bool TryDecodeMatches(ReadOnlySpan<byte> input, int end, in Header header, Tables tables, Span<byte> output, int written)
    {
        if (!Bits.TryBegin(input, end, header.MatchBits, out Bits bits))
        {
            return false;
        }
        int l = header.LState, m = header.MState, d = header.DState, distance = 0, literal = 0;
        for (int i = 0; i < header.Matches; i++)
        {
            if (!bits.TryFill())
            {
                return false;
            }
            int literals = Next(tables.L, ref l, ref bits), length = Next(tables.M, ref m, ref bits);
            int given = Next(tables.D, ref d, ref bits);
            distance = given != 0 ? given : distance;
            if (literals > header.Literals - literal || literals > output.Length - written)
            {
                return false;
            }
            tables.Literals.AsSpan(literal, literals).CopyTo(output[written..]);
            (literal, written) = (literal + literals, written + literals);
            if (length == 0)
            {
                continue;
            }
            if (distance == 0 || distance > written || length > output.Length - written)
            {
                return false;
            }
            Matches.Copy(output, written, distance, length);
            written += length;
        }
        return written == output.Length;
    }

    private static int Next(ReadOnlySpan<Entry> table, ref int state, ref Bits bits)
    {
        Entry entry = table[state & (table.Length - 1)];
        uint taken = bits.Take(entry.Bits);
        state = entry.Delta + (int)(taken >> entry.ValueBits);
        return entry.Base + (int)(taken & ((1u << entry.ValueBits) - 1));
    }

    /// <summary>What a state leads to: take bits, of which the lower ones belong to the value and the others to the next state.</summary>
    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Entry(byte Bits, byte ValueBits, short Delta, int Base);

    /// <summary>Bits that are read from the end of a range towards its beginning.</summary>
    private ref struct Bits
    {
        private ReadOnlySpan<byte> _input;
        private ulong _bits;
        private int _count, _at;

        /// <summary>Takes the last bytes; <paramref name="unused"/> (0 to -7) bits of them are none.</summary>
        public static bool TryBegin(ReadOnlySpan<byte> input, int end, int unused, out Bits bits)
        {
            int bytes = unused != 0 ? 8 : 7;
            bits = new() { _input = input, _at = end - bytes };
            if (bits._at < 0)
            {
                return false;
            }
            for (int i = bytes - 1; i >= 0; i--)
            {
                bits._bits = (bits._bits << 8) | input[bits._at + i];
            }
            bits._count = (bytes * 8) + unused;
            return bits._count is >= 56 and < 64 && bits._bits >> bits._count == 0;
        }

        /// <summary>Takes more bytes, so that there are 56 bits at least; false before the beginning.</summary>
        public bool TryFill()
        {
            while (_count < 56)
            {
                if (--_at < 0)
                {
                    return false;
                }
                _bits = (_bits << 8) | _input[_at];
                _count += 8;
            }
            return true;
        }

        public uint Take(int count)
        {
            _count -= count;
            ulong taken = _bits >> _count;
            _bits &= (1UL << _count) - 1;
            return (uint)taken;
        }
    }

    /// <summary>The tables of one block, and its literals.</summary>
    private sealed class Tables
    {
        public ushort[] Frequencies { get; } = new ushort[Symbols];

        public byte[] Literals { get; } = new byte[MaxLiterals + 4];

        public Entry[] L { get; } = new Entry[LStates];

        public Entry[] M { get; } = new Entry[MStates];

        public Entry[] D { get; } = new Entry[DStates];

        public Entry[] Literal { get; } = new Entry[LiteralStates];

        public bool TryBuild()
        {
            ReadOnlySpan<ushort> frequencies = Frequencies;
            return TryBuild(L, frequencies[..LSymbols], s_lBits, s_lBase)
                && TryBuild(M, frequencies.Slice(LSymbols, MSymbols), s_mBits, s_mBase)
                && TryBuild(D, frequencies.Slice(LSymbols + MSymbols, DSymbols), s_dBits, s_dBase)
                && TryBuild(Literal, frequencies[(LSymbols + MSymbols + DSymbols)..], default, default);
        }

        /// <summary>A symbol of frequency f has f states; each takes as many bits as bring f states up to all of them.</summary>
        private static bool TryBuild(Entry[] table, ReadOnlySpan<ushort> frequencies, ReadOnlySpan<byte> bits, ReadOnlySpan<int> bases)
        {
            Array.Clear(table);
            int at = 0, states = table.Length;
            for (int symbol = 0; symbol < frequencies.Length; symbol++)
            {
                int f = frequencies[symbol];
                if (f == 0)
                {
                    continue;
                }
                if (f > states - at)
                {
                    return false;
                }
                int k = BitOperations.Log2((uint)states) - BitOperations.Log2((uint)f), wide = (2 * states >> k) - f;
                byte valueBits = bits.IsEmpty ? (byte)0 : bits[symbol];
                int value = bases.IsEmpty ? symbol : bases[symbol];
                for (int j = 0; j < f; j++)
                {
                    table[at++] = j < wide
                        ? new((byte)(k + valueBits), valueBits, (short)(((f + j) << k) - states), value)
                        : new((byte)(k - 1 + valueBits), valueBits, (short)((j - wide) << (k - 1)), value);
                }
            }
            return true;
        }
    }

    /// <summary>The header of an entropy-coded block.</summary>
    private readonly record struct Header(
        int Size,
        int Literals,
        int Matches,
        int LiteralBytes,
        int MatchBytes,
        int LiteralBits,
        int MatchBits,
        (int S0, int S1, int S2, int S3) LiteralStates,
        int LState,
        int MState,
        int DState)
    {
        /// <summary>Reads a header and its frequencies; null if it is damaged.</summary>
        public static Header? Read(ReadOnlySpan<byte> input, bool isPacked, Span<ushort> frequencies)
        {
            if (input.Length < (isPacked ? PackedHeader : PlainHeader))
            {
                return null;
            }
            Header header = isPacked ? ReadPacked(input) : ReadPlain(input);
            bool isSound = header is
                { Literals: >= 0 and <= MaxLiterals, Matches: >= 0 and <= MaxMatches, LiteralBytes: >= 0, MatchBytes: >= 0 }
                && header.LiteralBits is <= 0 and >= -7 && header.MatchBits is <= 0 and >= -7
                && header.LState < LStates && header.MState < MStates && header.DState < DStates
                && Math.Max(
                    Math.Max(header.LiteralStates.S0, header.LiteralStates.S1),
                    Math.Max(header.LiteralStates.S2, header.LiteralStates.S3)) < LzfseDecoder.LiteralStates
                && header.Size >= PackedHeader && header.Size <= input.Length;
            if (!isSound)
            {
                return null;
            }
            if (isPacked)
            {
                return TryUnpack(input[PackedHeader..header.Size], frequencies) ? header : null;
            }
            for (int i = 0; i < Symbols; i++)
            {
                frequencies[i] = LittleEndian.U16(input, 50 + (i * 2));
            }
            return header;
        }

        private static Header ReadPacked(ReadOnlySpan<byte> input)
        {
            ulong a = LittleEndian.U64(input, 8), b = LittleEndian.U64(input, 16), c = LittleEndian.U64(input, 24);
            return new(
                (int)Math.Min((uint)c, int.MaxValue),
                Field(a, 0, 20),
                Field(a, 40, 20),
                Field(a, 20, 20),
                Field(b, 40, 20),
                Field(a, 60, 3) - 7,
                Field(b, 60, 3) - 7,
                (Field(b, 0, 10), Field(b, 10, 10), Field(b, 20, 10), Field(b, 30, 10)),
                Field(c, 32, 10),
                Field(c, 42, 10),
                Field(c, 52, 10));
        }

        private static Header ReadPlain(ReadOnlySpan<byte> input) => new(
            PlainHeader,
            (int)LittleEndian.U32(input, 12),
            (int)LittleEndian.U32(input, 16),
            (int)LittleEndian.U32(input, 20),
            (int)LittleEndian.U32(input, 24),
            (int)LittleEndian.U32(input, 28),
            (int)LittleEndian.U32(input, 40),
            (LittleEndian.U16(input, 32), LittleEndian.U16(input, 34), LittleEndian.U16(input, 36), LittleEndian.U16(input, 38)),
            LittleEndian.U16(input, 44),
            LittleEndian.U16(input, 46),
            LittleEndian.U16(input, 48));

        private static int Field(ulong bits, int at, int count) => (int)((bits >> at) & ((1UL << count) - 1));

        /// <summary>Frequencies in a prefix code of 2 to 14 bits, from the lowest bit on; they end with the header.</summary>
        private static bool TryUnpack(ReadOnlySpan<byte> input, Span<ushort> frequencies)
        {
            frequencies.Clear();
            if (input.IsEmpty)
            {
                return true;
            }
            uint bits = 0;
            int count = 0, at = 0;
            for (int i = 0; i < Symbols; i++)
            {
                for (; at < input.Length && count + 8 <= 32; count += 8)
                {
                    bits |= (uint)input[at++] << count;
                }
                (int used, uint value) = (bits & 31) switch
                {
                    var b when (b & 3) == 0 => (2, 0u),
                    var b when (b & 3) == 2 => (2, 1u),
                    var b when (b & 7) == 1 => (3, 2u),
                    var b when (b & 7) == 5 => (3, 3u),
                    var b when (b & 7) == 3 => (5, 4 + (b >> 3)),
                    var b when (b & 15) == 7 => (8, 8 + ((bits >> 4) & 15)),
                    _ => (14, 24 + ((bits >> 4) & 0x3FF)),
                };
                if (used > count)
                {
                    return false;
                }
                frequencies[i] = (ushort)value;
                bits >>= used;
                count -= used;
            }
            return count < 8 && at == input.Length;
        }
    }
}
