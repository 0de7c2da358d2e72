using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.CopyOnRead;

/// <summary>Options of copy-on-read.</summary>
internal sealed record CopyOnReadOptions
{
    /// <summary>The lowest layer that is copied from; empty for the lowest there is.</summary>
    [DriverOption("bottom", "Node name of the lowest layer to copy from; what comes from below it is not kept")]
    public string Bottom { get; init; } = "";
}

/// <summary>Keeps in the disk's own layer what is read from a layer below it.</summary>
internal sealed class CopyOnReadDriver : FilterDriver
{
    public override string Name => "copy-on-read";

    public override string Description => "Keeps in the image what was read from its backing image";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<CopyOnReadOptions>();

    public override IReadOnlyList<string> Mentions => ["bottom"];

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode disk = await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false);
        string bottom = ((CopyOnReadOptions)context.Options).Bottom;
        return new CopyOnReadNode(disk, bottom.Length == 0 ? null : context.LayerOf(FileRole, bottom));
    }
}

/// <summary>
/// Reads, and writes to the same place what came from further below. A range is held alone meanwhile, so that nothing new is overwritten
/// by what was read before it. Over a disk that is only read it is as if it were not there.
/// </summary>
/// <param name="disk">The disk.</param>
/// <param name="bottom">The lowest layer that is copied from, 1 for the one below the disk; null for all, and what none has.</param>
internal sealed class CopyOnReadNode(BlockNode disk, int? bottom = null) : FilterNode(disk)
{
    private const int MostExtents = 64; // looked at together. Ours

    private readonly RangeLock _ranges = new(); // alone for what is copied, shared for what is written

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => IsReadOnly
            ? base.ReadCoreAsync(offset, buffer, cancellationToken)
            : _ranges.WithinAsync(
                offset,
                offset + buffer.Length,
                exclusive: true,
                () => CopyAsync(offset, buffer, cancellationToken),
                cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => ChangeAsync(offset, buffer.Length, () => Below.WriteAsync(offset, buffer, cancellationToken), cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => ChangeAsync(offset, length, () => Below.WriteZeroesAsync(offset, length, mode, cancellationToken), cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => ChangeAsync(offset, length, () => Below.DiscardAsync(offset, length, cancellationToken), cancellationToken);

    private ValueTask ChangeAsync(long offset, long length, Func<ValueTask> change, CancellationToken cancellationToken)
        => _ranges.WithinAsync(offset, offset + length, exclusive: false, change, cancellationToken);

    private async ValueTask CopyAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await Below.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        var extents = new BlockExtent[MostExtents];
        for (long at = offset, end = offset + buffer.Length; at < end;)
        {
            int count = await Below.GetExtentsAsync(at, end - at, extents, cancellationToken).ConfigureAwait(false);
            foreach (BlockExtent extent in extents.Take(count).Where(IsCopied))
            {
                await KeepAsync(extent, buffer.Slice((int)(extent.Offset - offset), (int)extent.Length), cancellationToken)
                    .ConfigureAwait(false);
            }
            at = extents[count - 1].End;
        }
    }

    /// <summary>As in QEMU: without a bottom also what no layer has, which is kept as zeroes.</summary>
    private bool IsCopied(BlockExtent extent) => bottom is { } lowest
        ? extent.IsAllocated && extent.Depth > 0 && extent.Depth <= lowest
        : extent.Depth > 0 || !extent.IsAllocated;

    private ValueTask KeepAsync(BlockExtent extent, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken) => extent.IsZero
        ? Below.WriteZeroesAsync(extent.Offset, extent.Length, ZeroWriteMode.KeepAllocated, cancellationToken)
        : Below.WriteAsync(extent.Offset, bytes, cancellationToken);
}
