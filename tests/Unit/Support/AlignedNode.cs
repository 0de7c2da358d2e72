using System.Runtime.InteropServices;
using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>Passes through what keeps to a binding, and fails on any request that does not, as a host would.</summary>
internal sealed class AlignedNode(BlockNode child, BlockBinding binding) : FilterNode(child)
{
    private long _requests;

    public long Requests => Interlocked.Read(ref _requests);

    protected override BlockBinding Binding => binding;

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Check(offset, buffer.Length, buffer);
        await Below.ReadPaddedAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Check(offset, buffer.Length, buffer);
        int inside = Below.GrowsOnWrite ? buffer.Length : (int)Math.Clamp(Below.Length - offset, 0, buffer.Length);
        return Below.WriteAsync(offset, buffer[..inside], cancellationToken);
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        CheckZeroes(offset, length);
        return Below.WriteZeroesAsync(offset, length, mode, cancellationToken);
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        CheckZeroes(offset, length);
        return Below.DiscardAsync(offset, length, cancellationToken);
    }

    private void Check(long offset, int length, ReadOnlyMemory<byte> buffer)
    {
        Interlocked.Increment(ref _requests);
        int unit = Math.Max(1, binding.RequestAlignment);
        if (offset % unit != 0 || length % unit != 0 || length == 0
            || (binding.MaximumTransfer > 0 && length > Math.Max(unit, binding.MaximumTransfer)))
        {
            throw new InvalidOperationException($"{length} bytes at {offset} do not keep to {binding}");
        }
        if (binding.MemoryAlignment > 1 && Address(buffer) % (nuint)binding.MemoryAlignment != 0)
        {
            throw new InvalidOperationException($"a buffer does not keep to {binding}");
        }
    }

    private void CheckZeroes(long offset, long length)
    {
        int unit = Math.Max(1, binding.RequestAlignment);
        if (offset % unit != 0 || length % unit != 0 || length == 0
            || (binding.MaximumZeroes > 0 && length > Math.Max(unit, binding.MaximumZeroes)))
        {
            throw new InvalidOperationException($"{length} zeroes at {offset} do not keep to {binding}");
        }
    }

    private static unsafe nuint Address(ReadOnlyMemory<byte> buffer)
    {
        fixed (byte* address = &MemoryMarshal.GetReference(buffer.Span))
        {
            return (nuint)address;
        }
    }
}
