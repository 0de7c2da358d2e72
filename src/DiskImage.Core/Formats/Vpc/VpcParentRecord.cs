using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Changes the parent, what is recorded of it, and the disk's identity.</summary>
internal sealed class VpcParentRecord(VpcDisk disk)
{
    private string Name => disk.File.Name;

    /// <summary>Names another parent, or none.</summary>
    public async ValueTask SetAsync(
        MetadataSession.Held held, string? name, string? format, BlockNode? parent, CancellationToken cancellationToken)
    {
        VpcSpace space = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (name is null)
        {
            await disk.WriteFootersAsync(held, disk.Footer with { DiskType = VpcDiskType.Dynamic }, disk.Length).ConfigureAwait(false);
            VpcLocator[] none = new VpcLocator[VpcHeader.LocatorCount];
            await disk.WriteHeaderAsync(
                held,
                disk.Header with { ParentUniqueId = default, ParentTimeStamp = 0, ParentName = "", Locators = none }).ConfigureAwait(false);
            disk.TakeParent(held, [], name: null);
        }
        else
        {
            await RecordAsync(held, space, name, format, parent).ConfigureAwait(false);
        }
        _ = await disk.NewSpaceAsync(held).ConfigureAwait(false); // the layout has changed
    }

    /// <summary>Changes the disk's identity, its parent's path, or both.</summary>
    public async ValueTask AmendAsync(MetadataSession.Held held, Guid? id, ParentNames? names, CancellationToken cancellationToken)
    {
        VpcSpace space = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (names is not null)
        {
            await WriteAsync(held, space, disk.Header, names).ConfigureAwait(false);
        }
        if (id is { } given)
        {
            await disk.WriteFootersAsync(held, disk.Footer with { UniqueId = given }, disk.Length).ConfigureAwait(false);
        }
        _ = await disk.NewSpaceAsync(held).ConfigureAwait(false);
    }

    // A VHD's identifier outlives changes, and the time stamp in its footer does, too. But a child may have recorded the time at which the
    // parent's file was changed, as some programs do: that one goes before it becomes wrong, and nothing is left to confirm.
    public async ValueTask ExpectChangeAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (!disk.HasParent || disk.Backing is null)
        {
            return;
        }
        VpcHeader identified = VpcParent.IsRaw(disk.Header)
            ? disk.Header with { ParentTimeStamp = 0 }
            : VpcParent.Identify(disk.Header, Name, disk.Backing);
        if (identified == disk.Header)
        {
            return;
        }
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await disk.WriteHeaderAsync(held, identified).ConfigureAwait(false);
        _ = await disk.NewSpaceAsync(held).ConfigureAwait(false);
    }

    private async ValueTask RecordAsync(MetadataSession.Held held, VpcSpace space, string name, string? format, BlockNode? parent)
    {
        if (parent is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: a VHD records its parent's identity, so the parent '{name}' must exist and be open",
                Name);
        }
        VpcHeader header = VpcParent.Identify(disk.Header, Name, parent, mayBeRaw: "raw".Equals(format, StringComparison.Ordinal));
        if (parent.Length != disk.Length && !VpcParent.IsRaw(header)) // XenServer rounds a child up to whole blocks
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: {parent.Name} has {parent.Length:#,0} bytes, but a child and its parent are of one size, here "
                    + $"{disk.Length:#,0}. Resize one of them.",
                Name);
        }
        await WriteAsync(held, space, header, ParentNames.Of(Name, parent.Name)).ConfigureAwait(false);
        if (!disk.HasParent)
        {
            await disk.WriteFootersAsync(held, disk.Footer with { DiskType = VpcDiskType.Differencing }, disk.Length).ConfigureAwait(false);
        }
        disk.TakeParent(held, disk.Locators, name);
    }

    /// <summary>Writes a parent's names where nothing is yet, then the header that leads there: the old names hold until then.</summary>
    private async ValueTask WriteAsync(MetadataSession.Held held, VpcSpace space, VpcHeader header, ParentNames names)
    {
        (_, byte[] data) = VpcParent.Name(header, names, 0);
        HostOffset place = await space.AllocateSectorsAsync(held, data.Length, VpcFooter.Length).ConfigureAwait(false);
        (header, _) = VpcParent.Name(header, names, place.Value);
        await disk.File.WriteAsync(place.Value, data).ConfigureAwait(false);
        await disk.File.FlushAsync().ConfigureAwait(false);
        await disk.WriteHeaderAsync(held, header).ConfigureAwait(false);
        IReadOnlyList<VpcParentLocatorInfo> locators = await VpcParent.ReadLocatorsAsync(
            disk.File, header, CancellationToken.None).ConfigureAwait(false);
        disk.TakeParent(
            held, locators, WindowsPath.Shown(VpcParent.Candidates(locators, header.ParentName).FirstOrDefault(header.ParentName)));
    }
}
