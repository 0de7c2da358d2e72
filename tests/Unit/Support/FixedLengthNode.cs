using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>Refuses to grow, as disks and devices do.</summary>
internal sealed class FixedLengthNode(BlockNode child) : FilterNode(child)
{
    public override bool GrowsOnWrite => false;

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.Unsupported, "fixed");
}
