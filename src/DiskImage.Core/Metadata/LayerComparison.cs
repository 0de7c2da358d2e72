using System.Buffers;
using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Compares what one layer of a disk holds before and after changes that are held back in a <see cref="StagedNode"/>: whatever can be read
/// before must be there after, with the same bytes, and a range that this layer leaves to its backing image must go on doing so.
/// </summary>
/// <remarks>
/// Bytes are read only where they may differ: data at the same place of a file that the changes do not touch is the same. What cannot be
/// read before may be anything after.
/// </remarks>
/// <param name="before">The layer, opened without its backing image on the file as it is.</param>
/// <param name="after">The same on <paramref name="staged"/>.</param>
/// <param name="staged">The changes.</param>
/// <param name="grain">Bytes that are readable together.</param>
internal sealed class LayerComparison(BlockNode before, BlockNode after, StagedNode staged, long grain)
{
    private const int BufferBytes = 1 << 20;

    private readonly BlockNode? _file = after.Child("file"); // shows the changes; what lies in other files stays as it is

    private long _unreadableTo; // up to here it is looked at grain by grain

    /// <summary>The first offset in a range at which something would be lost; null if there is none.</summary>
    public async ValueTask<long?> FirstLossAsync(long offset, long end, CancellationToken cancellationToken)
    {
        byte[] old = ArrayPool<byte>.Shared.Rent(BufferBytes), now = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            while (offset < end)
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (await TryMapAsync(before, offset, end - offset, cancellationToken).ConfigureAwait(false) is not { } was)
                {
                    offset = Next(offset);
                    continue;
                }
                long there = Math.Min(was.Length, after.Length - offset);
                BlockExtent? @is = there > 0 ? await TryMapAsync(after, offset, there, cancellationToken).ConfigureAwait(false) : null;
                long length = Math.Min(was.Length, @is?.Length ?? was.Length);
                bool isDecidedAlike = was.IsAllocated == @is?.IsAllocated;
                bool isSame = isDecidedAlike
                    && (!was.IsAllocated || (was.IsZero && @is!.Value.IsZero)
                    || (was.IsData && @is!.Value.IsData && IsSamePlace(was, @is.Value, length)));
                if (!isSame)
                {
                    length = Math.Min(length, offset < _unreadableTo ? Next(offset) - offset : BufferBytes);
                    if (!await TryReadAsync(before, offset, old.AsMemory(0, (int)length), cancellationToken).ConfigureAwait(false))
                    {
                        if (offset + length > Next(offset))
                        {
                            _unreadableTo = offset + length; // some of it: look at the parts
                            continue;
                        }
                    }
                    else if (!isDecidedAlike
                        || !await TryReadAsync(after, offset, now.AsMemory(0, (int)length), cancellationToken).ConfigureAwait(false))
                    {
                        return offset;
                    }
                    else if (old.AsSpan(0, (int)length).CommonPrefixLength(now.AsSpan(0, (int)length)) is var alike && alike < length)
                    {
                        return offset + alike;
                    }
                }
                offset += length;
            }
            return null;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(old);
            ArrayPool<byte>.Shared.Return(now);
        }
    }

    private long Next(long offset) => ((offset / grain) + 1) * grain;

    private bool IsSamePlace(in BlockExtent was, in BlockExtent @is, long length)
        => was.HostOffset is long host && @is.HostOffset == host && (!IsStaged(@is.Node) || staged.IsUntouched(host, length));

    private bool IsStaged(BlockNode? node) => ReferenceEquals(node, _file) || ReferenceEquals(node, staged);

    private static async ValueTask<BlockExtent?> TryMapAsync(BlockNode node, long offset, long length, CancellationToken cancellationToken)
    {
        try
        {
            return await node.GetExtentAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (IsDamage(e))
        {
            return null;
        }
    }

    private static async ValueTask<bool> TryReadAsync(BlockNode node, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        try
        {
            await node.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (DiskImageException e) when (IsDamage(e))
        {
            return false;
        }
    }

    /// <summary>The image's fault, not the host's: a request that fails for another reason ends the comparison.</summary>
    private static bool IsDamage(DiskImageException e)
        => e.Kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat or DiskImageErrorKind.OutOfRange;
}
