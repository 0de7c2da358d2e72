using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>Stands for a file that an image names and that was not opened: whoever wants its bytes is told why.</summary>
/// <param name="name">The name as it stands in the image.</param>
/// <param name="why">What opening it said.</param>
public sealed class UnopenedNode(string name, DiskImageException why) : BlockNode
{
    /// <summary>Why it is not open.</summary>
    public DiskImageException Reason => why;

    /// <inheritdoc/>
    public override string Name => name;

    /// <summary>Not known: the most there can be, so that every request reaches the answer.</summary>
    public override long Length => long.MaxValue;

    /// <inheritdoc/>
    public override bool IsReadOnly => true;

    /// <inheritdoc/>
    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken) => throw Why();

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw Why();

    private DiskImageException Why() => new(why.Kind, why.Wording, why.Path, why.Offset, why);
}
