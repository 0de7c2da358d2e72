using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Filters.Compress;

/// <summary>Has what is written to a disk stored compressed.</summary>
internal sealed class CompressDriver : FilterDriver
{
    public override string Name => "compress";

    public override string Description => "Stores compressed what is written";

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode disk = await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false);
        return disk.As<ICompressedWritable>() is { } target
            ? new CompressNode(disk, target)
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: its format stores nothing compressed, as the filter 'compress' asks",
                disk.Name);
    }
}

/// <summary>Compresses whole units. A request that has only a part of one is completed by what is there.</summary>
internal sealed class CompressNode(BlockNode disk, ICompressedWritable target) : FilterNode(disk)
{
    private readonly SemaphoreSlim _gate = new(1, 1); // units are stored one after the other

    protected override BlockBinding Binding { get; } = new(target.CompressionUnit);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => Below.ReadPaddedAsync(offset, buffer, cancellationToken);

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        byte[] packed = new byte[target.LargestCompressed];
        for (int at = 0, end = (int)Math.Min(buffer.Length, Length - offset); at < end; at += target.CompressionUnit)
        {
            ReadOnlyMemory<byte> unit = buffer[at..Math.Min(end, at + target.CompressionUnit)];
            int? length = target.Compress(unit.Span, packed);
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (length is { } count)
                {
                    await target.WriteCompressedAsync(offset + at, packed.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    await Below.WriteAsync(offset + at, unit, cancellationToken).ConfigureAwait(false);
                }
            }
            finally
            {
                _ = _gate.Release();
            }
        }
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => Below.WriteZeroesAsync(offset, Math.Min(length, Length - offset), mode, cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Below.DiscardAsync(offset, Math.Min(length, Length - offset), cancellationToken);

    protected override async ValueTask CloseCoreAsync()
    {
        await base.CloseCoreAsync().ConfigureAwait(false);
        _gate.Dispose();
    }
}
