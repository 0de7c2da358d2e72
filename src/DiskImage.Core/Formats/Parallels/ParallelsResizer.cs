using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>
/// Makes the disk of a bundle longer or shorter, at its end. Growing: the image first, then the descriptor; shrinking: the descriptor
/// first. So a crash leaves a disk of one of the two sizes, whose last image may be longer than the descriptor says.
/// </summary>
/// <param name="disk">The disk.</param>
/// <param name="siblings">Removes the files of storages that are lost; null where that cannot be.</param>
internal sealed class ParallelsResizer(ParallelsBundleNode disk, ISiblingFiles? siblings)
{
    /// <summary>Changes the length; the disk is held alone, and flushed.</summary>
    public async ValueTask RunAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long sectors = ParallelsHeader.UnitsOf(length, ParallelsHeader.SectorSize);
        if (sectors >= disk.Descriptor.Sectors)
        {
            await GrowAsync(sectors, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            return;
        }
        if (sectors == 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{disk.Name}: a disk with a descriptor has at least 512 bytes", disk.Name);
        }
        if (disk.Descriptor.Snapshots() is { Count: > 0 } snapshots)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: has {snapshots.Count:#,0} snapshots, which would be cut off with it. Remove them first, or convert it with "
                    + $"{new Remedy(RemedyKind.Convert)}.",
                disk.Name);
        }
        await ShrinkAsync(sectors).ConfigureAwait(false);
    }

    private async ValueTask GrowAsync(
        long sectors, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        ParallelsPart last = disk.Parts[^1];
        long length = (sectors * ParallelsHeader.SectorSize) - last.Start;
        if (last.Node.Length > last.Most)
        {
            await last.Node.ResizeAsync(last.Most, cancellationToken: CancellationToken.None).ConfigureAwait(false); // what was cut short
        }
        await last.Node.ResizeAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        if (last.Node.BackingNode() is { } below && below.Length > last.Most)
        {
            await last.Node.WriteZeroesAsync(last.Most, Math.Min(below.Length, length) - last.Most, cancellationToken: cancellationToken)
                .ConfigureAwait(false); // what a snapshot has there must not come up in new space
        }
        await last.Node.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await DescribeAsync(sectors, [.. disk.Parts.SkipLast(1), last with { Most = length }]).ConfigureAwait(false);
    }

    private async ValueTask ShrinkAsync(long sectors)
    {
        long length = sectors * ParallelsHeader.SectorSize;
        IReadOnlyList<ParallelsPart> before = disk.Parts;
        var storages = disk.Descriptor.Storages.ToList();
        ParallelsPart[] kept = [.. before.Where((p, i) => i == 0 || p.Start < length)];
        kept[^1] = kept[^1] with { Most = length - kept[^1].Start };
        await DescribeAsync(sectors, kept).ConfigureAwait(false);
        await kept[^1].Node.ResizeAsync(kept[^1].Most, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        for (int i = kept.Length; i < before.Count; i++)
        {
            NodeIdentity? identity = before[i].Node.HolderIdentity();
            await before[i].Node.DisposeAsync().ConfigureAwait(false);
            string name = storages[i].Images[disk.Descriptor.Top].File;
            if (siblings is not null && identity is { } known && ParallelsSnapshots.IsOwn(disk.Descriptor, name))
            {
                await siblings.RemoveAsync(name, known).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask DescribeAsync(long sectors, IReadOnlyList<ParallelsPart> parts)
        => disk.Set(
            await disk.DescribeAsync(ParallelsDescriptorEdit.Resized(disk.Descriptor, sectors)).ConfigureAwait(false),
            parts);
}
