using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Changes metadata items and the parent locator: what belongs together is one entry of the log. Spec: MS-VHDX 2.6.</summary>
internal sealed class VhdxMetadataWriter(VhdxDisk disk)
{
    private string Name => disk.Name;

    /// <summary>Changes metadata items and the parent's path, all at once.</summary>
    public async ValueTask AmendAsync(MetadataSession.Held held, VhdxAmendOptions options)
    {
        disk.RequireWritable();
        var items = new List<(Guid Id, byte[] Bytes)>();
        if (options.PhysicalSectorSize is long size)
        {
            if (size is not (512 or 4096))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption, $"{Name}: physical_sector_size={size} is not possible; allowed: 512 and 4096.", Name);
            }
            byte[] bytes = new byte[4];
            LittleEndian.U32(bytes, 0, (uint)size);
            items.Add((VhdxItem.PhysicalSectorSize, bytes));
        }
        if (options.VirtualDiskId is { } text)
        {
            items.Add((VhdxItem.VirtualDiskId, IdentifierOption.Parse(Name, VhdxAmendOptions.VirtualDiskIdName, text).ToByteArray()));
        }
        ParentNames? names = options.ParentPath is { } path ? ParentNames.OfOption(Name, disk.HasParent, path) : null;
        VhdxParentLocator? locator = names is null ? null : disk.Metadata.Locator!.At(names);
        if (items.Count == 0 && locator is null)
        {
            return;
        }
        // where the parent is does not change what the disk shows
        await disk.BeginAsync(held, isVisible: items.Count > 0).ConfigureAwait(false);
        var patch = new VhdxPatch(disk.File);
        if (locator is not null)
        {
            await PutLocatorAsync(patch, locator).ConfigureAwait(false);
        }
        await PutItemsAsync(patch, items).ConfigureAwait(false);
        await WriteAsync(held, UpdatesOf(patch), CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Writes items of fixed size over themselves, through the log.</summary>
    public async ValueTask WriteAsync(MetadataSession.Held held, IEnumerable<(Guid Id, byte[] Bytes)> items)
    {
        var patch = new VhdxPatch(disk.File);
        await PutItemsAsync(patch, items).ConfigureAwait(false);
        await WriteAsync(held, UpdatesOf(patch), CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Writes changes as entries of the log, and reads the metadata again.</summary>
    public async ValueTask WriteAsync(MetadataSession.Held held, IReadOnlyList<VhdxLogUpdate> updates, CancellationToken cancellationToken)
    {
        await disk.Log.WriteAsync(updates).ConfigureAwait(false);
        await disk.ReadMetadataAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What must change in the metadata region for another locator, or for none: one entry of the log.</summary>
    public async ValueTask<IReadOnlyList<VhdxLogUpdate>> LocatorUpdatesAsync(
        VhdxParentLocator? locator, CancellationToken cancellationToken)
    {
        var patch = new VhdxPatch(disk.File);
        await PutLocatorAsync(patch, locator).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        return UpdatesOf(patch);
    }

    private async ValueTask PutItemsAsync(VhdxPatch patch, IEnumerable<(Guid Id, byte[] Bytes)> items)
    {
        foreach ((Guid id, byte[] bytes) in items)
        {
            await patch.PutAsync(disk.Regions.Metadata.Offset + disk.Metadata.Find(id)!.Value.Offset, bytes).ConfigureAwait(false);
        }
    }

    private async ValueTask PutLocatorAsync(VhdxPatch patch, VhdxParentLocator? locator)
    {
        VhdxRegion region = disk.Regions.Metadata;
        var items = disk.Metadata.Items.Where(i => i.Id != VhdxItem.ParentLocator || i.Flags.HasFlag(VhdxItemFlags.IsUser)).ToList();
        if (locator is not null)
        {
            byte[] bytes = locator.ToBytes();
            long place = FindRoom(items, bytes.Length, region.Length);
            items.Add(new VhdxItem(VhdxItem.ParentLocator, place, bytes.Length, VhdxItemFlags.IsRequired));
            await patch.PutAsync(region.Offset + place, bytes).ConfigureAwait(false);
        }
        byte[] table = new byte[VhdxMetadata.TableSize];
        LittleEndian.U64(table, 0, VhdxMetadata.Signature);
        LittleEndian.U16(table, VhdxMetadata.CountAt, (ushort)items.Count);
        for (int i = 0; i < items.Count; i++)
        {
            VhdxMetadata.PutEntry(table, i, items[i]);
        }
        await patch.PutAsync(region.Offset, table).ConfigureAwait(false);
        VhdxItem parameters = disk.Metadata.Find(VhdxItem.FileParameters)!.Value;
        await patch.PutAsync(
            region.Offset + parameters.Offset,
            VhdxMetadata.ParametersBytes(disk.Metadata.BlockSize, disk.Metadata.LeaveBlocksAllocated
                && locator is null, locator is not null)).ConfigureAwait(false);
    }

    /// <summary>The changes as one entry of the log.</summary>
    private IReadOnlyList<VhdxLogUpdate> UpdatesOf(VhdxPatch patch)
        => patch.Updates.Count <= disk.Log.MostSectors
            ? patch.Updates
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: its log of {disk.Header.LogLength:#,0} bytes is too small to change "
                    + $"{patch.Updates.Count} sectors of metadata at once",
                Name);

    /// <summary>A place for an item in the metadata region that no other item takes.</summary>
    private long FindRoom(IEnumerable<VhdxItem> items, int length, long regionLength)
    {
        long at = VhdxMetadata.TableSize;
        foreach (VhdxItem item in items.Where(i => i.Length > 0).OrderBy(i => i.Offset))
        {
            if (item.Offset - at >= length)
            {
                break;
            }
            at = Round.Up(item.Offset + item.Length, 8);
        }
        return at <= regionLength - length
            ? at
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: its metadata region of {regionLength:#,0} bytes has no room for a parent locator",
                Name);
    }
}
