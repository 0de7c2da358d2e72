using DiskImage.Binary;

namespace DiskImage.Compression;

/// <summary>
/// Chunks of LZMA or of plain bytes. Spec: the .xz file format, 5.3.1, and the description of LZMA2 in its public sources.
/// </summary>
internal static class Lzma2
{
    /// <summary>Decodes chunks to their end, or until the output is full.</summary>
    public static bool TryDecode(LzmaDecoder decoder, ReadOnlySpan<byte> input, ref int at, Span<byte> output, ref int written)
    {
        bool needsProperties = true, needsDictionary = true;
        int dictionary = written;
        while (at < input.Length)
        {
            byte control = input[at++];
            if (control == 0)
            {
                return true;
            }
            if (control is 1 or >= 0xE0)
            {
                (dictionary, needsDictionary) = (written, false);
            }
            if (needsDictionary || input.Length - at < 2)
            {
                return false;
            }
            if (control < 0x80)
            {
                int plain = BigEndian.U16(input, at) + 1;
                at += 2;
                if (control > 2 || plain > input.Length - at || plain > output.Length - written)
                {
                    return false;
                }
                input.Slice(at, plain).CopyTo(output[written..]);
                (at, written) = (at + plain, written + plain);
                continue;
            }
            if (input.Length - at < 4)
            {
                return false;
            }
            int size = (((control & 0x1F) << 16) | BigEndian.U16(input, at)) + 1, packed = BigEndian.U16(input, at + 2) + 1;
            int reset = (control >> 5) & 3;
            at += 4;
            if (reset >= 2)
            {
                if (at >= input.Length || !decoder.TrySetProperties(input[at++]))
                {
                    return false;
                }
                needsProperties = false;
            }
            if (reset >= 1)
            {
                decoder.Reset();
            }
            if (needsProperties || packed > input.Length - at || size > output.Length - written
                || !decoder.TryDecode(input.Slice(at, packed), output[..(written + size)], written, dictionary))
            {
                return false;
            }
            (at, written) = (at + packed, written + size);
        }
        return false;
    }
}

/// <summary>
/// LZMA: literals and matches under an adaptive range coder. Source: the LZMA specification, which is in the public domain.
/// </summary>
/// <remarks>The output is the dictionary, so there is no other. Memory: 60 KiB at most, since LZMA2 has lc + lp up to 4.</remarks>
internal sealed class LzmaDecoder
{
    private const int States = 12, MaxPositionStates = 16, LengthStates = 4, AlignBits = 4, EndPositionModel = 14, FullDistances = 128;
    private const int BitModelBits = 11, MoveBits = 5, LowCoder = 8, MiddleCoder = 8, HighCoder = 256, MinMatch = 2;
    private const uint Top = 1u << 24;
    private const ushort Half = 1 << (BitModelBits - 1);

    private readonly ushort[] _isMatch = new ushort[States * MaxPositionStates], _isRep = new ushort[States], _isRepG0 = new ushort[States];
    private readonly ushort[] _isRepG1 = new ushort[States], _isRepG2 = new ushort[States];
    private readonly ushort[] _isRep0Long = new ushort[States * MaxPositionStates], _slots = new ushort[LengthStates * 64];
    private readonly ushort[] _positions = new ushort[1 + FullDistances - EndPositionModel], _align = new ushort[1 << AlignBits];
    private readonly ushort[] _literals = new ushort[0x300 << 4];

    private readonly LengthCoder _matchLength = new(), _repLength = new();
    private int _lc, _literalPositionMask, _positionMask, _state, _rep0, _rep1, _rep2, _rep3;

    /// <summary>lc + 9 × (lp + 5 × pb); false if they cannot be.</summary>
    public bool TrySetProperties(byte properties)
    {
        int rest = properties / 9, lp = rest % 5, pb = rest / 5;
        _lc = properties % 9;
        (_literalPositionMask, _positionMask) = ((1 << lp) - 1, (1 << Math.Min(pb, 4)) - 1);
        return properties < 9 * 5 * 5 && _lc + lp <= 4;
    }

