using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>Makes a disk longer or shorter. Growing: the extent first, then the descriptor; shrinking: the descriptor first. So a crash leaves a disk of one of the two lengths.</summary>
internal sealed class VmdkResizer(VmdkNode disk, List<VmdkExtent> extents, VmdkDescriptorStore? store)
{
    /// <summary>Changes the length.</summary>
    public async ValueTask RunAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (length / VmdkHeader.SectorSize > VmdkHeader.MaxSectors)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{disk.Name}: a VMDK cannot have {length:#,0} bytes; allowed: up to {VmdkHeader.MaxSectors * VmdkHeader.SectorSize:#,0}", disk.Name);
        }
        int count = extents.Count;
        while (count > 1 && extents[count - 1].Start >= length)
        {
            count--; // its file stays, and is not the disk's any more
        }
        VmdkExtent last = extents[count - 1];
        long within = length - last.Start;
        RequireRoom(last, within);
        VmdkExtent changed = last with { Line = last.Line with { Sectors = within / VmdkHeader.SectorSize } };
        VmdkExtentLine[] lines = [.. extents.Take(count - 1).Select(e => e.Line), changed.Line];
        bool grows = within > last.Node.Length;
        if (!grows)
        {
            await DescribeAsync(lines).ConfigureAwait(false);
        }
        await last.Node.ResizeAsync(within, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        if (grows)
        {
            await last.Node.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            await DescribeAsync(lines).ConfigureAwait(false);
        }
        foreach (VmdkExtent left in extents.Skip(count))
        {
            await left.Node.DisposeAsync().ConfigureAwait(false);
        }
        extents.RemoveRange(count, extents.Count - count);
        extents[^1] = changed;
    }

    private async ValueTask DescribeAsync(VmdkExtentLine[] lines)
    {
        if (store is not null)
        {
            await store.SetAsync(store.Current.WithExtents(lines)).ConfigureAwait(false);
        }
    }

    private void RequireRoom(VmdkExtent last, long within)
    {
        if (last.Node.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{disk.Name}: its last extent ({last.Line.Text}) cannot be changed, so neither can the disk's size. Convert it with {new Remedy(RemedyKind.Convert)}.", disk.Name);
        }
        bool isSplit = store?.Current.CreateType?.Contains("GbMaxExtent", StringComparison.OrdinalIgnoreCase) == true;
        if (isSplit && within > VmdkCreator.SplitBytes && within > last.Node.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: its files hold up to {VmdkCreator.SplitBytes:#,0} bytes of the disk each, and the last one would hold {within:#,0}; allowed: up to"
                    + $" {last.Start + VmdkCreator.SplitBytes:#,0} bytes. Convert it with {new Remedy(RemedyKind.Convert)} to a larger one.",
                disk.Name);
        }
        if (last.Line.Type == VmdkExtentType.Flat && extents.Any(e => !ReferenceEquals(e, last) && ReferenceEquals(e.File, last.File)))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{disk.Name}: its last extent shares its file with others, so its size cannot be changed. Convert it with {new Remedy(RemedyKind.Convert)}.", disk.Name);
        }
    }
}
