using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>Writes what an image holds into one below it, and then empties or removes what lies above.</summary>
/// <param name="front">Who asks.</param>
/// <param name="registry">The formats.</param>
/// <param name="top">How the image is opened.</param>
/// <param name="chain">The image and all below it, as <see cref="ChainLayer.Of"/> gives them.</param>
/// <param name="depth">How many layers below the image the base is; at least 1.</param>
/// <param name="kept">What is kept locked until it is open for writing: see <see cref="Keep"/>.</param>
public sealed class MergeOperation(
    IFrontEnd front, DriverRegistry registry, OpenRequest top, IReadOnlyList<ChainLayer> chain, int depth, KeptLocks kept)
{
    private ChainLayer Base => chain[depth];

    /// <summary>
    /// The layers above the base whose format records the state of what they stand on, and which the merge therefore changes.
    /// </summary>
    public IEnumerable<ChainLayer> Recording => chain.Take(depth).Where(RecordsBacking);

    /// <summary>Keeps the layers down to the base locked beyond the closing of the image that was looked at.</summary>
    /// <param name="kept">Where they are kept.</param>
    /// <param name="image">The image, open with what it stands on.</param>
    /// <param name="depth">How many layers below the image the base is.</param>
    public static void Keep(KeptLocks kept, OpenedImage image, int depth)
    {
        ArgumentNullException.ThrowIfNull(kept);
        ArgumentNullException.ThrowIfNull(image);
        BlockNode? layer = image.Node;
        for (int i = 0; i <= depth && layer is not null; i++, layer = layer.BackingNode())
        {
            kept.Keep(layer);
        }
    }

    /// <summary>
    /// Opens the chain from the base up, each image once, and merges. The base is open for writing, and so are layers whose format records
    /// the state of what they stand on: the job changes those records along with it.
    /// </summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        bool isTopWritten = RecordsBacking(chain[0]);
        var shared = new Dictionary<NodeIdentity, BlockNode>();
        var opened = new List<OpenedImage>(); // the base first
        try
        {
            for (int layer = depth; layer >= 0; layer--)
            {
                OpenRequest request = layer == 0 ? top : new OpenRequest(chain[layer].Path) { Format = chain[layer].Format };
                bool isWritten = layer == depth || RecordsBacking(chain[layer]);
                if (layer > 0 && !isWritten)
                {
                    continue; // opened along with the layer above
                }
                OpenedImage image = await front.OpenAsync(
                    request with { Writable = isWritten, Opened = shared, Kept = kept.Locks }, cancellationToken).ConfigureAwait(false);
                opened.Add(image);
                if (image.Node.HolderIdentity() is { } identity)
                {
                    shared[identity] = image.Node;
                }
            }
            await CommitAsync(opened[^1], opened[0].Node, cancellationToken).ConfigureAwait(false);
            if (isTopWritten)
            {
                kept.Keep(opened[^1].Node); // until it is emptied
            }
        }
        catch
        {
            await Closing.FailedAsync(Enumerable.Reverse(opened)).ConfigureAwait(false);
            throw;
        }
        await Closing.AllAsync(Enumerable.Reverse(opened).Select<OpenedImage, Func<ValueTask>>(i => i.DisposeAsync)).ConfigureAwait(false);
    }

    /// <summary>Drops all that the image holds: it reads the same, from the base.</summary>
    public async Task EmptyAsync(CancellationToken cancellationToken)
    {
        OpenedImage image = await front.OpenAsync(top with { Writable = true, Kept = kept.Locks }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            await image.Require<IEmptiable>("cannot be emptied in place").MakeEmptyAfterMergeAsync(cancellationToken).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        await front.ExplainAsync($"{chain[0].Path}: emptied; it reads the same, from {Base.Path}").ConfigureAwait(false);
    }

    /// <summary>Removes the files of the image and of the layers between it and the base.</summary>
    /// <exception cref="DiskImageException">AccessDenied.</exception>
    public async Task RemoveAsync()
    {
        foreach (ChainLayer layer in chain.Take(depth))
        {
            try
            {
                File.Delete(layer.Path);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.AccessDenied, $"{layer.Path}: is merged, but cannot be removed: {e.Message}", layer.Path, cause: e);
            }
            await front.ExplainAsync($"{layer.Path}: removed").ConfigureAwait(false);
        }
    }

    private bool RecordsBacking(ChainLayer layer) => registry.Format(layer.Format) is ICreatable { RecordsBackingIdentity: true };

    private async Task CommitAsync(OpenedImage image, BlockNode target, CancellationToken cancellationToken)
    {
        if (target.Length < image.Node.Length)
        {
            await front.ExplainAsync(
                $"{Base.Path}: grows from {ByteText.WithBytes(target.Length)} to "
                    + $"{ByteText.WithBytes(image.Node.Length)}").ConfigureAwait(false);
        }
        ConvertResult result = await front.ShowAsync(
            $"Merging {ByteText.Leaf(image.Path)} into {ByteText.Leaf(Base.Path)}",
            progress => new CommitJob(image.Node, depth, target).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await front.ExplainAsync(
            $"{Base.Path}: {ByteText.Of(result.BytesCopied)} copied, {ByteText.Of(result.BytesZero)} zeroes, "
            + $"in {result.Elapsed.TotalSeconds:0.0} s").ConfigureAwait(false);
    }
}
