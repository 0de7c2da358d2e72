using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>A disk whose repair is tried beside its file before it is made there: see <see cref="StagedRepair"/>.</summary>
internal interface ITrialRepair
{
    /// <summary>Bytes of the disk that can be read together or not at all: a block of the table.</summary>
    long Grain { get; }

    /// <summary>
    /// Opens this layer of the disk alone, with the options it has here, on another node that shows its file, and that is lent.
    /// </summary>
    ValueTask<BlockNode> OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken);

    /// <summary>Repairs what is found in the file, there; asked of a disk that was opened for the trial. Returns what is left.</summary>
    /// <exception cref="DiskImageException">Corrupt: it cannot be repaired. The file may be anything then.</exception>
    ValueTask<CheckReport> MendAsync(RepairMode mode, CancellationToken cancellationToken);

    /// <summary>
    /// The runs of the disk whose entries in the table can stand: what lies in none of them cannot be read. Follows the table.
    /// </summary>
    ValueTask<IReadOnlyList<(long Start, long End)>> ReadableAsync(CancellationToken cancellationToken);

    /// <summary>Makes what must be known before the first write, as a write would.</summary>
    /// <exception cref="DiskImageException">Corrupt: it cannot be written to.</exception>
    ValueTask RequireUsableAsync();

    /// <summary>Reads the file again, which has changed below. There must be nothing left to write.</summary>
    ValueTask ReloadAsync(CancellationToken cancellationToken);
}
