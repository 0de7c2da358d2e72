using System.Runtime.CompilerServices;

namespace DiskImage.Compression.Zstd;

/// <summary>The three offsets used last, the newest first (RFC 8878, section 3.1.1.5). None is ever 0.</summary>
internal struct RecentOffsets
{
    private uint _first, _second, _third;

    /// <summary>What a frame begins with.</summary>
    public static RecentOffsets Initial => new() { _first = 1, _second = 4, _third = 8 };

    /// <summary>
    /// The offset that a sequence's value means, which becomes the newest; 0 if there is no such offset.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public uint Use(uint value, bool withoutLiterals)
    {
        uint offset;
        if (value > 3)
        {
            offset = value - 3;
            _third = _second;
            _second = _first;
            _first = offset;
            return offset;
        }
        // Without literals before it, a copy at the newest offset would only have been part of the copy before: all move by one.
        uint place = value + (withoutLiterals ? 1u : 0);
        if (place == 1)
        {
            return _first;
        }
        if (place == 2)
        {
            offset = _second;
        }
        else
        {
            offset = place == 3 ? _third : _first - 1;
            if (offset == 0)
            {
                return 0;
            }
            _third = _second;
        }
        _second = _first;
        _first = offset;
        return offset;
    }
}
