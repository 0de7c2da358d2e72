using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>Changing the parent, what is recorded of it, and the disk's identity.</summary>
internal sealed partial class VpcNode : IBackingRecord
{
    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => AloneAsync(() => UnderGateAsync(async () =>
        {
            VpcSpace space = await SpaceAsync().ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            if (backingFile is null)
            {
                await WriteFootersAsync(space, Footer with { DiskType = VpcDiskType.Dynamic }, Length).ConfigureAwait(false);
                VpcLocator[] none = new VpcLocator[VpcHeader.LocatorCount];
                await WriteHeaderAsync(_header with { ParentUniqueId = default, ParentTimeStamp = 0, ParentName = "", Locators = none }).ConfigureAwait(false);
                (_locators, _parentName) = ([], null);
            }
            else
            {
                await RecordParentAsync(space, backingFile, backingFormat, backing).ConfigureAwait(false);
            }
            _ = await NewSpaceAsync().ConfigureAwait(false); // the layout has changed
        }));

    /// <summary>Changes the disk's identity, its parent's path, or both. A crash leaves each of them old or new.</summary>
    public ValueTask AmendAsync(VpcAmendOptions options, CancellationToken cancellationToken)
    {
        Guid? id = options.UniqueId is { } text ? IdentifierOption.Parse(Name, VpcAmendOptions.UniqueIdName, text) : null;
        ParentNames? names = options.ParentPath is { } path ? ParentNames.OfOption(Name, HasParent, path) : null;
        return AloneAsync(() => UnderGateAsync(async () =>
        {
            VpcSpace space = await SpaceAsync().ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            if (names is not null)
            {
                await WriteParentAsync(space, _header, names).ConfigureAwait(false);
            }
            if (id is { } given)
            {
                await WriteFootersAsync(space, Footer with { UniqueId = given }, Length).ConfigureAwait(false);
            }
            _ = await NewSpaceAsync().ConfigureAwait(false);
        }));
    }

    // A VHD's identifier outlives changes, and the time stamp in its footer does, too. But a child may have recorded the time at which the
    // parent's file was changed, as some programs do: that one goes before it becomes wrong, and nothing is left to confirm.
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken) => AloneAsync(() => UnderGateAsync(async () =>
    {
        if (!HasParent || Backing is null)
        {
            return;
        }
        VpcHeader identified = VpcParent.IsRaw(_header) ? _header with { ParentTimeStamp = 0 } : VpcParent.Identify(_header, Name, Backing);
        if (identified == _header)
        {
            return;
        }
        _ = await SpaceAsync().ConfigureAwait(false);
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        await WriteHeaderAsync(identified).ConfigureAwait(false);
        _ = await NewSpaceAsync().ConfigureAwait(false);
    }));

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => default;

    private async ValueTask RecordParentAsync(VpcSpace space, string name, string? format, BlockNode? parent)
    {
        if (parent is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: a VHD records its parent's identity, so the parent '{name}' must exist and be open", Name);
        }
        VpcHeader header = VpcParent.Identify(_header, Name, parent, mayBeRaw: "raw".Equals(format, StringComparison.Ordinal));
        if (parent.Length != Length && !VpcParent.IsRaw(header)) // XenServer rounds a child up to whole blocks
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: {parent.Name} has {parent.Length:#,0} bytes, but a child and its parent are of one size, here {Length:#,0}. Resize one of them.",
                Name);
        }
        await WriteParentAsync(space, header, ParentNames.Of(Name, parent.Name)).ConfigureAwait(false);
        if (!HasParent)
        {
            await WriteFootersAsync(space, Footer with { DiskType = VpcDiskType.Differencing }, Length).ConfigureAwait(false);
        }
        _parentName = name;
    }

    /// <summary>Writes a parent's names where nothing is yet, then the header that leads there: the old names hold until then.</summary>
    private async ValueTask WriteParentAsync(VpcSpace space, VpcHeader header, ParentNames names)
    {
        (_, byte[] data) = VpcParent.Name(header, names, 0);
        long place = await space.AllocateSectorsAsync(data.Length, VpcFooter.Length, Footer).ConfigureAwait(false);
        (header, _) = VpcParent.Name(header, names, place);
        await File.WriteAsync(place, data).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        await WriteHeaderAsync(header).ConfigureAwait(false);
        _locators = await VpcParent.ReadLocatorsAsync(File, header, CancellationToken.None).ConfigureAwait(false);
        _parentName = WindowsPath.Shown(VpcParent.Candidates(_locators, header.ParentName).FirstOrDefault(header.ParentName));
    }
}
