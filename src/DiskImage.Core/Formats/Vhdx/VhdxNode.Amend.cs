using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Changing metadata items and the parent locator: what belongs together is one entry of the log. Spec: MS-VHDX 2.6.</summary>
internal sealed partial class VhdxNode
{
    /// <summary>Changes metadata items and the parent's path, all at once.</summary>
    public ValueTask AmendAsync(VhdxAmendOptions options) => AloneAsync(async () =>
    {
        RequireWritable();
        var items = new List<(Guid Id, byte[] Bytes)>();
        if (options.PhysicalSectorSize is long size)
        {
            if (size is not (512 or 4096))
            {
                throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: physical_sector_size={size} is not possible; allowed: 512 and 4096.", Name);
            }
            byte[] bytes = new byte[4];
            LittleEndian.U32(bytes, 0, (uint)size);
            items.Add((VhdxItem.PhysicalSectorSize, bytes));
        }
        if (options.VirtualDiskId is { } text)
        {
            items.Add((VhdxItem.VirtualDiskId, IdentifierOption.Parse(Name, VhdxAmendOptions.VirtualDiskIdName, text).ToByteArray()));
        }
        ParentNames? names = options.ParentPath is { } path ? ParentNames.OfOption(Name, _metadata.HasParent, path) : null;
        VhdxParentLocator? locator = names is null ? null : _metadata.Locator!.At(names);
        if (items.Count > 0 || locator is not null)
        {
            await UnderGateAsync(async () =>
            {
                await BeginAsync(isVisible: items.Count > 0).ConfigureAwait(false); // where the parent is does not change what the disk shows
                var patch = new VhdxPatch(File);
                if (locator is not null)
                {
                    await PutLocatorAsync(patch, locator).ConfigureAwait(false);
                }
                await PutItemsAsync(patch, items).ConfigureAwait(false);
                await WriteMetadataAsync(patch).ConfigureAwait(false);
            }).ConfigureAwait(false);
        }
    });

    /// <summary>Writes items of fixed size over themselves, through the log.</summary>
    private async ValueTask WriteItemsAsync(IEnumerable<(Guid Id, byte[] Bytes)> items)
    {
        var patch = new VhdxPatch(File);
        await PutItemsAsync(patch, items).ConfigureAwait(false);
        await WriteMetadataAsync(patch).ConfigureAwait(false);
    }

    private async ValueTask WriteMetadataAsync(VhdxPatch patch)
    {
        await _log!.WriteAsync(UpdatesOf(patch)).ConfigureAwait(false);
        _metadata = await VhdxMetadata.ReadAsync(File, _regions.Metadata, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask PutItemsAsync(VhdxPatch patch, IEnumerable<(Guid Id, byte[] Bytes)> items)
    {
        foreach ((Guid id, byte[] bytes) in items)
        {
            await patch.PutAsync(_regions.Metadata.Offset + _metadata.Find(id)!.Value.Offset, bytes).ConfigureAwait(false);
        }
    }

    /// <summary>What must change in the metadata region for another locator, or for none: one entry of the log.</summary>
    private async ValueTask<IReadOnlyList<VhdxLogUpdate>> LocatorUpdatesAsync(VhdxParentLocator? locator, CancellationToken cancellationToken)
    {
        var patch = new VhdxPatch(File);
        await PutLocatorAsync(patch, locator).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        return UpdatesOf(patch);
    }

    private async ValueTask PutLocatorAsync(VhdxPatch patch, VhdxParentLocator? locator)
    {
        VhdxRegion region = _regions.Metadata;
        var items = _metadata.Items.Where(i => i.Id != VhdxItem.ParentLocator || i.Flags.HasFlag(VhdxItemFlags.IsUser)).ToList();
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
        VhdxItem parameters = _metadata.Find(VhdxItem.FileParameters)!.Value;
        await patch.PutAsync(
            region.Offset + parameters.Offset, VhdxMetadata.ParametersBytes(_metadata.BlockSize, _metadata.LeaveBlocksAllocated && locator is null, locator is not null)).ConfigureAwait(false);
    }

    /// <summary>The changes as one entry of the log.</summary>
    private IReadOnlyList<VhdxLogUpdate> UpdatesOf(VhdxPatch patch)
        => patch.Updates.Count <= _log!.MostSectors
            ? patch.Updates
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: its log of {_header.LogLength:#,0} bytes is too small to change {patch.Updates.Count} sectors of metadata at once", Name);

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
            : throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: its metadata region of {regionLength:#,0} bytes has no room for a parent locator", Name);
    }
}
