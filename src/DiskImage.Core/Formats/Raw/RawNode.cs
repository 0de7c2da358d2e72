using DiskImage.Block;

namespace DiskImage.Formats.Raw;

/// <summary>A file, or a range of one, as a disk. Unlike the file it has a fixed length: a write past it is refused.</summary>
internal sealed class RawNode(BlockNode file, long start, long? size) : FilterNode(file), IDescribed
{
    private readonly bool _isWhole = start == 0 && size is null;

    public override long Length => size ?? Below.Length - start;

    public override bool GrowsOnWrite => false;

    public ImageDescription Describe() => new() { Format = "raw" };

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => Below.ReadAsync(start + offset, buffer, cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => Below.WriteAsync(start + offset, buffer, cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => Below.WriteZeroesAsync(start + offset, length, mode, cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Below.DiscardAsync(start + offset, length, cancellationToken);

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => await Below.GetExtentAsync(start + offset, length, cancellationToken).ConfigureAwait(false) with { Offset = offset };

    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
        => _isWhole
            ? Below.ResizeAsync(length, preallocation, cancellationToken)
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: opened as a range of the file, so its length cannot be changed", Name);
}