    /// <summary>Forgets what was learned.</summary>
    public void Reset()
    {
        ushort[][] all = [_isMatch, _isRep, _isRepG0, _isRepG1, _isRepG2, _isRep0Long, _slots, _positions, _align, _literals];
        foreach (ushort[] models in all)
        {
            Array.Fill(models, Half);
        }
        _matchLength.Reset();
        _repLength.Reset();
        (_state, _rep0, _rep1, _rep2, _rep3) = (0, 0, 0, 0, 0);
    }

    /// <summary>Fills the output from <paramref name="at"/> on; matches reach back to <paramref name="dictionary"/>.</summary>
    public bool TryDecode(ReadOnlySpan<byte> input, Span<byte> output, int at, int dictionary)
    {
        if (input.Length < 5 || input[0] != 0)
        {
            return false;
        }
        var range = new RangeDecoder(input);
        while (at < output.Length)
        {
            int position = (at - dictionary) & _positionMask;
            if (range.Bit(ref _isMatch[(_state * MaxPositionStates) + position]) == 0)
            {
                output[at] = Literal(ref range, output, at, dictionary);
                at++;
                _state = _state < 4 ? 0 : _state < 10 ? _state - 3 : _state - 6;
                continue;
            }
            int length;
            if (range.Bit(ref _isRep[_state]) != 0)
            {
                if (at == dictionary)
                {
                    return false;
                }
                if (range.Bit(ref _isRepG0[_state]) == 0)
                {
                    if (range.Bit(ref _isRep0Long[(_state * MaxPositionStates) + position]) == 0)
                    {
                        _state = _state < 7 ? 9 : 11;
                        if ((uint)_rep0 >= (uint)(at - dictionary))
                        {
                            return false;
                        }
                        output[at] = output[at - _rep0 - 1];
                        at++;
                        continue;
                    }
                }
                else
                {
                    int distance;
                    if (range.Bit(ref _isRepG1[_state]) == 0)
                    {
                        distance = _rep1;
                    }
                    else
                    {
                        if (range.Bit(ref _isRepG2[_state]) == 0)
                        {
                            distance = _rep2;
                        }
                        else
                        {
                            (distance, _rep3) = (_rep3, _rep2);
                        }
                        _rep2 = _rep1;
                    }
                    (_rep1, _rep0) = (_rep0, distance);
                }
                length = _repLength.Next(ref range, position);
                _state = _state < 7 ? 8 : 11;
            }
            else
            {
                (_rep3, _rep2, _rep1) = (_rep2, _rep1, _rep0);
                length = _matchLength.Next(ref range, position);
                _state = _state < 7 ? 7 : 10;
                _rep0 = Distance(ref range, length);
            }
            length += MinMatch;
            if ((uint)_rep0 >= (uint)(at - dictionary) || length > output.Length - at || range.IsPastEnd)
            {
                return false;
            }
            Matches.Copy(output, at, _rep0 + 1, length);
            at += length;
        }
        return !range.IsPastEnd;
    }

    private byte Literal(ref RangeDecoder range, ReadOnlySpan<byte> output, int at, int dictionary)
    {
        int previous = at > dictionary ? output[at - 1] : 0;
        int context = (((at - dictionary) & _literalPositionMask) << _lc) + (previous >> (8 - _lc));
        Span<ushort> models = _literals.AsSpan(0x300 * context, 0x300);
        int symbol = 1;
        if (_state >= 7)
        {
            int matched = (uint)_rep0 < (uint)(at - dictionary) ? output[at - _rep0 - 1] : 0;
            while (symbol < 0x100)
            {
                int expected = (matched >> 7) & 1;
                matched <<= 1;
                int bit = range.Bit(ref models[((1 + expected) << 8) + symbol]);
                symbol = (symbol << 1) | bit;
                if (bit != expected)
                {
                    break;
                }
            }
        }
        while (symbol < 0x100)
        {
            symbol = (symbol << 1) | range.Bit(ref models[symbol]);
        }
        return (byte)symbol;
    }

