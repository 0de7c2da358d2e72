using System.Buffers;
using System.Runtime.InteropServices;

namespace DiskImage.Block;

/// <summary>
/// Memory that stays where it is, at an address that is a multiple of something. Its contents are undefined at first. It is lost if it is
/// not disposed.
/// </summary>
internal sealed unsafe class AlignedBuffer : MemoryManager<byte>
{
    private readonly int _length;
    private byte* _address;

    /// <summary>Makes one of some bytes, at least 1, at a multiple of a power of two.</summary>
    public AlignedBuffer(int length, int alignment)
    {
        _length = length;
        _address = (byte*)NativeMemory.AlignedAlloc((nuint)length, (nuint)Math.Max(alignment, sizeof(nint)));
    }

    public override Span<byte> GetSpan()
        => _address is null ? throw new ObjectDisposedException(nameof(AlignedBuffer)) : new Span<byte>(_address, _length);

    public override MemoryHandle Pin(int elementIndex = 0) => new(_address + elementIndex);

    public override void Unpin()
    {
        // It never moves.
    }

    protected override void Dispose(bool disposing)
    {
        NativeMemory.AlignedFree(_address);
        _address = null;
    }
}
