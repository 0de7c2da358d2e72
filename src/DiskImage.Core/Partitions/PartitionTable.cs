using DiskImage.Block;

namespace DiskImage.Partitions;

/// <summary>
/// The partitions of a disk, and how small it may become without losing any. Whoever writes to a disk writes its table too, so nothing in
/// it is believed before it is bounded by the disk.
/// </summary>
public sealed record PartitionTable
{
    /// <summary>What says where the partitions are.</summary>
    public required PartitionScheme Scheme { get; init; }

    /// <summary>Bytes of the sectors that the table counts in.</summary>
    public required int SectorSize { get; init; }

    /// <summary>The partitions in the table's order; logical ones behind the extended one that holds them.</summary>
    public required IReadOnlyList<DiskPartition> Partitions { get; init; }

    /// <summary>A GPT and an MBR that has partitions of its own: the list has both.</summary>
    public bool IsHybrid { get; init; }

    /// <summary>The GPT was read from its copy at the disk's end, since the one at its beginning is damaged.</summary>
    public bool IsFromBackup { get; init; }

    /// <summary>The GPT's header and entries; null for an MBR.</summary>
    internal GptHeader? Gpt { get; init; }

    /// <summary>
    /// The smallest size of the disk at which all partitions are in it: the end of the last one and, for a GPT, room for the copy of its
    /// table. A multiple of the sector.
    /// </summary>
    public long MinimumSize
        => Math.Max(Partitions.Count == 0 ? 0 : Partitions.Max(p => p.End), Gpt?.PrimaryEnd ?? 0) + (Gpt?.BackupBytes ?? 0);

    /// <summary>Reads a disk's table. Reads some sectors, and 4 MiB at most, whatever the table says.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="sectorSize">Bytes of its logical sectors; null where its image does not tell. Then it is found out.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>The table; null if there is none. An MBR without partitions is none: a file system's first sector looks the same.</returns>
    /// <exception cref="DiskImageException">Corrupt: it contradicts itself or reaches past the disk's end; what reading says.</exception>
    public static async ValueTask<PartitionTable?> ReadAsync(BlockNode disk, int? sectorSize, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(disk);
        MbrTable? mbr = await MbrTable.ReadAsync(disk, cancellationToken).ConfigureAwait(false);
        bool isAnnounced = mbr?.IsProtective == true;
        GptHeader? gpt = await GptHeader.FindAsync(disk, sectorSize, isAnnounced, cancellationToken).ConfigureAwait(false);
        if (gpt is null && isAnnounced)
        {
            throw Corrupt(disk, "the first sector announces a GPT, but neither it nor its copy at the disk's end can be read", 0);
        }
        int unit = gpt?.SectorSize ?? sectorSize
            ?? (mbr is null ? MbrTable.Sector : await mbr.SectorSizeAsync(disk, cancellationToken).ConfigureAwait(false));
        IReadOnlyList<DiskPartition> own = mbr is null
            ? []
            : await mbr.PartitionsAsync(disk, unit, cancellationToken).ConfigureAwait(false);
        if (gpt is null)
        {
            return own.Count == 0 ? null : new() { Scheme = PartitionScheme.Mbr, SectorSize = unit, Partitions = own };
        }
        IReadOnlyList<DiskPartition> partitions = gpt.Partitions(disk);
        return new()
        {
            Scheme = PartitionScheme.Gpt,
            SectorSize = unit,
            Partitions = [.. partitions, .. own],
            IsHybrid = own.Count > 0,
            IsFromBackup = gpt.IsBackup,
            Gpt = gpt,
        };
    }

    /// <summary>
    /// Writes the copy of a GPT to where the disk is going to end, and has the table say so; nothing for an MBR. To be called before the
    /// disk is made smaller: after a crash at any point there is one good table at least, of a disk that is longer than it says.
    /// </summary>
    /// <param name="disk">The disk, open for writing.</param>
    /// <param name="size">Its size to be: a multiple of the sector, at least <see cref="MinimumSize"/> and at most the present one.</param>
    /// <param name="cancellationToken">Stops it before the first write.</param>
    /// <exception cref="DiskImageException">Corrupt: the copy is all that is left of the table; what writing says.</exception>
    public async ValueTask PrepareForSizeAsync(BlockNode disk, long size, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(disk);
        ArgumentOutOfRangeException.ThrowIfLessThan(size, MinimumSize);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, disk.Length);
        if (Gpt is { } gpt)
        {
            if (IsFromBackup)
            {
                throw Corrupt(
                    disk,
                    "the GPT at its beginning cannot be read, and the copy, which can, stands where the disk is to be cut. "
                        + "Have gdisk or the guest repair it first",
                    SectorSize);
            }
            cancellationToken.ThrowIfCancellationRequested();
            await gpt.MoveBackupAsync(disk, size).ConfigureAwait(false);
            await MbrTable.SetProtectiveSizeAsync(disk, size / SectorSize).ConfigureAwait(false);
            await disk.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    internal static DiskImageException Corrupt(BlockNode disk, string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{disk.Name}: the disk's partition table is damaged: {what}", disk.Name, offset);
}
