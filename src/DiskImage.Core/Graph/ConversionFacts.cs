using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>
/// What a copy of a disk into a new image keeps beside the bytes, and what it leaves behind. The disk's identity is not kept: a copy is
/// another disk, and has its own. No I/O but what counting snapshots and bitmaps takes.
/// </summary>
public static class ConversionFacts
{
    /// <summary>True if a disk stores anything that is not known to read as zeroes. Only its map is looked at.</summary>
    public static async Task<bool> HoldsDataAsync(BlockNode disk, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(disk);
        for (long at = 0; at < disk.Length;)
        {
            BlockExtent extent = await disk.GetExtentAsync(at, disk.Length - at, cancellationToken).ConfigureAwait(false);
            if (extent is { IsData: true, IsZero: false })
            {
                return true;
            }
            at = extent.End;
        }
        return false;
    }

    // in every format that has such facts
    private const string LogicalOption = "logical_sector_size", PhysicalOption = "physical_sector_size";

    /// <summary>
    /// The create options by which a new image without backing keeps what the source says of its disk. What the
    /// user gives goes before them.
    /// </summary>
    /// <param name="source">The image that is copied.</param>
    /// <param name="schema">The new image's create options.</param>
    public static IEnumerable<KeyValuePair<string, object?>> KeptOptions(BlockNode source, OptionSchema schema)
    {
        ArgumentNullException.ThrowIfNull(schema);
        ImageDescription? described = source.As<IDescribed>()?.Describe();
        (string, int?)[] sizes = [(LogicalOption, described?.LogicalSectorSize), (PhysicalOption, described?.PhysicalSectorSize)];
        foreach ((string name, int? value) in sizes)
        {
            if (value is not null && schema.Find(name) is { } option)
            {
                yield return new(option.Name, (long)value);
            }
        }
    }

    /// <summary>What the new image does not keep, each as a sentence without a name; empty if that is nothing.</summary>
    /// <param name="source">The image that is copied.</param>
    /// <param name="disk">The disk that is copied: the image, or a snapshot inside it.</param>
    /// <param name="target">The new image.</param>
    /// <param name="copiesBitmaps">The source's bitmaps are copied, too.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<IReadOnlyList<Wording>> LossesAsync(
        BlockNode source, BlockNode disk, BlockNode target, bool copiesBitmaps, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(disk);
        ArgumentNullException.ThrowIfNull(target);
        var losses = new List<Wording>();
        (ImageDescription? from, ImageDescription? to) = (source.As<IDescribed>()?.Describe(), target.As<IDescribed>()?.Describe());
        if (from?.LogicalSectorSize is int sector && (to?.LogicalSectorSize ?? 512) is var now && now != sector)
        {
            losses.Add(
                $"its logical sectors had {sector} bytes and have {now} now, so programs do not find its partitions. Use it "
                    + $"with logical sectors of {sector} bytes"
                    + $" (QEMU: logical_block_size={sector},physical_block_size={sector}), or convert to vhdx, which records them");
        }
        if (target.Length != disk.Length)
        {
            losses.Add($"the disk has {target.Length:#,0} bytes now; the source had {disk.Length:#,0}. The bytes behind those are zero");
        }
        if (ReferenceEquals(source, disk) && source.As<ISnapshots>() is { } keeper
            && (await keeper.GetSnapshotsAsync(cancellationToken).ConfigureAwait(false)).Count is > 0 and var snapshots)
        {
            losses.Add($"{Some(snapshots, "snapshot")} inside the source {Is(snapshots)} not copied; a snapshot is copied alone "
                + $"with {new Remedy(RemedyKind.Snapshot)}");
        }
        if (!copiesBitmaps && source.As<IBitmapList>() is { } recorder
            && (await recorder.GetBitmapsAsync(cancellationToken).ConfigureAwait(false)).Count is > 0 and var bitmaps)
        {
            Wording loss = $"{Some(bitmaps, "dirty bitmap")} of the source {Is(bitmaps)} not copied";
            losses.Add(target.As<IBitmaps>() is null ? loss : (Wording)$"{loss}; they are with {new Remedy(RemedyKind.Bitmaps)}");
        }
        return losses;

        static string Some(int count, string what) => count == 1 ? $"1 {what}" : $"{count:#,0} {what}s";

        static string Is(int count) => count == 1 ? "is" : "are";
    }
}
