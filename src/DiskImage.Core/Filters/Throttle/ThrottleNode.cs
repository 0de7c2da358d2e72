using DiskImage.Block;

namespace DiskImage.Filters.Throttle;

/// <summary>Passes everything through, not faster than its group allows. What has to wait is waiting cancellably.</summary>
internal sealed class ThrottleNode(BlockNode child, ThrottleGroup group) : GateNode(child)
{
    protected override ValueTask LetInAsync(RequestKind kind, long offset, long length, CancellationToken cancellationToken) => kind switch
    {
        RequestKind.Read => group.PassAsync(ThrottleUse.Reads, length, cancellationToken),
        RequestKind.Flush or RequestKind.Extents => default, // move nothing
        _ => group.PassAsync(ThrottleUse.Writes, length, cancellationToken),
    };
}
