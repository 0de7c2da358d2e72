using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Filters.BlkVerify;

/// <summary>Does everything to two disks and compares what they read as.</summary>
internal sealed class BlkVerifyDriver : FilterDriver
{
    private const string TestRole = "test", RawRole = "raw";

    public override string Name => "blkverify";

    public override string Description => "Compares a disk with a raw twin in passing";

    public override IReadOnlyList<string> Roles => [TestRole, RawRole];

    public override bool HoldsDisk(string role) => role.Equals(TestRole, StringComparison.Ordinal);

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode test = await context.OpenChild(TestRole, cancellationToken).ConfigureAwait(false);
        return new BlkVerifyNode(test, await context.OpenChild(RawRole, cancellationToken).ConfigureAwait(false));
    }
}

/// <summary>Shows the disk under test; a read that the twin answers otherwise fails.</summary>
internal sealed class BlkVerifyNode(BlockNode test, BlockNode raw) : FilterNode(test)
{
    public override IReadOnlyDictionary<string, BlockNode> Children { get; }
        = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["test"] = test, ["raw"] = raw };

    public override bool IsReadOnly => Below.IsReadOnly || raw.IsReadOnly;

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        byte[] twin = new byte[buffer.Length];
        await raw.ReadPaddedAsync(offset, twin, cancellationToken).ConfigureAwait(false);
        await base.ReadCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        int same = buffer.Span.CommonPrefixLength(twin);
        if (same < buffer.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: reads otherwise than its twin {raw.Name} at offset {offset + same:#,0}: "
                    + $"0x{buffer.Span[same]:X2}, and 0x{twin[same]:X2} there",
                Name,
                offset + same);
        }
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await raw.WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await raw.WriteZeroesAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
    }

    // What a discarded range reads as is up to each of the two, so neither is told.
    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken) => default;

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await raw.FlushAsync(cancellationToken).ConfigureAwait(false);
        await base.FlushCoreAsync(cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        await base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        await raw.ResizeAsync(length, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What works on the format past the filter would not reach the twin.</summary>
    protected override bool LetsThrough(Type ability) => ability == typeof(IDescribed) || ability == typeof(ICheckable);
}
