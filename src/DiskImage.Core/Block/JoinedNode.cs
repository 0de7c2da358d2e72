namespace DiskImage.Block;

/// <summary>Disks one behind the other, to be read as one. It borrows them: closing it leaves them open.</summary>
/// <remarks>A disk that ends within a sector is followed by zeroes up to the sector's end, as QEMU has it.</remarks>
public sealed class JoinedNode : BlockNode
{
    private const int Sector = 512;

    private readonly IReadOnlyList<BlockNode> _parts;
    private readonly long[] _starts; // one more than there are parts: the last is the end

    /// <summary>Joins disks.</summary>
    /// <exception cref="DiskImageException">OutOfRange: together they are larger than a disk can be.</exception>
    public JoinedNode(IReadOnlyList<BlockNode> parts)
    {
        ArgumentNullException.ThrowIfNull(parts);
        _parts = parts;
        _starts = new long[parts.Count + 1];
        for (int i = 0; i < parts.Count; i++)
        {
            Int128 end = _starts[i] + (((Int128)parts[i].Length + Sector - 1) / Sector * Sector);
            _starts[i + 1] = end <= long.MaxValue
                ? (long)end
                : throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange, $"{parts[i].Name}: together with what stands before it no disk is that large");
        }
    }

    /// <inheritdoc/>
    public override string Name => _parts[0].Name;

    /// <inheritdoc/>
    public override long Length => _starts[^1];

    /// <inheritdoc/>
    public override bool IsReadOnly => true;

    /// <inheritdoc/>
    public override BlockLimits Limits => _parts[0].Limits;

    /// <inheritdoc/>
    protected override bool OwnsChildren => false;

    /// <inheritdoc/>
    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            int part = PartAt(offset);
            int count = (int)Math.Min(buffer.Length, _starts[part + 1] - offset);
            await _parts[part].ReadPaddedAsync(offset - _starts[part], buffer[..count], cancellationToken).ConfigureAwait(false);
            (offset, buffer) = (offset + count, buffer[count..]);
        }
    }

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: joined with others it is only read", Name);

    /// <inheritdoc/>
    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        int part = PartAt(offset);
        long within = offset - _starts[part], room = _parts[part].Length - within;
        if (room <= 0)
        {
            return new BlockExtent(offset, Math.Min(length, _starts[part + 1] - offset), BlockStatus.Allocated | BlockStatus.Zero);
        }
        BlockExtent extent = await _parts[part].GetExtentAsync(within, Math.Min(length, room), cancellationToken).ConfigureAwait(false);
        return extent with { Offset = offset };
    }

    private int PartAt(long offset)
    {
        int found = Array.BinarySearch(_starts, offset);
        int part = found >= 0 ? found : ~found - 1;
        while (_starts[part + 1] == offset)
        {
            part++; // an empty disk holds no byte
        }
        return part;
    }
}
