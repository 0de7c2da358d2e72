namespace DiskImage.Block;

/// <summary>
/// A disk that keeps the state of a machine beside its data: what a snapshot of a running machine brings back, QEMU's vmstate. No guest
/// sees it, and the length of the disk does not count it.
/// </summary>
public interface IMachineState
{
    /// <summary>Reads some of it, from an offset in it; what was never written reads as zeroes.</summary>
    ValueTask ReadStateAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Writes some of it.</summary>
    /// <exception cref="DiskImageException">OutOfRange: the image has no room for an offset so large; ReadOnly.</exception>
    ValueTask WriteStateAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken);
}
