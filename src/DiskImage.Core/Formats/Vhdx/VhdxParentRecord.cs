using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Changes the parent, loses it, and drops everything that is not the parent's. Spec: MS-VHDX 2.6.1, 2.6.2.6.</summary>
internal sealed class VhdxParentRecord(VhdxDisk disk)
{
    private readonly VhdxMetadataWriter _metadata = new(disk);

    /// <summary>Names another parent, or none.</summary>
    public async ValueTask SetAsync(MetadataSession.Held held, string? name, BlockNode? node, CancellationToken cancellationToken)
    {
        disk.RequireWritable();
        VhdxParentLocator? locator = null;
        if (name is not null)
        {
            VhdxDisk parent = VhdxParent.Of(node)?.Disk ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{disk.Name}: the new parent '{name}' must be a VHDX image that can be opened: a VHDX records its parent's "
                    + $"identity. Convert it, or make it accessible.",
                disk.Name);
            if (parent.Metadata.LogicalSectorSize != disk.Metadata.LogicalSectorSize)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{disk.Name}: its logical sectors have {disk.Metadata.LogicalSectorSize} bytes and those of '{name}' "
                        + $"{parent.Metadata.LogicalSectorSize}; they must be the same.",
                    disk.Name);
            }
            locator = VhdxParentLocator.For(
                ParentNames.Of(disk.Name, name), await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false));
        }
        else if (!disk.HasParent)
        {
            return;
        }
        await disk.BeginAsync(held, isVisible: true).ConfigureAwait(false);
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (locator is null)
        {
            await CompletePartialBlocksAsync(held, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await new VhdxResizer(disk).MakeRoomAsync(held, disk.Geometry.EntriesWithBitmaps).ConfigureAwait(false);
        }
        IReadOnlyList<VhdxLogUpdate> updates = await _metadata.LocatorUpdatesAsync(locator, cancellationToken).ConfigureAwait(false);
        await _metadata.WriteAsync(held, updates, cancellationToken).ConfigureAwait(false);
        if (!disk.HasParent)
        {
            await disk.Bat.DropBitmapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Drops all blocks.</summary>
    public async ValueTask EmptyAsync(MetadataSession.Held held, bool isVisible, CancellationToken cancellationToken)
    {
        disk.RequireWritable();
        if (disk.Metadata.IsFixed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{disk.Name}: a fixed disk keeps all of its blocks, so it cannot be emptied", disk.Name);
        }
        Guid? linkage = VhdxParent.Of(disk.Backing) is { } parent
            ? await parent.Disk.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false) : null;
        await disk.BeginAsync(held, isVisible).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<VhdxLogUpdate> relink = [];
        if (linkage is { } id && disk.Metadata.Locator is { } locator && !locator.Accepts(id))
        {
            // A commit has written to the parent, which so has a new identity.
            relink = await _metadata.LocatorUpdatesAsync(locator.Linked(id), cancellationToken).ConfigureAwait(false);
        }
        await disk.Log.WriteAsync(
            [VhdxLogUpdate.Zeroes(disk.Regions.Bat.Offset, disk.Regions.Bat.Length), .. relink]).ConfigureAwait(false);
        disk.Cache.Clear();
        disk.Session.Space = null;
        await disk.ReadMetadataAsync(held, cancellationToken).ConfigureAwait(false);
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Log.FlushAsync().ConfigureAwait(false);
        await disk.TruncateAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Writes a locator made of the present one, the parent's identity, and the identity that the next change gives the parent.
    /// </summary>
    public async ValueTask LinkAsync(
        MetadataSession.Held held,
        bool isVisible,
        Func<VhdxParentLocator, Guid, Guid, VhdxParentLocator> link,
        CancellationToken cancellationToken)
    {
        disk.RequireWritable();
        if (disk.Metadata.Locator is not { } locator || VhdxParent.Of(disk.Backing)?.Disk is not { } parent)
        {
            return;
        }
        Guid now = await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false);
        Guid coming = await parent.ComingDataWriteGuidAsync(cancellationToken).ConfigureAwait(false);
        await disk.BeginAsync(held, isVisible).ConfigureAwait(false);
        IReadOnlyList<VhdxLogUpdate> updates = await _metadata.LocatorUpdatesAsync(
            link(locator, now, coming), CancellationToken.None).ConfigureAwait(false);
        await _metadata.WriteAsync(held, updates, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>What the parent would have to say about partially present blocks is zero: makes them fully present.</summary>
    private async ValueTask CompletePartialBlocksAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        for (long block = 0; block < disk.Geometry.Blocks; block++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BatEntry entry = await disk.Bat.PayloadAsync(block, cancellationToken).ConfigureAwait(false);
            if (entry.State != BlockState.PartiallyPresent)
            {
                continue;
            }
            disk.Bat.RequirePayload(entry, block);
            for (long at = disk.Geometry.StartOf(block), end = at + disk.Geometry.BytesOf(block); at < end;)
            {
                var guest = new GuestOffset(at);
                (bool isHere, long run) = await disk.Bat.SectorRunAsync(block, guest, end, cancellationToken).ConfigureAwait(false);
                if (!isHere)
                {
                    HostOffset host = entry.Place + disk.Geometry.InBlock(guest);
                    await disk.File.WriteZeroesAsync(host.Value, run, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
                }
                at += run;
            }
            await disk.Bat.SetPayloadAsync(held, block, new BatEntry(BlockState.FullyPresent, entry.Place)).ConfigureAwait(false);
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
    }
}
