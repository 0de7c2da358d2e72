using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>Puts an image on another backing image, or on none.</summary>
/// <param name="front">Who asks.</param>
/// <param name="image">How the image is opened.</param>
/// <param name="isUnsafe">Changes the name only: what the image reads as may change with it.</param>
/// <param name="compress">Stores what has to be taken over compressed.</param>
public sealed class RebaseOperation(IFrontEnd front, OpenRequest image, bool isUnsafe, bool compress)
{
    /// <summary>What images without it lack, after "images of format 'raw'".</summary>
    public const string Lack = "have no backing image that could be changed";

    /// <summary>Takes over what differs, then changes the name.</summary>
    /// <param name="backing">The new backing image as it is to be named; null for none.</param>
    /// <param name="below">The same, open; null if there is none, or it is not there.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="changed">Gets the disk on its new backing image, before it is closed.</param>
    public async Task RunAsync(
        BackingReference? backing, BlockNode? below, Func<BlockNode, ValueTask> changed, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(changed);
        OpenedImage opened = await front.OpenAsync(
            image with { WithBacking = !isUnsafe, Writable = true }, cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            if (opened.Node.As<ISnapshots>() is { } kept
                && await kept.GetSnapshotsAsync(cancellationToken).ConfigureAwait(false) is { Count: > 0 } snapshots)
            {
                await front.WarnAsync(
                    $"{opened.Path}: its {snapshots.Count:#,0} snapshots stand on the backing image too, and are not adapted "
                        + $"to the new one").ConfigureAwait(false);
            }
            if (!isUnsafe)
            {
                ConvertResult result = await front.ShowAsync(
                    $"Rebasing {ByteText.Leaf(opened.Path)}",
                    progress => new RebaseJob(opened.Node, below, compress).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
                await front.ExplainAsync(
                    $"{opened.Path}: {ByteText.Of(result.BytesCopied)} taken over from the present backing image, "
                    + $"in {result.Elapsed.TotalSeconds:0.0} s").ConfigureAwait(false);
            }
            await opened.Require<IRebasable>(Lack).SetBackingAsync(
                backing?.Name, backing?.Format, below, cancellationToken).ConfigureAwait(false);
            await opened.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            await changed(opened.Node).ConfigureAwait(false);
        }
    }
}
