using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>Sends new nodes to a stream, whatever they are called.</summary>
internal sealed class StreamStorage(Stream sink) : IStorage
{
    public ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken)
        => new(new StoragePlace(locator, locator, TargetMode.Stream, Present: null, OtherNames: 0));

    public ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken)
        => new(new PendingStream(place, sink, leaveOpen: true));
}

/// <summary>A new node that is sent to a stream. Published it has all been taken; given up it ends where it is.</summary>
/// <param name="place">What it is called.</param>
/// <param name="sink">Where it goes.</param>
/// <param name="leaveOpen">The stream belongs to the caller, who closes it.</param>
internal sealed class PendingStream(StoragePlace place, Stream sink, bool leaveOpen) : PendingNode(place)
{
    private readonly ForwardNode _node = new(sink, place.Locator);

    /// <inheritdoc/>
    public override BlockNode Node => _node;

    /// <inheritdoc/>
    public override ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => throw new DiskImageException(
            DiskImageErrorKind.Unsupported, $"{Place.Locator}: what was sent cannot be read back", Place.Locator);

    /// <inheritdoc/>
    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
        => _node.SendRestAsync(cancellationToken);

    /// <inheritdoc/>
    public override void Withdraw()
    {
    }

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        try
        {
            await _node.DisposeAsync().ConfigureAwait(false);
            if (!leaveOpen)
            {
                await sink.DisposeAsync().ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is DiskImageException or IOException)
        {
            // The failure that led here is on its way already.
        }
    }
}
