using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>
/// The files in an image's folder and in those where the user has parents looked for. Their number is bounded; they pass the same gate as
/// recorded names.
/// </summary>
public interface INearbyFiles
{
    /// <summary>Bytes that are had of each.</summary>
    const int StartBytes = 512;

    /// <summary>Those whose names have one of some endings.</summary>
    IReadOnlyList<string> Find(IReadOnlyList<string> endings);

    /// <summary>
    /// The first <see cref="StartBytes"/> of one, with zeroes behind its end. They are read once in all of an operation, however many
    /// images of it ask.
    /// </summary>
    /// <exception cref="DiskImageException">Refused by the gate; what opening says: Locked for what is being written to.</exception>
    ValueTask<ReadOnlyMemory<byte>> StartAsync(string name, CancellationToken cancellationToken);
}
