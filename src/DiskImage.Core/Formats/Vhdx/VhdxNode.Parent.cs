using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Changing the parent, losing it, and dropping everything that is not the parent's. Spec: MS-VHDX 2.6.1, 2.6.2.6.</summary>
internal sealed partial class VhdxNode : IRebasable, IEmptiable
{
    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        VhdxParentLocator? locator = null;
        if (backingFile is not null)
        {
            VhdxNode parent = VhdxParent.Of(backing) ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: the new parent '{backingFile}' must be a VHDX image that can be opened: a VHDX records its parent's identity. Convert it, or make it accessible.", Name);
            if (parent._metadata.LogicalSectorSize != _metadata.LogicalSectorSize)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{Name}: its logical sectors have {_metadata.LogicalSectorSize} bytes and those of '{backingFile}' {parent._metadata.LogicalSectorSize}; they must be the same.", Name);
            }
            locator = VhdxParentLocator.For(Name, backingFile, await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false));
        }
        await UnderGateAsync(async () =>
        {
            if (locator is null && !_metadata.HasParent)
            {
                return;
            }
            await BeginAsync(isVisible: true).ConfigureAwait(false);
            _ = await SpaceAsync().ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            if (locator is null)
            {
                await CompletePartialBlocksAsync(cancellationToken).ConfigureAwait(false);
            }
            else if (_geometry.EntriesWithBitmaps * VhdxGeometry.EntryBytes > _regions.Bat.Length)
            {
                await MoveBatAsync(_geometry.EntriesWithBitmaps * VhdxGeometry.EntryBytes).ConfigureAwait(false);
            }
            await _log!.WriteAsync(await LocatorUpdatesAsync(locator, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            _metadata = await VhdxMetadata.ReadAsync(File, _regions.Metadata, cancellationToken).ConfigureAwait(false);
            await DropBitmapsWithoutParentAsync().ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
    });

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        if (_metadata.IsFixed)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: a fixed disk keeps all of its blocks, so it cannot be emptied", Name);
        }
        Guid? linkage = VhdxParent.Of(Backing) is { } parent ? await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false) : null;
        await UnderGateAsync(async () =>
        {
            await BeginAsync(isVisible: true).ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            IReadOnlyList<VhdxLogUpdate> relink = [];
            if (linkage is { } id && _metadata.Locator is { } locator && !locator.Accepts(id))
            {
                // A commit has written to the parent, which so has a new identity.
                var values = new Dictionary<string, string>(locator.Values, StringComparer.Ordinal) { [VhdxParentLocator.LinkageKey] = id.ToString("B") };
                _ = values.Remove(VhdxParentLocator.Linkage2Key);
                relink = await LocatorUpdatesAsync(locator with { Values = values }, cancellationToken).ConfigureAwait(false);
            }
            await _log!.WriteAsync([VhdxLogUpdate.Zeroes(_regions.Bat.Offset, _regions.Bat.Length), .. relink]).ConfigureAwait(false);
            _cache.Clear();
            _space = null;
            _metadata = await VhdxMetadata.ReadAsync(File, _regions.Metadata, cancellationToken).ConfigureAwait(false);
            _ = await SpaceAsync().ConfigureAwait(false);
            await _log.FlushAsync().ConfigureAwait(false);
            await TruncateAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
    });

    /// <summary>Changes metadata items, all at once.</summary>
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
            Guid id = text.Equals("new", StringComparison.OrdinalIgnoreCase) ? Guid.NewGuid()
                : Guid.TryParse(text, out Guid given) ? given
                : throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: virtual_disk_id={text} is not possible; allowed: a GUID, or new.", Name);
            items.Add((VhdxItem.VirtualDiskId, id.ToByteArray()));
        }
        if (items.Count > 0)
        {
            await UnderGateAsync(async () =>
            {
                await BeginAsync(isVisible: true).ConfigureAwait(false);
                await WriteItemsAsync(items).ConfigureAwait(false);
            }).ConfigureAwait(false);
        }
    });

    /// <summary>Writes items of fixed size over themselves, through the log.</summary>
    private async ValueTask WriteItemsAsync(IEnumerable<(Guid Id, byte[] Bytes)> items)
    {
        var patch = new VhdxPatch(File);
        foreach ((Guid id, byte[] bytes) in items)
        {
            await patch.PutAsync(_regions.Metadata.Offset + _metadata.Find(id)!.Value.Offset, bytes).ConfigureAwait(false);
        }
        await _log!.WriteAsync(patch.Updates).ConfigureAwait(false);
        _metadata = await VhdxMetadata.ReadAsync(File, _regions.Metadata, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>The identity of the contents as the file says it now: it may have been written to by way of another opening.</summary>
    internal async ValueTask<Guid> CurrentDataWriteGuidAsync(CancellationToken cancellationToken)
        => IsReadOnly ? (await VhdxHeaderPair.ReadAsync(File, cancellationToken).ConfigureAwait(false)).Current.DataWriteGuid : _header.DataWriteGuid;

    private void RequireWritable()
    {
        if (IsReadOnly)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so it cannot be changed", Name);
        }
    }

    /// <summary>What the parent would have to say about partially present blocks is zero: makes them fully present.</summary>
    private async ValueTask CompletePartialBlocksAsync(CancellationToken cancellationToken)
    {
        for (long block = 0; block < _geometry.Blocks; block++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BatEntry entry = await EntryAsync(_geometry.PayloadIndex(block), cancellationToken).ConfigureAwait(false);
            if (entry.State != BlockState.PartiallyPresent)
            {
                continue;
            }
            RequirePayload(entry, block);
            for (long at = _geometry.StartOf(block), end = at + _geometry.BytesOf(block); at < end;)
            {
                (bool isHere, long run) = await SectorRunAsync(block, at, end, cancellationToken).ConfigureAwait(false);
                if (!isHere)
                {
                    await File.WriteZeroesAsync(entry.FileOffset + _geometry.InBlock(at), run, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
                }
                at += run;
            }
            await SetEntryAsync(_geometry.PayloadIndex(block), new BatEntry(BlockState.FullyPresent, entry.FileOffset)).ConfigureAwait(false);
        }
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask DropBitmapsWithoutParentAsync()
    {
        for (long chunk = 0; chunk < _geometry.Chunks && !_metadata.HasParent && HasEntry(_geometry.BitmapIndex(chunk)); chunk++)
        {
            BatEntry bitmap = await EntryAsync(_geometry.BitmapIndex(chunk), CancellationToken.None).ConfigureAwait(false);
            if (bitmap.State == BlockState.FullyPresent)
            {
                await SetEntryAsync(_geometry.BitmapIndex(chunk), default).ConfigureAwait(false);
                _space!.FreeAfterFlush(bitmap.FileOffset, VhdxLayout.BitmapBlockSize);
            }
        }
    }

    /// <summary>What must change in the metadata region for another locator, or for none: one entry of the log.</summary>
    private async ValueTask<IReadOnlyList<VhdxLogUpdate>> LocatorUpdatesAsync(VhdxParentLocator? locator, CancellationToken cancellationToken)
    {
        VhdxRegion region = _regions.Metadata;
        var items = _metadata.Items.Where(i => i.Id != VhdxItem.ParentLocator || i.Flags.HasFlag(VhdxItemFlags.IsUser)).ToList();
        var patch = new VhdxPatch(File);
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
        cancellationToken.ThrowIfCancellationRequested();
        return patch.Updates.Count <= _log!.MostSectors
            ? patch.Updates
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: its log of {_header.LogLength:#,0} bytes is too small to change {patch.Updates.Count} sectors of metadata at once", Name);
    }

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
