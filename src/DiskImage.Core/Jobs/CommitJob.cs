using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>
/// Writes what the layers of a disk down to a base decide into the base, so that the base reads like the disk. The base is made longer
/// if it is shorter. The contents of the layers are left alone: whoever runs it empties or removes them afterwards.
/// </summary>
/// <remarks>
/// Layers that record the state of what they stand on (<see cref="IBackingRecord"/>) take the base's coming state too before it is touched,
/// and only that one once the base is durable. So the chain opens and reads the same after a crash at any point, and a merge that was cut
/// short can be run again.
/// </remarks>
/// <param name="top">The disk whose contents go down, opened over its chain, in which the base is <paramref name="target"/>. Layers that
/// record what they stand on are open for writing.</param>
/// <param name="baseDepth">How many layers below the top the base is: 1 for its backing image.</param>
/// <param name="target">The base, opened for writing.</param>
internal sealed class CommitJob(BlockNode top, int baseDepth, BlockNode target) : BlockJob<ConvertResult>
{
    /// <inheritdoc/>
    public override async Task<ConvertResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        long started = System.Diagnostics.Stopwatch.GetTimestamp();
        List<IBackingRecord?> layers = Layers();
        for (int i = 0; i < layers.Count; i++)
        {
            if (layers[i] is { } layer)
            {
                await layer.ExpectBackingChangeAsync(changesThis: i > 0, cancellationToken).ConfigureAwait(false);
            }
        }
        if (target.Length < top.Length)
        {
            await target.ResizeAsync(top.Length, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        var options = new ConvertOptions { Layers = baseDepth, TargetIsBelow = true, Activity = "Merge" };
        ConvertResult result = await new ConvertJob(top, target, options).RunAsync(progress, cancellationToken).ConfigureAwait(false);
        await target.FlushAsync(cancellationToken).ConfigureAwait(false);
        foreach (IBackingRecord layer in Enumerable.Reverse(layers.OfType<IBackingRecord>()))
        {
            await layer.ConfirmBackingChangeAsync(CancellationToken.None).ConfigureAwait(false);
        }
        return result with { Elapsed = System.Diagnostics.Stopwatch.GetElapsedTime(started) };
    }

    /// <summary>The layers above the base, the top first; null for one that records nothing of what it stands on.</summary>
    private List<IBackingRecord?> Layers()
    {
        var layers = new List<IBackingRecord?>();
        BlockNode? node = top;
        for (int depth = 0; depth < baseDepth && node is not null; depth++)
        {
            layers.Add(node.Unfiltered().As<IBackingRecord>());
            node = node.BackingNode();
        }
        return layers;
    }
}
