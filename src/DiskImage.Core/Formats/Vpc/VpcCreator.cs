using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Writes new disks: copy of the footer, dynamic header, table, locators, footer, in this order from offset 0; or only a footer.
/// </summary>
internal static class VpcCreator
{
    private const int HeaderAt = VpcFooter.Length, TableAt = HeaderAt + VpcHeader.Length;

    public static async ValueTask CreateAsync(
        BlockNode file, VpcCreateOptions options, BlockNode? parent, CancellationToken cancellationToken)
    {
        (VpcFooter footer, VpcHeader? header) = Plan(file.Name, options, parent);
        await file.ResizeAsync(0, cancellationToken: cancellationToken).ConfigureAwait(false);
        if (header is null)
        {
            await file.ResizeAsync(footer.CurrentSize, cancellationToken: cancellationToken).ConfigureAwait(false);
            await file.WriteAsync(footer.CurrentSize, footer.ToBytes(), cancellationToken).ConfigureAwait(false);
            return;
        }
        long end = VpcLayout.TableEnd(TableAt, header.MaxTableEntries);
        byte[] locators = [];
        if (parent is not null)
        {
            (header, locators) = VpcParent.Name(VpcParent.Identify(header, file.Name, parent), ParentNames.Of(file.Name, parent.Name), end);
        }
        byte[] table = new byte[end - TableAt];
        Array.Fill(table, (byte)0xFF);
        await file.WriteAsync(0, footer.ToBytes(), cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(HeaderAt, header.ToBytes(), cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(TableAt, table, cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(end, locators, cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(end + locators.Length, footer.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Checks the options against each other and turns them into a footer and, unless the disk is fixed, a dynamic header that names no
    /// parent yet. An exact size is marked as QEMU does with force_size; see SPEC.md.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption; Unsupported: more blocks than this program handles.</exception>
    public static (VpcFooter Footer, VpcHeader? Header) Plan(string path, VpcCreateOptions options, BlockNode? parent)
    {
        if (options.BackingFile is null ? options.BackingFormat is not null : options.Subformat == VpcSubformat.Fixed)
        {
            throw Invalid(options.BackingFile is null
                ? "backing_fmt is given without a backing_file"
                : "a fixed disk has no backing file; leave out subformat=fixed");
        }
        if (options.BackingFile is not null && parent is null)
        {
            throw Invalid($"the backing file '{options.BackingFile}' must be open while its child is made, since its identity is recorded");
        }
        long asked = options.Size ?? parent?.Length ?? throw Invalid("a new image needs a size");
        VpcSize.Require(asked, options.Subformat == VpcSubformat.Fixed, path);
        long size = Round.Up(asked, VpcGeometry.SectorSize);
        (VpcGeometry geometry, string creator) = (VpcGeometry.Largest, VpcSize.QemuCurrentSize);
        if (!options.ForceSize)
        {
            VpcGeometry covering = VpcGeometry.Covering(size / VpcGeometry.SectorSize);
            long rounded = covering.Sectors * VpcGeometry.SectorSize;
            if (covering == VpcGeometry.Largest || parent is null || rounded == size) // a child is as large as its parent
            {
                (geometry, creator) = (covering, VpcSize.QemuGeometry);
                size = covering == VpcGeometry.Largest ? size : rounded;
            }
        }
        VpcDiskType type = parent is not null ? VpcDiskType.Differencing
            : options.Subformat == VpcSubformat.Fixed ? VpcDiskType.Fixed : VpcDiskType.Dynamic;
        var footer = new VpcFooter
        {
            DataOffset = type == VpcDiskType.Fixed ? VpcFooter.NoDataOffset : HeaderAt,
            TimeStamp = VpcFooter.Seconds(NewIdentity.Now),
            CreatorApplication = creator,
            OriginalSize = size,
            CurrentSize = size,
            Geometry = geometry,
            DiskType = type,
            UniqueId = options.UniqueId is { } id
                ? IdentifierOption.Parse(path, VpcCreateOptions.UniqueIdName, id)
                : NewIdentity.Of("vpc", size, type, options.BlockSize, creator, geometry, VpcParent.InfoOf(parent)?.UniqueId),
        };
        if (type == VpcDiskType.Fixed)
        {
            return (footer, null);
        }
        var header = new VpcHeader { TableOffset = TableAt, BlockSize = options.BlockSize };
        header = header with { MaxTableEntries = (uint)header.Blocks(size) };
        VpcHeader.RequireFew(header.MaxTableEntries, header.BlockSize, path);
        return (footer, header);

        DiskImageException Invalid(string what) => new(DiskImageErrorKind.InvalidOption, $"{path}: {what}.", path);
    }
}
