using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Changing the parent, losing it, and dropping everything that is not the parent's. Spec: MS-VHDX 2.6.1, 2.6.2.6.</summary>
internal sealed partial class VhdxNode : IRebasable, IEmptiable, IBackingRecord
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
            locator = VhdxParentLocator.For(ParentNames.Of(Name, backingFile), await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false));
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

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => MakeEmptyAsync(isVisible: true, cancellationToken);

    public ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => MakeEmptyAsync(isVisible: false, cancellationToken);

    private ValueTask MakeEmptyAsync(bool isVisible, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        if (_metadata.IsFixed)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: a fixed disk keeps all of its blocks, so it cannot be emptied", Name);
        }
        Guid? linkage = VhdxParent.Of(Backing) is { } parent ? await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false) : null;
        await UnderGateAsync(async () =>
        {
            await BeginAsync(isVisible).ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            IReadOnlyList<VhdxLogUpdate> relink = [];
            if (linkage is { } id && _metadata.Locator is { } locator && !locator.Accepts(id))
            {
                // A commit has written to the parent, which so has a new identity.
                relink = await LocatorUpdatesAsync(locator.Linked(id), cancellationToken).ConfigureAwait(false);
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

    // The specification has parent_linkage2 beside parent_linkage, and the parent may bear either identity. Spec: MS-VHDX 2.6.2.6.3.
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken)
        => LinkAsync(changesThis, static (locator, now, coming) => locator.Linked(now, coming), cancellationToken);

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken)
        => LinkAsync(isVisible: false, static (locator, now, _) => locator.Linked(now), cancellationToken);

    /// <summary>Writes a locator made of the present one, the parent's identity, and the identity that the next change gives the parent.</summary>
    private ValueTask LinkAsync(bool isVisible, Func<VhdxParentLocator, Guid, Guid, VhdxParentLocator> link, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        if (_metadata.Locator is not { } locator || VhdxParent.Of(Backing) is not { } parent)
        {
            return;
        }
        Guid now = await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false), coming = now;
        await parent.UnderGateAsync(() =>
        {
            coming = parent.ComingDataWriteGuid;
            return default;
        }).ConfigureAwait(false);
        await UnderGateAsync(async () =>
        {
            await BeginAsync(isVisible).ConfigureAwait(false);
            var patch = new VhdxPatch(File);
            await PutLocatorAsync(patch, link(locator, now, coming)).ConfigureAwait(false);
            await WriteMetadataAsync(patch).ConfigureAwait(false);
        }).ConfigureAwait(false);
    });

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
}
