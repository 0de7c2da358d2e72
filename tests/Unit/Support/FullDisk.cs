using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>A file on a disk that is full: it may be written over, but not grow past its room.</summary>
internal sealed class FullDisk(BlockNode child) : FilterNode(child)
{
    public long Room { get; set; } = long.MaxValue;

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Require(offset + buffer.Length);
        return base.WriteCoreAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        Require(offset + length);
        return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        Require(length);
        return base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
    }

    private void Require(long end)
    {
        if (end > Math.Max(Room, Length))
        {
            throw new DiskImageException(DiskImageErrorKind.NoSpace, $"{Name}: full", Name);
        }
    }
}
