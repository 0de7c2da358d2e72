using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// An image that is being made. Disposed before <see cref="CompleteAsync(bool, CancellationToken)"/> has ended, it is
/// removed without a trace.
/// </summary>
public sealed class NewImage : IAsyncDisposable
{
    private readonly ImageTarget _target;
    private readonly Func<CancellationToken, ValueTask<BlockNode>> _reopen;

    internal NewImage(BlockNode node, ImageTarget target, Func<CancellationToken, ValueTask<BlockNode>> reopen)
        => (Node, _target, _reopen) = (node, target, reopen);

    /// <summary>The disk, open for writing.</summary>
    public BlockNode Node { get; }

    /// <summary>The full path it will have.</summary>
    public string Path => _target.Place.Locator;

    /// <summary>It is sent, to a pipe or stream: it can be written in order only, and not be read back.</summary>
    public bool IsSent => _target.Place.Mode == TargetMode.Stream;

    /// <summary>Bytes behind the image on the disk it is made on, which stay as they were; 0 for a file.</summary>
    public long Behind => _target.Behind;

    /// <inheritdoc cref="CompleteAsync(bool, Func{BlockNode, ValueTask}, CancellationToken)"/>
    public ValueTask CompleteAsync(bool durable, CancellationToken cancellationToken)
        => CompleteAsync(durable, inspect: null, cancellationToken);

    /// <summary>Closes the image and gives it its name; an image of that name is replaced in the same step.</summary>
    /// <param name="durable">
    /// True to return only when all of it would survive a power cut, its name too. An image that replaces another is flushed in any case: a
    /// power cut must not leave neither.
    /// </param>
    /// <param name="inspect">Gets the disk, closed and opened anew for reading, before it has its name; what it throws keeps it
    /// from getting it.</param>
    /// <param name="cancellationToken">Stops it before the last step.</param>
    public async ValueTask CompleteAsync(bool durable, Func<BlockNode, ValueTask>? inspect, CancellationToken cancellationToken)
    {
        if (Node.As<IUnfinished>() is { } unfinished)
        {
            await unfinished.SetUnfinishedAsync(false, cancellationToken).ConfigureAwait(false);
        }
        if (durable || _target.Replaces)
        {
            _target.EndDeferral();
            await Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        cancellationToken.ThrowIfCancellationRequested();
        await Node.DisposeAsync().ConfigureAwait(false);
        if (inspect is not null)
        {
            BlockNode made = await _reopen(cancellationToken).ConfigureAwait(false);
            await using (made.ConfigureAwait(false))
            {
                await inspect(made).ConfigureAwait(false);
            }
        }
        cancellationToken.ThrowIfCancellationRequested();
        await _target.PublishAsync(durable, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Closes it, and removes it unless it is complete.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            await Node.DisposeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // What could not be written back is about to be removed, and the failure that led here is already on its way.
        }
        finally
        {
            await _target.DisposeAsync().ConfigureAwait(false);
        }
    }
}
