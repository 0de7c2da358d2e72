using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>An extent whose sectors lie in one run of a file.</summary>
internal sealed class VmdkFlatExtent : LinearFormatNode
{
    private long _length;

    public VmdkFlatExtent(BlockNode file, long start, long length, bool isReadOnly)
        : base(file, start)
        => (_length, IsReadOnly) = (length, isReadOnly || file.IsReadOnly);

    public override long Length => Volatile.Read(ref _length);

    public override bool IsReadOnly { get; }

    /// <summary>Bytes that the file lacks.</summary>
    public long Missing => Math.Max(0, Start + Length - File.Length);

    protected override bool OwnsChildren => false; // the disk does

    /// <summary>What the file lacks reads as zeroes: it is a hole that was not written to yet, or was cut off; a check says so.</summary>
    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => File.ReadPaddedAsync(Start + offset, buffer, cancellationToken);

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => Start + offset >= File.Length
            ? new BlockExtent(offset, length, BlockStatus.Allocated | BlockStatus.Zero)
            : await base.GetExtentCoreAsync(offset, Math.Min(length, File.Length - Start - offset), cancellationToken).ConfigureAwait(false);

    protected override ValueTask<int> GetExtentsCoreAsync(long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
        => Start + offset + length <= File.Length
            ? base.GetExtentsCoreAsync(offset, length, extents, cancellationToken)
            : OneByOneAsync(offset, length, extents, cancellationToken);

    protected override async ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (Start + length != File.Length)
        {
            await File.ResizeAsync(Start + length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        }
        Volatile.Write(ref _length, length);
    }

    private async ValueTask<int> OneByOneAsync(long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        BlockExtent extent = await GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        extents.Span[0] = extent;
        return 1;
    }
}

/// <summary>An extent without a file: all zero, or nothing that can be read.</summary>
/// <param name="name">The disk's name.</param>
/// <param name="length">Bytes.</param>
/// <param name="isReadable">False for one that the descriptor says is not to be read.</param>
internal sealed class VmdkEmptyExtent(string name, long length, bool isReadable) : BlockNode
{
    public override string Name => name;

    public override long Length => length;

    public override bool IsReadOnly => true;

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (!isReadable)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AccessDenied, $"{name}: its descriptor says of an extent of {length:#,0} bytes that it is not to be accessed (NOACCESS)", name);
        }
        buffer.Span.Clear();
        return default;
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new InvalidOperationException(); // it is read-only

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(offset, length, isReadable ? BlockStatus.Allocated | BlockStatus.Zero : BlockStatus.Allocated | BlockStatus.Data));
}

/// <summary>The part of a parent that an extent stands on: it borrows the parent, and ends with it.</summary>
/// <param name="parent">The parent.</param>
/// <param name="start">Where the extent begins.</param>
/// <param name="length">Its bytes.</param>
internal sealed class VmdkParentWindow(BlockNode parent, long start, long length) : BlockNode
{
    public override string Name => parent.Name;

    public override long Length => Math.Clamp(parent.Length - start, 0, length);

    public override bool IsReadOnly => true;

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => parent.ReadAsync(start + offset, buffer, cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new InvalidOperationException(); // it is read-only

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => await parent.GetExtentAsync(start + offset, length, cancellationToken).ConfigureAwait(false) with { Offset = offset };
}
