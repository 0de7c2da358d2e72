using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>A space-efficient sparse extent, which is read only.</summary>
internal sealed class VmdkSeSparseExtent : ReadOnlyFormatNode
{
    private readonly VmdkSeSparseHeader _header;
    private readonly VmdkSeSparseTables _tables;

    private VmdkSeSparseExtent(BlockNode file, BlockNode? backing, VmdkSeSparseHeader header, long? length)
        : base(file, backing)
    {
        (_header, _tables) = (header, new VmdkSeSparseTables(file, header));
        Length = Math.Min(length ?? long.MaxValue, header.Capacity * VmdkHeader.SectorSize);
    }

    public override long Length { get; }

    protected override int AllocationUnit => _header.GrainBytes;

    protected override bool OwnsChildren => false; // the disk does

    public static async ValueTask<VmdkSeSparseExtent> OpenAsync(BlockNode file, BlockNode? backing, long? length, CancellationToken cancellationToken)
    {
        VmdkSeSparseHeader header = await VmdkSeSparseHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        var extent = new VmdkSeSparseExtent(file, backing, header, length);
        await extent._tables.LoadAsync(cancellationToken).ConfigureAwait(false);
        return extent;
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long end = Math.Min(Length, offset + length);
        BlockExtent run = await MapGrainAsync(offset, cancellationToken).ConfigureAwait(false);
        while (run.End < end && await MapGrainAsync(run.End, cancellationToken).ConfigureAwait(false) is var next && run.IsContinuedBy(next))
        {
            run = run with { Length = run.Length + next.Length };
        }
        return run with { Length = Math.Min(run.Length, Length - offset) };
    }

    private async ValueTask<BlockExtent> MapGrainAsync(long offset, CancellationToken cancellationToken)
    {
        long number = offset / _header.GrainBytes, within = offset - (number * _header.GrainBytes);
        (VmdkGrain grain, long run) = await _tables.GetAsync(number, cancellationToken).ConfigureAwait(false);
        long count = (run * _header.GrainBytes) - within;
        return grain.Kind switch
        {
            VmdkGrainKind.Nowhere => new(offset, count, BlockStatus.None),
            VmdkGrainKind.Zero => new(offset, count, BlockStatus.Allocated | BlockStatus.Zero),
            _ => new(offset, count, BlockStatus.Allocated | BlockStatus.Data, File, grain.Place + within),
        };
    }
}
