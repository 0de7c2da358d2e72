using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// Makes a disk longer or shorter. Growing: the extents first, then the descriptor; shrinking: the descriptor first. So a crash leaves a
/// disk of one of the two lengths. What fails while a disk grows is taken back.
/// </summary>
/// <param name="disk">The disk.</param>
/// <param name="extents">Its extents, which are changed.</param>
/// <param name="store">Its descriptor; null for none.</param>
/// <param name="files">Makes and removes the files of a split disk; null where that cannot be.</param>
internal sealed class VmdkResizer(VmdkNode disk, List<VmdkExtent> extents, VmdkDescriptorStore? store, VmdkSplitFiles? files)
{
    private const long LeastPart = 1 << 20; // ours

    private bool IsSplit => store?.Current.CreateType?.Contains("GbMaxExtent", StringComparison.OrdinalIgnoreCase) == true;

    /// <summary>Bytes of the disk in each file of a split one: as in the first, if there are several.</summary>
    private long Part => extents.Count > 1 && extents[0].Node.Length is >= LeastPart and <= VmdkCreator.SplitBytes and var first ? first
        : VmdkCreator.SplitBytes;

    /// <summary>Changes the length.</summary>
    public ValueTask RunAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (length / VmdkHeader.SectorSize > VmdkHeader.MaxSectors)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{disk.Name}: a VMDK cannot have {length:#,0} bytes; allowed: up to"
                    + $" {VmdkHeader.MaxSectors * VmdkHeader.SectorSize:#,0}", disk.Name);
        }
        int count = extents.Count;
        while (count > 1 && extents[count - 1].Start >= length)
        {
            count--;
        }
        VmdkExtent last = extents[count - 1];
        long within = length - last.Start, kept = IsSplit ? Math.Min(within, Math.Max(Part, last.Node.Length)) : within;
        long[] further = [.. PartsOf(within - kept)];
        RequireChangeable(last);
        RequireRoom(count + further.Length, further.Length > 0);
        return within > last.Node.Length
            ? GrowAsync(last, kept, further, preallocation, claimed, cancellationToken)
            : ShrinkAsync(count, last, within, cancellationToken);
    }

    private async ValueTask GrowAsync(
        VmdkExtent last, long kept, long[] further, PreallocationMode preallocation, IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        if (last.Node is VmdkSparseExtent)
        {
            VmdkSparseExtent.RequireNoPreallocation(disk.Name, preallocation);
        }
        long old = last.Node.Length, end = last.Start + kept;
        VmdkAddedFiles? added = further.Length == 0 ? null : await files!.MakeAsync(
            last, end, further, preallocation, VmdkUpkeep.Shifted(claimed, Math.Max(0, kept - old)),
            cancellationToken).ConfigureAwait(false);
        IReadOnlyList<VmdkExtent> opened = [];
        bool isDescribed = false;
        VmdkExtentLine[] before = [.. extents.Select(e => e.Line)];
        VmdkExtent changed = last with { Line = last.Line with { Sectors = kept / VmdkHeader.SectorSize } };
        try
        {
            if (kept > old)
            {
                await last.Node.ResizeAsync(kept, preallocation, claimed, cancellationToken).ConfigureAwait(false);
                await last.Node.FlushAsync(CancellationToken.None).ConfigureAwait(false);
            }
            if (added is not null)
            {
                await added.PublishAsync().ConfigureAwait(false);
                opened = await files!.OpenAsync(added.Lines, end, CancellationToken.None).ConfigureAwait(false);
            }
            isDescribed = true;
            await DescribeAsync([.. before[..^1], changed.Line, .. added?.Lines ?? []]).ConfigureAwait(false);
            extents[^1] = changed;
            extents.AddRange(opened);
        }
        catch
        {
            await Closing.FailedAsync(opened.SelectMany(e => new[] { e.Node, e.File! })).ConfigureAwait(false);
            await TakeBackAsync(last, old, isDescribed ? before : null, added).ConfigureAwait(false);
            throw;
        }
        finally
        {
            if (added is not null)
            {
                await added.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>As far as the host lets: what the descriptor may name stays.</summary>
    private async ValueTask TakeBackAsync(VmdkExtent last, long length, VmdkExtentLine[]? described, VmdkAddedFiles? added)
    {
        try
        {
            if (described is not null)
            {
                await DescribeAsync(described).ConfigureAwait(false);
            }
            added?.Withdraw();
            if (last.Node.Length > length)
            {
                await last.Node.ResizeAsync(length).ConfigureAwait(false);
            }
        }
        catch (DiskImageException)
        {
            // What led here is on its way already; the disk has either length, and its contents.
        }
    }

    private async ValueTask ShrinkAsync(int count, VmdkExtent last, long within, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        VmdkExtent changed = last with { Line = last.Line with { Sectors = within / VmdkHeader.SectorSize } };
        await DescribeAsync([.. extents.Take(count - 1).Select(e => e.Line), changed.Line]).ConfigureAwait(false);
        VmdkExtent[] lost = [.. extents.Skip(count)];
        extents.RemoveRange(count, lost.Length);
        extents[^1] = changed;
        await last.Node.ResizeAsync(within, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        if (files is not null && IsSplit)
        {
            await files.RemoveAsync(lost, disk.Name).ConfigureAwait(false);
            return;
        }
        foreach (VmdkExtent extent in lost)
        {
            bool isShared = extents.Any(e => ReferenceEquals(e.File, extent.File)); // several flat extents may lie in one file
            if (!isShared)
            {
                await VmdkSplitFiles.CloseAsync(extent).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask DescribeAsync(VmdkExtentLine[] lines)
    {
        if (store is not null)
        {
            await store.SetAsync(store.Current.WithExtents(lines)).ConfigureAwait(false);
        }
    }

    private IEnumerable<long> PartsOf(long length)
    {
        for (long part = Part; length > 0; length -= part)
        {
            yield return Math.Min(part, length);
        }
    }

    private void RequireRoom(int count, bool isFurther)
    {
        if (isFurther && files is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: its files hold up to {Part:#,0} bytes of the disk each, and further ones cannot be made where it is."
                    + $" Convert it with {new Remedy(RemedyKind.Convert)} to a larger one.",
                disk.Name);
        }
        if (count > VmdkDescriptor.MaxExtents)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: would take {count:#,0} files of {Part:#,0} bytes; allowed: up to {VmdkDescriptor.MaxExtents:#,0}. Convert"
                    + $" it with {new Remedy(RemedyKind.Convert)} to subformat=monolithicSparse or monolithicFlat.",
                disk.Name);
        }
    }

    private void RequireChangeable(VmdkExtent last)
    {
        if (last.Node.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{disk.Name}: its last extent ({last.Line.Text}) cannot be changed, so neither"
                    + $" can the disk's size. Convert it with {new Remedy(RemedyKind.Convert)}.", disk.Name);
        }
        if (last.Line.Type == VmdkExtentType.Flat && extents.Any(e => !ReferenceEquals(e, last) && ReferenceEquals(e.File, last.File)))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{disk.Name}: its last extent shares its file with others, so its size cannot"
                    + $" be changed. Convert it with {new Remedy(RemedyKind.Convert)}.", disk.Name);
        }
    }
}
