using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>A file in memory of a file system that shares whole blocks of 4 KiB. It may refuse, or move bytes instead.</summary>
/// <param name="contents">What it holds.</param>
/// <param name="isReadOnly">It is only read.</param>
internal sealed class SharingNode(byte[] contents, bool isReadOnly = false) : BlockNode, ISharing
{
    private readonly MemoryNode _bytes = new(contents, isReadOnly);

    /// <summary>Told the number of each request to share, from 0; false to refuse it.</summary>
    public Func<int, bool> Allows { get; init; } = static _ => true;

    /// <summary>Bytes that one request takes over at most.</summary>
    public long Most { get; init; } = long.MaxValue;

    /// <summary>Requests to share so far.</summary>
    public int Asked { get; private set; }

    /// <summary>Bytes that were read, and written, by way of the process.</summary>
    public long Read { get; private set; }

    /// <inheritdoc cref="Read"/>
    public long Written { get; private set; }

    public override string Name => "sharing";

    public override long Length => _bytes.Length;

    public override bool IsReadOnly => isReadOnly;

    public override bool GrowsOnWrite => !isReadOnly;

    public byte[] ToArray() => _bytes.ToArray();

    public bool MayShareWith(ISharing other) => other is SharingNode;

    protected override async ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
    {
        if (source is not SharingNode from || !Allows(Asked++))
        {
            return default;
        }
        long whole = Math.Min(length, Most) & -ISharing.Unit;
        bool isAligned = ((offset | sourceOffset) & (ISharing.Unit - 1)) == 0;
        long done = isAligned ? whole : how == CopyOffload.ShareOrMove ? length : 0;
        byte[] bytes = new byte[done];
        await from._bytes.ReadAsync(sourceOffset, bytes, cancellationToken);
        await _bytes.WriteAsync(offset, bytes, cancellationToken);
        return new CopyOutcome(done, isAligned ? done : 0);
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Read += buffer.Length;
        return _bytes.ReadAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Written += buffer.Length;
        return _bytes.WriteAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => _bytes.ResizeAsync(length, preallocation, claimed, cancellationToken);
}
