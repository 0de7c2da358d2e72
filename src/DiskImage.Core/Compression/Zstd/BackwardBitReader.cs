using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// Reads the bit streams that Zstandard writes forward and reads from their end (RFC 8878, sections 4.1 and 4.2.2).
/// </summary>
/// <remarks>
/// The eight bytes at the window hold the next bits, highest first; the top <c>_consumed</c> of them are used up.
/// <see cref="Refill"/> slides the window down by whole bytes until it stands at the start of the stream and there leaves
/// fewer than eight used bits, so at least 57 bits are ready while the stream lasts. Behind the last bit comes rubbish, never a
/// fault: the caller reads on at will within what it may store and asks <see cref="IsExhausted"/> or <see cref="IsOverrun"/>.
/// A stream shorter than eight bytes is gathered once and never reloaded. Four fields: the compiler keeps them in registers.
/// </remarks>
internal unsafe struct BackwardBitReader
{
    /// <summary>The least number of bits ready after a refill, unless the stream ends before.</summary>
    public const int ReadyBits = 57;

    private readonly byte* _start;
    private byte* _window;
    private ulong _bits;
    private int _consumed;

    /// <summary>Goes on where another reader of the same stream, of eight bytes or more, stands.</summary>
    public BackwardBitReader(byte* start, byte* window, int consumed)
    {
        _start = start;
        _window = window;
        _bits = LoadUInt64(window);
        _consumed = consumed;
    }

    private BackwardBitReader(byte* start, ulong bits, int consumed)
    {
        _start = _window = start;
        _bits = bits;
        _consumed = consumed;
    }

    /// <summary>All bits were read, and no more.</summary>
    public readonly bool IsExhausted => _window == _start && _consumed == 64;

    /// <summary>More bits were read than there are.</summary>
    public readonly bool IsOverrun => _consumed > 64;

    /// <summary>Stands before the first useful bit: behind the padding and the 1 that ends it. False if that 1 is missing.</summary>
    public static bool TryOpen(byte* start, long length, out BackwardBitReader reader)
    {
        reader = default;
        if (length <= 0 || start[length - 1] == 0)
        {
            return false;
        }
        int padding = BitOperations.LeadingZeroCount((uint)start[length - 1]) - 24 + 1;
        if (length >= sizeof(ulong))
        {
            reader = new(start, start + length - sizeof(ulong), padding);
            return true;
        }
        ulong bits = 0;
        for (int i = 0; i < length; i++)
        {
            bits |= (ulong)start[i] << (8 * i);
        }
        reader = new(start, bits, 64 - (8 * (int)length) + padding);
        return true;
    }

    /// <summary>Makes <see cref="ReadyBits"/> bits ready, or all that are left.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Refill()
    {
        nint below = (nint)(_window - _start);
        if (below == 0)
        {
            return;
        }
        nint step = Math.Min(_consumed >> 3, below);
        _window -= step;
        _consumed -= (int)step << 3;
        _bits = LoadUInt64(_window);
    }

    /// <summary>The next bits as a number; up to what is ready.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public uint Read(int count)
    {
        _consumed += count;
        return (uint)((_bits >> -_consumed) & ((1UL << count) - 1)); // a shift takes its count modulo 64
    }

    /// <summary>The next bits as a number, with zeroes behind the end, without using them up; at least one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly uint Peek(int count) => (uint)((_bits << _consumed) >> (64 - count));

    /// <summary>Uses bits up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Skip(int count) => _consumed += count;

    /// <summary>Eight bytes, the first of them lowest.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong LoadUInt64(byte* source)
    {
        ulong value = Unsafe.ReadUnaligned<ulong>(source);
        return BitConverter.IsLittleEndian ? value : BinaryPrimitives.ReverseEndianness(value);
    }
}
