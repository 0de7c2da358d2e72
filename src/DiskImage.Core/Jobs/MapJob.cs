using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>Lists what a disk is made of.</summary>
public static class MapJob
{
    /// <summary>The extents of a range, in order, without gaps, like neighbours joined.</summary>
    public static async IAsyncEnumerable<BlockExtent> ExtentsAsync(
        BlockNode node, long offset, long length, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(node);
        long end = offset + length;
        BlockExtent run = default;
        while (offset < end)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent next = default;
            ExceptionDispatchInfo? failed = null;
            try
            {
                next = await node.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (run.Length > 0)
            {
                failed = ExceptionDispatchInfo.Capture(e);
            }
            if (failed is not null)
            {
                yield return run; // what came before it is known
                failed.Throw();
            }
            offset = next.End;
            if (run.Length == 0)
            {
                run = next;
            }
            else if (run.IsContinuedBy(next))
            {
                run = run with { Length = run.Length + next.Length };
            }
            else
            {
                yield return run;
                run = next;
            }
        }
        if (run.Length > 0)
        {
            yield return run;
        }
    }
}