    private int Distance(ref RangeDecoder range, int length)
    {
        int slot = range.Tree(_slots.AsSpan(Math.Min(length, LengthStates - 1) * 64, 64), 6);
        if (slot < 4)
        {
            return slot;
        }
        int direct = (slot >> 1) - 1;
        uint distance = (2u | ((uint)slot & 1)) << direct;
        return (int)(slot < EndPositionModel
            ? distance + (uint)range.ReverseTree(_positions.AsSpan((int)distance - slot), direct)
            : distance + (range.Direct(direct - AlignBits) << AlignBits) + (uint)range.ReverseTree(_align, AlignBits));
    }

    /// <summary>Lengths in three ranges: 8, 8 and 256 of them.</summary>
    private sealed class LengthCoder
    {
        private readonly ushort[] _choice = new ushort[2], _low = new ushort[MaxPositionStates * LowCoder];
        private readonly ushort[] _middle = new ushort[MaxPositionStates * MiddleCoder], _high = new ushort[HighCoder];

        public void Reset()
        {
            foreach (ushort[] models in new[] { _choice, _low, _middle, _high })
            {
                Array.Fill(models, Half);
            }
        }

        public int Next(ref RangeDecoder range, int position)
            => range.Bit(ref _choice[0]) == 0 ? range.Tree(_low.AsSpan(position * LowCoder, LowCoder), 3)
                : range.Bit(ref _choice[1]) == 0 ? LowCoder + range.Tree(_middle.AsSpan(position * MiddleCoder, MiddleCoder), 3)
                : LowCoder + MiddleCoder + range.Tree(_high, 8);
    }

    /// <summary>The range decoder. Past the end of the input it reads zeroes, and that is noted.</summary>
    private ref struct RangeDecoder
    {
        private readonly ReadOnlySpan<byte> _input;
        private uint _range = uint.MaxValue, _code;
        private int _at = 5;

        public RangeDecoder(ReadOnlySpan<byte> input)
        {
            _input = input;
            _code = BigEndian.U32(input, 1);
        }

        public readonly bool IsPastEnd => _at > _input.Length;

        public int Bit(ref ushort model)
        {
            uint bound = (_range >> BitModelBits) * model;
            int bit;
            if (_code < bound)
            {
                _range = bound;
                model += (ushort)(((1 << BitModelBits) - model) >> MoveBits);
                bit = 0;
            }
            else
            {
                _range -= bound;
                _code -= bound;
                model -= (ushort)(model >> MoveBits);
                bit = 1;
            }
            if (_range < Top)
            {
                Fill();
            }
            return bit;
        }

        public uint Direct(int count)
        {
            uint result = 0;
            for (; count > 0; count--)
            {
                _range >>= 1;
                uint isSet = _code >= _range ? 1u : 0;
                _code -= _range * isSet;
                result = (result << 1) | isSet;
                if (_range < Top)
                {
                    Fill();
                }
            }
            return result;
        }

        public int Tree(Span<ushort> models, int bits)
        {
            int symbol = 1;
            for (int i = 0; i < bits; i++)
            {
                symbol = (symbol << 1) | Bit(ref models[symbol]);
            }
            return symbol - (1 << bits);
        }

        public int ReverseTree(Span<ushort> models, int bits)
        {
            int symbol = 1, result = 0;
            for (int i = 0; i < bits; i++)
            {
                int bit = Bit(ref models[symbol]);
                symbol = (symbol << 1) | bit;
                result |= bit << i;
            }
            return result;
        }

        private void Fill()
        {
            _range <<= 8;
            _code = (_code << 8) | (_at < _input.Length ? _input[_at] : 0u);
            _at++;
        }
    }
}
