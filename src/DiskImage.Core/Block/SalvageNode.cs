namespace DiskImage.Block;

/// <summary>
/// A disk of which as much is read as can be: a range that fails is read again in sectors, and those that fail read as zeroes. It borrows
/// the disk: closing it leaves that open.
/// </summary>
/// <param name="disk">The disk.</param>
/// <param name="lost">Told of what could not be read: offset, length, why. May be called by several threads.</param>
public sealed class SalvageNode(BlockNode disk, Action<long, long, DiskImageException> lost) : BlockNode
{
    private const int Sector = 512;

    /// <inheritdoc/>
    public override string Name => disk.Name;

    /// <inheritdoc/>
    public override long Length => disk.Length;

    /// <inheritdoc/>
    public override bool IsReadOnly => true;

    /// <inheritdoc/>
    public override BlockLimits Limits => disk.Limits;

    /// <inheritdoc/>
    protected override bool OwnsChildren => false;

    /// <inheritdoc/>
    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        try
        {
            await disk.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (buffer.Length <= Sector)
        {
            buffer.Span.Clear();
            lost(offset, buffer.Length, e);
        }
        catch (DiskImageException)
        {
            for (int at = 0; at < buffer.Length;)
            {
                int count = (int)Math.Min(buffer.Length - at, Sector - ((offset + at) % Sector));
                await ReadCoreAsync(offset + at, buffer.Slice(at, count), cancellationToken).ConfigureAwait(false);
                at += count;
            }
        }
    }

    /// <inheritdoc/>
    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: is only read while it is salvaged", Name);

    /// <summary>What cannot be told is data, which is then looked at sector by sector.</summary>
    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        try
        {
            BlockExtent extent = await disk.GetExtentAsync(offset, length, cancellationToken).ConfigureAwait(false);
            return extent with { Node = null, HostOffset = null }; // its bytes are not simply taken from there
        }
        catch (DiskImageException)
        {
            return new BlockExtent(offset, Math.Min(length, 65536), BlockStatus.Allocated | BlockStatus.Data);
        }
    }
}
