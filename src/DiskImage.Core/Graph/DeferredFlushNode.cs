using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>
/// Holds flushes back while an image is being made: until it bears its name nobody relies on it, so write barriers inside it
/// would cost time and protect nothing.
/// </summary>
/// <param name="child">The file.</param>
internal sealed class DeferredFlushNode(BlockNode child) : FilterNode(child)
{
    /// <summary>True while flushes are held back. Afterwards closing flushes too: formats write their last words then.</summary>
    public bool IsDeferring { get; set; } = true;

    protected override ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
        => Below.CopyFromAsync(offset, source, sourceOffset, length, how, cancellationToken);

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => IsDeferring ? default : base.FlushCoreAsync(cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsDeferring)
            {
                await Below.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            await base.CloseCoreAsync().ConfigureAwait(false);
        }
    }
}
