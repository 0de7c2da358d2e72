using DiskImage.Block;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>A folder as a disk that is read.</summary>
/// <param name="name">What it is called.</param>
/// <param name="identity">Which folder it is, and how it is shown.</param>
/// <param name="volume">The folder, laid out.</param>
internal sealed class VirtualFatNode(string name, NodeIdentity? identity, FatVolume volume) : BlockNode
{
    private readonly TreeFiles _files = new();

    public override string Name => name;

    public override long Length => volume.Geometry.DiskBytes;

    public override bool IsReadOnly => true;

    public override NodeIdentity? Identity => identity;

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Read(volume, _files, offset, buffer.Span, cancellationToken);
        return default;
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new InvalidOperationException(); // it is read-only

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(ExtentOf(this, volume, _files, offset, length));

    protected override ValueTask CloseCoreAsync()
    {
        _files.Dispose();
        return default;
    }

    /// <summary>Fills a buffer from a volume and its files.</summary>
    internal static void Read(FatVolume volume, TreeFiles files, long offset, Span<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            cancellationToken.ThrowIfCancellationRequested();
            FatRun run = volume.RunAt(offset, buffer.Length);
            Span<byte> part = buffer[..(int)run.Length];
            if (run.IsZero)
            {
                part.Clear();
            }
            else if (run.File is { } file)
            {
                files.Read(file, run.FileOffset, part);
            }
            else
            {
                volume.Read(offset, part);
            }
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    /// <summary>The extent at an offset: what nothing is stored for is zero, holes of files too.</summary>
    internal static BlockExtent ExtentOf(BlockNode node, FatVolume volume, TreeFiles files, long offset, long length)
    {
        FatRun run = volume.RunAt(offset, length);
        bool isData = !run.IsZero;
        long count = run.Length;
        if (run.File is { } file)
        {
            (isData, long end) = files.Extent(file, run.FileOffset);
            count = Math.Min(count, end - run.FileOffset);
        }
        return isData
            ? new BlockExtent(offset, count, BlockStatus.Allocated | BlockStatus.Data, node, offset)
            : new BlockExtent(offset, count, BlockStatus.Allocated | BlockStatus.Zero, node, null);
    }
}
