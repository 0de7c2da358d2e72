using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>A file in memory: grows when written past its end, and can be copied at any time.</summary>
internal sealed class MemoryNode(byte[] contents, bool readOnly = false) : BlockNode
{
    private const long MaxLength = 256 << 20;

    private readonly Lock _sync = new(); // guards both
    private byte[] _bytes = contents;
    private int _length = contents.Length;

    public MemoryNode()
        : this([])
    {
    }

    public override string Name => "memory";

    public override long Length
    {
        get
        {
            lock (_sync)
            {
                return _length;
            }
        }
    }

    public override bool IsReadOnly => readOnly;

    public override bool GrowsOnWrite => !readOnly;

    /// <summary>True once it is disposed.</summary>
    public bool IsClosed { get; private set; }

    /// <summary>A copy of the contents.</summary>
    public byte[] ToArray()
    {
        lock (_sync)
        {
            return _bytes[.._length];
        }
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            _bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        }
        return default;
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            Grow(offset + buffer.Length);
            buffer.Span.CopyTo(_bytes.AsSpan((int)offset));
        }
        return default;
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            Grow(offset + length);
            _bytes.AsSpan((int)offset, (int)length).Clear();
        }
        return default;
    }

    /// <summary>Discarded bytes are overwritten, so that whoever still needs them is found out.</summary>
    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            _bytes.AsSpan((int)offset, (int)length).Fill(0xDD);
        }
        return default;
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        lock (_sync)
        {
            if (length < _length)
            {
                _bytes.AsSpan((int)length.._length).Clear();
                _length = (int)length;
            }
            Grow(length);
        }
        return default;
    }

    protected override ValueTask CloseCoreAsync()
    {
        IsClosed = true;
        return default;
    }

    private void Grow(long end)
    {
        if (end > MaxLength)
        {
            throw new DiskImageException(DiskImageErrorKind.NoSpace, $"{Name}: the memory has no room for {end:#,0} bytes", Name);
        }
        if (end > _bytes.Length)
        {
            Array.Resize(ref _bytes, (int)Math.Max(end, _bytes.Length * 3L / 2));
        }
        _length = (int)Math.Max(end, _length);
    }
}
